namespace ActorVmm.Devices.Chipset;

/// <summary>
/// Carries interrupt messages between the local APICs and tells the I/O APIC of EOIs.
/// <para>
/// Locking: delivery takes no lock (a local APIC accepts from any thread). The I/O APIC, the 8259 pair and the 8254 share one lock, which
/// their caller holds; the bus takes that same lock to pass on an EOI, so a local APIC must not be called with it held by another thread
/// that waits for this one. Delivering while holding the lock is what the I/O APIC does and is safe.
/// </para>
/// </summary>
/// <param name="chipLock">The lock of the shared chips; re-entrant.</param>
public sealed class ApicBus(Lock chipLock) : IApicBus
{
    LocalApic[] _apics = [];
    IoApic? _ioApic;
    int _lastLowest;

    /// <summary>Adds a local APIC; before the machine runs.</summary>
    public void Attach(LocalApic apic) => _apics = [.. _apics, apic];

    /// <summary>Sets the I/O APIC that hears of EOIs; before the machine runs.</summary>
    public void Attach(IoApic ioApic) => _ioApic = ioApic;

    /// <inheritdoc/>
    public bool Deliver(uint destination, bool logical, ApicDeliveryMode mode, byte vector, bool level)
    {
        if (mode == ApicDeliveryMode.LowestPriority)
            return DeliverToLowest(destination, logical, vector, level);

        var accepted = false;
        foreach (var apic in _apics)
            if (apic.Matches(destination, logical)) accepted |= apic.Accept(mode, vector, level);
        return accepted;
    }

    /// <inheritdoc/>
    public void DeliverToAll(LocalApic? except, ApicDeliveryMode mode, byte vector)
    {
        foreach (var apic in _apics)
            if (apic != except) apic.Accept(mode, vector, level: false);
    }

    /// <inheritdoc/>
    public void EndOfInterrupt(byte vector)
    {
        if (_ioApic is null) return;
        lock (chipLock) _ioApic.EndOfInterrupt(vector);
    }

    /// <summary>
    /// Delivers a message-signalled interrupt: a write of <paramref name="data"/> to 0xFEExxxxx (SDM Vol. 3 §11.11). Any thread.
    /// </summary>
    public void DeliverMsi(ulong address, uint data)
    {
        if (address >> 20 != 0xFEE) return;
        var destination = (uint)(address >> 12) & 0xFF;
        var logical = (address & (1 << 2)) != 0;
        var mode = (ApicDeliveryMode)((data >> 8) & 7);
        Deliver(!logical && destination == 0xFF ? uint.MaxValue : destination, logical, mode, (byte)data, level: (data & (1 << 15)) != 0);
    }

    // The lowest task priority among those that are on wins; equals take turns (SDM Vol. 3 §11.6.2.4).
    bool DeliverToLowest(uint destination, bool logical, byte vector, bool level)
    {
        LocalApic? best = null;
        var start = Volatile.Read(ref _lastLowest);
        var chosen = start;
        for (var i = 1; i <= _apics.Length; i++)
        {
            var index = (start + i) % _apics.Length;
            var apic = _apics[index];
            if (!apic.HardwareEnabled || !apic.SoftwareEnabled || !apic.Matches(destination, logical)) continue;
            if (best is not null && apic.TaskPriority >= best.TaskPriority) continue;
            best = apic;
            chosen = index;
        }

        if (best is null) return false;
        Volatile.Write(ref _lastLowest, chosen);
        return best.Accept(ApicDeliveryMode.LowestPriority, vector, level);
    }
}
