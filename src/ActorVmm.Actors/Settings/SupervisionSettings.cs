using Akka.Configuration;

namespace ActorVmm.Actors.Settings;

/// <summary>What happens to a device that fails more often than its limit.</summary>
public enum OverLimitPolicy
{
    /// <summary>The VM is paused for an operator; resuming it gives the device a fresh budget. Nothing is lost.</summary>
    Pause,

    /// <summary>The device is taken off the bus: its addresses read as all ones.</summary>
    Unplug,

    /// <summary>The VM ends as failed.</summary>
    Fail,
}

/// <summary>How often one device may fail, and then what.</summary>
/// <param name="MaxRetries">Restarts within <paramref name="Within"/>; 0 to 1000. Never unlimited.</param>
/// <param name="Within">The window.</param>
/// <param name="OverLimit">What happens then.</param>
public sealed record DeviceLimits(int MaxRetries, TimeSpan Within, OverLimitPolicy OverLimit);

/// <summary>How often devices may fail and how long they may take, and then what (<c>actorvmm.supervision</c>).</summary>
/// <param name="Standard">The limits of a device that has none of its own.</param>
/// <param name="HangDeadline">How long a handler may take before it counts as hung.</param>
/// <param name="BackendDeadline">How long a backend may answer nothing while it has requests.</param>
/// <param name="MaxLostThreads">Threads that one VM may lose in hung handlers before it ends; 0 to 64.</param>
/// <param name="Devices">Limits by the device's name.</param>
public sealed record SupervisionSettings(
    DeviceLimits Standard, TimeSpan HangDeadline, TimeSpan BackendDeadline, int MaxLostThreads, IReadOnlyDictionary<string, DeviceLimits> Devices)
{
    private const string Section = "actorvmm.supervision";

    /// <summary>The section whose keys are the names of devices; in each of them the three keys of <see cref="DeviceLimits"/>.</summary>
    internal const string DevicesSection = Section + ".devices";

    private static readonly string[] s_limitKeys = ["max-retries", "within", "over-limit"];

    /// <summary>The limits of <paramref name="device"/>.</summary>
    public DeviceLimits Of(string device) => Devices.GetValueOrDefault(device, Standard);

    /// <summary>Binds <c>actorvmm.supervision</c>.</summary>
    /// <exception cref="ConfigurationException">A value is out of its range; the message names key, value and what is allowed.</exception>
    public static SupervisionSettings From(Config config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var standard = Limits(config, Section, null);
        return new SupervisionSettings(
            standard,
            Check.Duration(config, $"{Section}.hang-deadline"),
            Check.Duration(config, $"{Section}.backend-deadline"),
            Check.Range(config, $"{Section}.max-lost-threads", least: 0, most: 64),
            Check.Names(config, DevicesSection).ToDictionary(
                name => name, name => Limits(config, $"{DevicesSection}.{name}", standard), StringComparer.Ordinal));
    }

    /// <summary>True for a key such as <c>actorvmm.supervision.devices.blk0.over-limit</c>.</summary>
    internal static bool IsDeviceKey(string key) =>
        key.StartsWith(DevicesSection + ".", StringComparison.Ordinal)
        && key[(DevicesSection.Length + 1)..].Split('.') is [_, var limit] && s_limitKeys.Contains(limit, StringComparer.Ordinal);

    private static DeviceLimits Limits(Config config, string section, DeviceLimits? standard)
    {
        bool Given(string key) => standard is null || config.HasPath($"{section}.{key}");
        return new DeviceLimits(
            Given("max-retries") ? Check.Range(config, $"{section}.max-retries", least: 0, most: 1000) : standard!.MaxRetries,
            Given("within") ? Check.Duration(config, $"{section}.within") : standard!.Within,
            Given("over-limit") ? Check.OneOf<OverLimitPolicy>(config, $"{section}.over-limit") : standard!.OverLimit);
    }
}
