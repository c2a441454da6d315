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

/// <summary>How often a device may fail, and then what (<c>actorvmm.supervision</c>).</summary>
/// <param name="MaxRetries">Restarts within <paramref name="Within"/>; 0 to 1000. Never unlimited.</param>
/// <param name="Within">The window.</param>
/// <param name="OverLimit">What happens then.</param>
public sealed record SupervisionSettings(int MaxRetries, TimeSpan Within, OverLimitPolicy OverLimit)
{
    /// <summary>Binds <c>actorvmm.supervision</c>.</summary>
    /// <exception cref="ConfigurationException">A value is out of its range; the message names key, value and what is allowed.</exception>
    public static SupervisionSettings From(Config config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return new SupervisionSettings(
            Check.Range(config, "actorvmm.supervision.max-retries", least: 0, most: 1000),
            Check.Duration(config, "actorvmm.supervision.within"),
            Check.OneOf<OverLimitPolicy>(config, "actorvmm.supervision.over-limit"));
    }
}
