using ActorVmm.Host.Descriptions;
using Serilog;
using Serilog.Core;
using Serilog.Events;
using Serilog.Formatting.Compact;

namespace ActorVmm.Host.Logging;

/// <summary>
/// The program's log: for people on stderr, compact JSON for machines in a file, and the log file that a VM's description asks for. Every
/// line of a VM carries <c>Vm</c> and <c>ActorPath</c>. Standard output belongs to the guest and is never written to.
/// </summary>
internal static class HostLog
{
    /// <summary>Builds the logger; dispose it to flush.</summary>
    /// <param name="settings">The operator's settings.</param>
    /// <param name="verbose">Debug on stderr, whatever the settings say.</param>
    /// <param name="vm">What the description asks for, or null.</param>
    /// <param name="rawTerminal">Whether lines on stderr need a carriage return.</param>
    public static Logger Create(LoggingSettings settings, bool verbose, LogDescription? vm, bool rawTerminal)
    {
        var configuration = new LoggerConfiguration().MinimumLevel.Verbose().Enrich.With<ActorPathEnricher>();
        var console = verbose ? LogEventLevel.Debug : settings.ConsoleLevel;
        if (console is { } consoleLevel)
        {
            configuration.WriteTo.Console(
                restrictedToMinimumLevel: consoleLevel,
                outputTemplate: "{Timestamp:HH:mm:ss.fff} {Level:u3} {ActorPath}{Message:lj}" + (rawTerminal ? "\r" : "")
                    + "{NewLine}{Exception}",
                standardErrorFromLevel: LogEventLevel.Verbose);
        }
        if (settings is { File: { } file, FileLevel: { } fileLevel })
        {
            configuration.WriteTo.File(
                new CompactJsonFormatter(), file, fileLevel, fileSizeLimitBytes: (long)settings.FileSizeLimitMib << 20,
                rollOnFileSizeLimit: true, retainedFileCountLimit: settings.RetainedFiles, shared: false);
        }
        if (vm is { Path: { } path } && LevelOf(vm.Level) is { } level)
        {
            configuration.WriteTo.File(
                path, level, fileSizeLimitBytes: null, retainedFileCountLimit: null,
                outputTemplate: "{Timestamp:yyyy-MM-ddTHH:mm:ss.fffffff} [{Vm}" + (vm.ShowLevel ? ":{Level}" : "")
                    + "] {ActorPath}{Message:lj}{NewLine}{Exception}");
        }
        return configuration.CreateLogger();
    }

    private static LogEventLevel? LevelOf(string word) => word switch
    {
        "off" => null,
        "error" => LogEventLevel.Error,
        "warning" => LogEventLevel.Warning,
        "debug" => LogEventLevel.Debug,
        "trace" => LogEventLevel.Verbose,
        _ => LogEventLevel.Information,
    };
}

/// <summary>
/// Adds <c>ActorPath</c> (<c>/user/host/vm/bus</c>, and a space for templates) and <c>Vm</c> to events that come from an actor.
/// </summary>
internal sealed class ActorPathEnricher : ILogEventEnricher
{
    private const string HostPath = "/user/host/";

    public void Enrich(LogEvent logEvent, ILogEventPropertyFactory propertyFactory)
    {
        if (PathOf(logEvent) is not { } path)
        {
            // Akka's own actors; their path comes without the space that the templates count on.
            if (logEvent.Properties.TryGetValue("ActorPath", out var own) && own is ScalarValue { Value: string text })
                logEvent.AddOrUpdateProperty(propertyFactory.CreateProperty("ActorPath", text.TrimEnd() + " "));
            return;
        }
        logEvent.AddOrUpdateProperty(propertyFactory.CreateProperty("ActorPath", path + " "));
        if (!path.StartsWith(HostPath, StringComparison.Ordinal))
            return;
        var rest = path[HostPath.Length..];
        var slash = rest.IndexOf('/', StringComparison.Ordinal);
        logEvent.AddPropertyIfAbsent(propertyFactory.CreateProperty("Vm", slash < 0 ? rest : rest[..slash]));
    }

    // Akka's source is "akka://actorvmm/user/host/vm" or "[akka://actorvmm/user/host/vm]" or "Type (actorvmm)".
    private static string? PathOf(LogEvent logEvent)
    {
        foreach (var name in (ReadOnlySpan<string>)["ActorPath", "LogSource", "SourceContext"])
        {
            if (!logEvent.Properties.TryGetValue(name, out var value) || value is not ScalarValue { Value: { } scalar })
                continue;
            var text = scalar.ToString() ?? "";
            var user = text.IndexOf("/user/", StringComparison.Ordinal);
            if (user < 0)
                continue;
            var end = text.IndexOfAny(['#', ']', ' '], user);
            return end < 0 ? text[user..] : text[user..end];
        }
        return null;
    }
}
