namespace ActorVmm.Memory;

/// <summary>Hears of writes to guest RAM that did not come from a vCPU (DMA), so that translated guest code can be dropped.</summary>
public interface IGuestWriteObserver
{
    /// <summary>
    /// Guest RAM [<paramref name="start"/>, +<paramref name="length"/>) was written by a device. Called on the device's thread.
    /// </summary>
    void OnWritten(GuestAddress start, ulong length);
}
