namespace ActorVmm.Devices;

/// <summary>Where a device's output bytes leave (a console, a log).</summary>
public interface IByteSink
{
    /// <summary>Takes the bytes. Never throws for back-pressure: the sink buffers, drops or blocks by its own policy.</summary>
    void Write(ReadOnlySpan<byte> bytes);
}
