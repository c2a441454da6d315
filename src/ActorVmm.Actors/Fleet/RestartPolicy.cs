namespace ActorVmm.Actors.Fleet;

/// <summary>When a VM that has ended by itself is started again.</summary>
public enum RestartMode
{
    /// <summary>Never.</summary>
    Never,

    /// <summary>When it failed: a failure of the monitor or the hypervisor, or a panic of the guest's kernel.</summary>
    OnFailure,

    /// <summary>Whatever way it ended, unless an operator stopped it.</summary>
    Always,
}

/// <summary>A VM's restart policy: when, after which delay, and how often in a row.</summary>
/// <param name="Mode">When.</param>
/// <param name="BackOff">The delay before the first restart; it doubles with each one in a row.</param>
/// <param name="MaxBackOff">The longest delay.</param>
/// <param name="Limit">Restarts in a row, 1 to 1000; then the VM stays failed until an operator starts it.</param>
/// <param name="HealthyAfter">A run that lasted so long ends the row.</param>
public sealed record RestartPolicy(RestartMode Mode, TimeSpan BackOff, TimeSpan MaxBackOff, int Limit, TimeSpan HealthyAfter)
{
    /// <summary>Never.</summary>
    public static RestartPolicy Never { get; } =
        new(RestartMode.Never, TimeSpan.FromSeconds(1), TimeSpan.FromMinutes(1), 5, TimeSpan.FromSeconds(30));

    /// <summary>True where a run that ended so is followed by another.</summary>
    public bool Wants(VmOutcome outcome)
    {
        ArgumentNullException.ThrowIfNull(outcome);
        return Mode switch
        {
            RestartMode.Always    => outcome.Reason != StopReason.Requested,
            RestartMode.OnFailure => outcome.ExitCode != 0,
            _                     => false,
        };
    }

    /// <summary>The delay before restart number <paramref name="inARow"/> (from 1).</summary>
    public TimeSpan DelayBefore(int inARow)
    {
        var factor = Math.Pow(2, Math.Clamp(inARow - 1, 0, 30));
        return BackOff * factor < MaxBackOff ? BackOff * factor : MaxBackOff;
    }
}

/// <summary>How a VM is stopped in order before its power is cut.</summary>
/// <param name="Key">What is pressed first; null presses nothing: the power is cut at once.</param>
/// <param name="Second">What is pressed when a third of the deadline has passed; null for nothing.</param>
/// <param name="Deadline">When the power is cut.</param>
public sealed record StopPolicy(PowerKeyChoice Key, PowerKeyChoice Second, TimeSpan Deadline)
{
    /// <summary>Power button, Ctrl-Alt-Del after a third of ten seconds, then power loss.</summary>
    public static StopPolicy Default { get; } = new(PowerKeyChoice.PowerButton, PowerKeyChoice.CtrlAltDel, TimeSpan.FromSeconds(10));
}

/// <summary>A key to press, or none.</summary>
public enum PowerKeyChoice
{
    /// <summary>Nothing is pressed.</summary>
    None,

    /// <summary>The ACPI power button.</summary>
    PowerButton,

    /// <summary>Ctrl-Alt-Del.</summary>
    CtrlAltDel,
}
