namespace ActorVmm.Host;

/// <summary>The program's exit codes. 152 and 153 are Firecracker's; a signal n gives 128 + n.</summary>
public static class ExitCodes
{
    /// <summary>The guest or the user ended the run.</summary>
    public const int Success = 0;

    /// <summary>A failure of ours, or the host lacks something.</summary>
    public const int Failure = 33;

    /// <summary>The guest's kernel panicked.</summary>
    public const int GuestPanic = 34;

    /// <summary>An experiment's property does not hold.</summary>
    public const int ExperimentProperty = 40;

    /// <summary>A guest of an experiment did not end in its time.</summary>
    public const int ExperimentTimeout = 41;

    /// <summary>A run of an experiment failed in the monitor.</summary>
    public const int ExperimentCrash = 42;

    /// <summary>Two runs that were compared are not the same.</summary>
    public const int ExperimentDiffers = 43;

    /// <summary>The description (or akka.hocon) is wrong.</summary>
    public const int BadDescription = 152;

    /// <summary>The command line is wrong.</summary>
    public const int BadArguments = 153;
}
