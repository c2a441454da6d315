namespace ActorVmm.Host.Guests;

/// <summary>Hears how the fetching of a guest goes. Any thread.</summary>
public interface IGuestProgress
{
    /// <summary>A step has begun or moved on.</summary>
    /// <param name="step">What is being done, for people.</param>
    /// <param name="fraction">0 to 1, or null where it is not known.</param>
    void Report(string step, double? fraction);
}

/// <summary>Tells nobody.</summary>
public sealed class SilentProgress : IGuestProgress
{
    public static SilentProgress Instance { get; } = new();

    /// <inheritdoc/>
    public void Report(string step, double? fraction) { }
}
