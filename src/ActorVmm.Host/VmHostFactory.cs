using ActorVmm.Actors;
using Akka.Actor;
using Akka.Configuration;
using Akka.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Serilog;
using LogLevel = Akka.Event.LogLevel;

namespace ActorVmm.Host;

/// <summary>Makes the actor system's door.</summary>
public interface IVmHostFactory
{
    /// <summary>Starts an actor system; disposing the host ends it.</summary>
    /// <param name="settings">akka.hocon.</param>
    /// <param name="log">Where Akka's log goes.</param>
    /// <param name="verbose">Log down to debug.</param>
    IVmHost Create(Config settings, Serilog.ILogger log, bool verbose);
}

/// <summary>A VM host with an actor system in which others may live too.</summary>
public interface IActorSystemOwner
{
    /// <summary>Ends with the host.</summary>
    ActorSystem System { get; }
}

/// <summary>
/// An Akka system with the operator's settings, its log bridged to Serilog by Akka.Hosting. The generic host is left out: a program that
/// lives as long as one VM needs none of it and starts faster.
/// </summary>
/// <param name="create">Makes the host on a started system.</param>
public sealed class AkkaVmHostFactory(Func<ActorSystem, Config, IVmHost> create) : IVmHostFactory
{
    /// <summary>The actor system's name.</summary>
    public const string SystemName = "actorvmm";

    /// <inheritdoc/>
    public IVmHost Create(Config settings, Serilog.ILogger log, bool verbose)
    {
        ArgumentNullException.ThrowIfNull(settings);
        _ = NoAppConfig.Ensure();
        var services = new ServiceCollection()
            .AddLogging(logging => logging.SetMinimumLevel(Microsoft.Extensions.Logging.LogLevel.Trace).AddSerilog(log))
            .AddAkka(SystemName, akka => akka
                .AddHocon(settings, HoconAddMode.Prepend)
                .AddHocon(SilentLogger.Hocon, HoconAddMode.Prepend)
                .ConfigureLoggers(loggers =>
                {
                    loggers.ClearLoggers(); // Akka's default writes to stdout, which is the guest's
                    loggers.LogLevel = verbose ? LogLevel.DebugLevel : LevelOf(settings);
                    loggers.AddLoggerFactory();
                }))
            .BuildServiceProvider();
        try
        {
            return new OwnedVmHost(create(services.GetRequiredService<ActorSystem>(), settings), services);
        }
        catch
        {
            services.Dispose();
            throw;
        }
    }

    private static LogLevel LevelOf(Config settings) => settings.GetString("akka.loglevel", "INFO").ToUpperInvariant() switch
    {
        "DEBUG" => LogLevel.DebugLevel,
        "WARNING" => LogLevel.WarningLevel,
        "ERROR" => LogLevel.ErrorLevel,
        _ => LogLevel.InfoLevel,
    };

    // The system ends after the host that lives on it.
    private sealed class OwnedVmHost(IVmHost inner, ServiceProvider services) : IVmHost, IActorSystemOwner
    {
        public ActorSystem System { get; } = services.GetRequiredService<ActorSystem>();

        public Task<IVmHandle> StartAsync(
            VmSpec spec, Hypervisor.IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler = null) =>
            inner.StartAsync(spec, hypervisor, console, exitHandler);

        public async ValueTask DisposeAsync()
        {
            await inner.DisposeAsync();
            await System.Terminate();
            await services.DisposeAsync();
        }
    }
}
