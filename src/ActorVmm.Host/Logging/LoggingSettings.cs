using System.Globalization;
using Akka.Configuration;
using Serilog.Events;

namespace ActorVmm.Host.Logging;

/// <summary>The section <c>actorvmm.logging</c> of akka.hocon.</summary>
/// <param name="ConsoleLevel">Least level on stderr; null for none.</param>
/// <param name="File">The compact JSON file, or null for none.</param>
/// <param name="FileLevel">Least level in the file; null for none.</param>
/// <param name="FileSizeLimitMib">Size at which a new file is begun.</param>
/// <param name="RetainedFiles">How many files are kept.</param>
public sealed record LoggingSettings(LogEventLevel? ConsoleLevel, string? File, LogEventLevel? FileLevel, int FileSizeLimitMib,
    int RetainedFiles)
{
    private const string Section = "actorvmm.logging";

    /// <summary>What holds where no file says otherwise; the shipped akka.hocon says the same (there is a test).</summary>
    public static LoggingSettings Default { get; } = new(LogEventLevel.Warning, File: null, LogEventLevel.Debug, FileSizeLimitMib: 64,
        RetainedFiles: 4);

    /// <summary>Reads the section; a missing key keeps its default.</summary>
    /// <exception cref="ConfigurationException">A value is not allowed; the message names key, value and what is.</exception>
    public static LoggingSettings From(Config config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var file = Text(config, "file");
        return new(
            Level(config, "console-level", Default.ConsoleLevel),
            file is null ? Default.File : file.Length == 0 ? null : file,
            Level(config, "file-level", Default.FileLevel),
            Number(config, "file-size-limit-mib", Default.FileSizeLimitMib, 65536),
            Number(config, "retained-files", Default.RetainedFiles, 1000));
    }

    private static string? Text(Config config, string key) =>
        config.HasPath($"{Section}.{key}") ? config.GetString($"{Section}.{key}") ?? "" : null;

    private static LogEventLevel? Level(Config config, string key, LogEventLevel? missing) => Text(config, key) switch
    {
        null => missing,
        "off" => null,
        "verbose" => LogEventLevel.Verbose,
        "debug" => LogEventLevel.Debug,
        "information" or "info" => LogEventLevel.Information,
        "warning" => LogEventLevel.Warning,
        "error" => LogEventLevel.Error,
        "fatal" => LogEventLevel.Fatal,
        var other => throw new ConfigurationException(
            $"{Section}.{key} = {other}: allowed is verbose, debug, information, warning, error, fatal or off"),
    };

    private static int Number(Config config, string key, int missing, int most)
    {
        if (Text(config, key) is not { } text)
            return missing;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) && value >= 1 && value <= most
            ? value
            : throw new ConfigurationException(string.Create(CultureInfo.InvariantCulture,
                $"{Section}.{key} = {text}: allowed is a whole number from 1 to {most}"));
    }
}
