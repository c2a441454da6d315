using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Api;
using ActorVmm.Host.Client;
using ActorVmm.Host.Commands;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Firecracker;
using ActorVmm.Host.Logging;
using Akka.Actor;
using Akka.Configuration;
using Serilog;

namespace ActorVmm.Host.Fleet;

/// <summary>What <c>actorvmm host</c> was asked for.</summary>
/// <param name="File">The description; null for a host that begins without VMs.</param>
/// <param name="Socket">The API's socket, over what the description says.</param>
/// <param name="TcpPort">A loopback port too.</param>
/// <param name="TokenFile">The bearer token for it.</param>
/// <param name="Verbose">Debug log.</param>
internal sealed record HostOptions(string? File, string? Socket, int? TcpPort, string? TokenFile, bool Verbose);

/// <summary>
/// The daemon: one actor system, many VMs, one API. It tells the service manager when it is ready and that it lives; SIGTERM and SIGINT end
/// its guests in order, a second one cuts their power; SIGHUP reads the description again.
/// </summary>
internal sealed class HostDaemon(HostServices services, ConsoleDescriptors descriptors)
{
    private static readonly TimeSpan s_answer = TimeSpan.FromSeconds(5);

    private HostDescription _present = new();
    private readonly TaskCompletionSource _ending = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when the API listens and the VMs of the description have been started; for tests.</summary>
    public TaskCompletionSource Ready { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Ends the daemon as SIGTERM does.</summary>
    public void End() => _ending.TrySetResult();

    public async Task<int> RunAsync(HostOptions options)
    {
        Config settings;
        LoggingSettings logging;
        FleetDescription description;
        ApiListeners listeners;
        try
        {
            settings = OperatorSettings.Load();
            logging = LoggingSettings.From(settings);
            description = options.File is { } file ? FleetReader.ReadFile(file) : new FleetDescription(new HostDescription(), []);
            listeners = Listeners(options, description.Host);
        }
        catch (Exception wrong) when (wrong is ConfigurationException or DescriptionException)
        {
            await descriptors.Errors.WriteLineAsync(wrong is DescriptionException ? wrong.Message : $"actorvmm: {wrong.Message}")
                .ConfigureAwait(false);
            return ExitCodes.BadDescription;
        }

        await using var log = HostLog.Create(logging, options.Verbose, vm: null, rawTerminal: false);
        var host = services.VmHosts.Create(settings, log, options.Verbose);
        var own = (host as IActorSystemOwner)?.System is null ? ActorSystem.Create("actorvmm-fleet", "akka.loggers = []") : null;
        try
        {
            return await ServeAsync(options, description, listeners, host, own ?? ((IActorSystemOwner)host).System,
                log).ConfigureAwait(false);
        }
        catch (Exception refused) when (refused is IOException or UnauthorizedAccessException)
        {
            await descriptors.Errors.WriteLineAsync($"actorvmm: {refused.Message}").ConfigureAwait(false);
            return ExitCodes.Failure;
        }
        finally
        {
            await host.DisposeAsync().ConfigureAwait(false);
            if (own is not null) await own.Terminate().ConfigureAwait(false);
        }
    }

    private async Task<int> ServeAsync(
        HostOptions options, FleetDescription description, ApiListeners listeners, IVmHost host, ActorSystem system, ILogger log)
    {
        using var notifier = Notifier.OfProcess();
        using var over = new CancellationTokenSource();
        var fleet = new VmFleet(system, host, description.Host.Limits);
        _present = description.Host;
        await using var consoles = new ConsoleShelf(description.Host.ConsoleKib << 10, description.Host.ConsoleDirectory, log);
        var state = new HostState(fleet, services.Hypervisors, consoles);
        using var runner = new FleetRunner(state, log, notifier.Status);
        if (options.File is { } file) state.Reload = () => ReloadAsync(file, fleet, runner, notifier, log, over.Token);
        await using var sockets = description.Host.FirecrackerSockets is { } directory ? new HostedSockets(state, directory, log) : null;
        var api = ApiServer.Build(state, listeners, log);
        await using var _ = api.ConfigureAwait(false);
        await api.StartAsync(over.Token).ConfigureAwait(false);
        using var signals = new Signals(this, state, log, descriptors);
        await descriptors.Errors.WriteLineAsync($"actorvmm: listening on {listeners.Socket}"
            + (api.Port is { } port ? $" and 127.0.0.1:{port}" : "")).ConfigureAwait(false);
        var watchdog = WatchAsync(fleet, notifier, log, over.Token);
        var starting = runner.StartAsync(description, over.Token);
        if (await Task.WhenAny(starting, _ending.Task).ConfigureAwait(false) == starting)
        {
            await starting.ConfigureAwait(false);
            notifier.Ready($"{fleet.All.Count} VMs");
            Ready.TrySetResult();
            await _ending.Task.ConfigureAwait(false);
        }

        notifier.Stopping();
        await over.CancelAsync().ConfigureAwait(false);
        await runner.StopAsync(_present.StopDeadline).ConfigureAwait(false);
        await watchdog.ConfigureAwait(false);
        await descriptors.Errors.WriteLineAsync("stopped: requested").ConfigureAwait(false);
        return ExitCodes.Success;
    }

    private async Task<ReloadReport> ReloadAsync(string file, VmFleet fleet, FleetRunner runner, Notifier notifier, ILogger log,
        CancellationToken cancel)
    {
        notifier.Reloading(Stopwatch.GetTimestamp() / (Stopwatch.Frequency / 1_000_000));
        try
        {
            // Read whole before anything is touched: a description with an error changes nothing.
            var next = FleetReader.ReadFile(file);
            var report = await runner.ReloadAsync(next, _present.FixedChanges(next.Host), cancel).ConfigureAwait(false);
            // What cannot change is compared with what the host was started with, each time.
            _present = _present with { StopDeadline = next.Host.StopDeadline, ParallelStarts = next.Host.ParallelStarts };
            // Whoever sent SIGHUP reads it here.
            await descriptors.Errors.WriteAsync(Report(file, report)).ConfigureAwait(false);
            return report;
        }
        catch (Exception refused) when (refused is not OperationCanceledException)
        {
            fleet.Journal.Append("", "reload-failed", refused.Message.ReplaceLineEndings("; "));
            throw;
        }
        finally
        {
            notifier.Ready("reloaded");
        }
    }

    private static string Report(string file, ReloadReport report)
    {
        var text = new StringBuilder().Append(CultureInfo.InvariantCulture, $"actorvmm: {file} was read again\n");
        foreach (var name in report.Added) text.Append(CultureInfo.InvariantCulture, $"  added    {name}\n");
        foreach (var name in report.Removed) text.Append(CultureInfo.InvariantCulture, $"  removed  {name}\n");
        foreach (var (name, needs) in report.Changed)
            text.Append(CultureInfo.InvariantCulture, $"  changed  {name}{(needs ? ": takes effect with its next start" : "")}\n");
        if (report.Host.Count > 0)
            text.Append(CultureInfo.InvariantCulture, $"  changed  host: {string.Join(", ", report.Host)}: takes effect when the host is started again\n");
        foreach (var failure in report.Failures) text.Append(CultureInfo.InvariantCulture, $"  failed   {failure}\n");
        return text.ToString();
    }

    private static async Task WatchAsync(VmFleet fleet, Notifier notifier, ILogger log, CancellationToken cancel)
    {
        var period = Notifier.WatchdogPeriod(Environment.GetEnvironmentVariable("WATCHDOG_USEC"),
            Environment.GetEnvironmentVariable("WATCHDOG_PID"), Environment.ProcessId);
        if (period is not { } every) return;
        using var timer = new PeriodicTimer(every);
        try
        {
            do
            {
                // The sign of life is the actors' own: a process whose fleet does not answer is one that the service manager should
                // restart.
                if (await fleet.AnswersAsync(s_answer).ConfigureAwait(false)) notifier.Watchdog();
                else log.Error("The fleet's actor does not answer");
            }
            while (await timer.WaitForNextTickAsync(cancel).ConfigureAwait(false));
        }
        catch (OperationCanceledException) { /* the daemon ends */ }
    }

    private static ApiListeners Listeners(HostOptions options, HostDescription host)
    {
        var tokenFile = options.TokenFile ?? host.TokenFile;
        var port = options.TcpPort ?? host.TcpPort;
        string? token = null;
        if (port is not null)
        {
            if (tokenFile is null)
                throw new DescriptionException(
                    [new("--tcp-port", 0, 0, "", null, "the API over TCP needs a bearer token: give --token-file too")]);
            try
            {
                token = File.ReadLines(tokenFile).FirstOrDefault()?.Trim();
            }
            catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
            {
                throw new DescriptionException([new(tokenFile, 0, 0, "", null, $"cannot be read: {cannot.Message}")]);
            }

            if (token is not { Length: >= 16 })
                throw new DescriptionException(
                    [new(tokenFile, 1, 1, "", null, "the first line is the bearer token: 16 characters or more")]);
        }

        var socket = Path.GetFullPath(options.Socket ?? host.Socket ?? HostClient.DefaultSocket);
        // Flag and file have been checked where they were read: this one comes of the environment.
        if (!SocketFile.IsShortEnough(socket))
            throw new DescriptionException([new(HostClient.Variable, 0, 0, "", null, $"{socket}: {SocketFile.TooLong(socket)}")]);
        return new ApiListeners(socket, port, token);
    }

    /// <summary>The daemon's signals.</summary>
    private sealed class Signals : IDisposable
    {
        private readonly List<PosixSignalRegistration> _registrations = [];
        private int _ends;

        public Signals(HostDaemon daemon, HostState state, ILogger log, ConsoleDescriptors descriptors)
        {
            foreach (var signal in (ReadOnlySpan<PosixSignal>)[PosixSignal.SIGTERM, PosixSignal.SIGINT])
            {
                _registrations.Add(PosixSignalRegistration.Create(signal, context =>
                {
                    context.Cancel = true;
                    if (Interlocked.Increment(ref _ends) == 1)
                    {
                        daemon.End();
                        return;
                    }

                    log.Warning("A second signal: power is cut");
                    foreach (var vm in state.Fleet.All) _ = state.Fleet.KillAsync(vm.Name).ContinueWith(static _ => { },
                        TaskScheduler.Default);
                    if (Volatile.Read(ref _ends) > 2) descriptors.Exit(128 + (context.Signal == PosixSignal.SIGINT ? 2 : 15));
                }));
            }

            _registrations.Add(PosixSignalRegistration.Create(PosixSignal.SIGHUP, context =>
            {
                context.Cancel = true;
                _ = state.Reload?.Invoke().ContinueWith(
                    done => log.Error("The description was not taken: {Why}", done.Exception!.GetBaseException().Message),
                    CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
            }));
        }

        public void Dispose()
        {
            foreach (var registration in _registrations) registration.Dispose();
        }
    }
}
