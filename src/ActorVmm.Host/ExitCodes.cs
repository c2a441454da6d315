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

    /// <summary>The description (or akka.hocon) is wrong.</summary>
    public const int BadDescription = 152;

    /// <summary>The command line is wrong.</summary>
    public const int BadArguments = 153;
}
