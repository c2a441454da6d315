using System.Reflection;
using Akka.Configuration;

namespace ActorVmm.Actors.Settings;

/// <summary>Everything that <c>akka.hocon</c> says in its <c>actorvmm</c> section, checked once at start.</summary>
/// <param name="Supervision">Limits and policy.</param>
/// <param name="ReplyDeadline">How long a vCPU waits for a device before the access reads as all ones.</param>
/// <param name="ControlDeadline">How long a VM waits for its units to pause, reset or stop.</param>
/// <param name="InspectDeadline">How long an inspection waits for one unit.</param>
public sealed record ActorSettings(SupervisionSettings Supervision, TimeSpan ReplyDeadline, TimeSpan ControlDeadline,
    TimeSpan InspectDeadline)
{
    /// <summary>Dispatcher ids, as they stand in <c>akka.hocon</c>.</summary>
    public const string CallerRunsDispatcher = "actorvmm.dispatchers.caller-runs";

    /// <inheritdoc cref="CallerRunsDispatcher"/>
    public const string VcpuDispatcher = "actorvmm.dispatchers.vcpu";

    /// <summary>Mailbox id of everything that a vCPU tells exits to.</summary>
    public const string ExitMailbox = "actorvmm.exit-mailbox";

    private const string Resource = "akka.hocon";

    /// <summary>The shipped <c>akka.hocon</c>: the value of every key that a user's file does not set.</summary>
    public static Config Shipped { get; } = Load();

    /// <summary>Binds the section; keys that are missing take their shipped value.</summary>
    /// <exception cref="ConfigurationException">An unknown key or a bad value; the message names it.</exception>
    public static ActorSettings From(Config config)
    {
        ArgumentNullException.ThrowIfNull(config);
        Check.NoUnknownKeys(config, Shipped, section: "actorvmm");
        var whole = config.WithFallback(Shipped);
        return new ActorSettings(
            SupervisionSettings.From(whole),
            Check.Duration(whole, "actorvmm.reply-deadline"),
            Check.Duration(whole, "actorvmm.control-deadline"),
            Check.Duration(whole, "actorvmm.inspect-deadline"));
    }

    private static Config Load()
    {
        using var stream = Assembly.GetExecutingAssembly().GetManifestResourceStream(Resource)!;
        using var reader = new StreamReader(stream);
        return ConfigurationFactory.ParseString(reader.ReadToEnd());
    }
}
