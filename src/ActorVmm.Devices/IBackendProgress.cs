namespace ActorVmm.Devices;

/// <summary>Whether a backend still answers: what a watchdog looks at. Any thread.</summary>
public interface IBackendProgress
{
    /// <summary>Requests that it has and has not answered.</summary>
    long Outstanding { get; }

    /// <summary>Requests that it has answered.</summary>
    long Finished { get; }
}
