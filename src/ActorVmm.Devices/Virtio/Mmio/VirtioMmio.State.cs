using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Devices.Virtio.Mmio;

/// <summary>A virtio device as a value: registers, queues with the requests in flight, state of its type. Savable.</summary>
/// <param name="DeviceId">Its type.</param>
/// <param name="Registers">The transport's registers.</param>
/// <param name="Queues">By index.</param>
/// <param name="DeviceState">Bytes of the type, or null.</param>
/// <param name="ConfigGeneration">Changes of configuration space.</param>
/// <param name="NeedsReset">Why it asks to be reset, or null.</param>
public sealed record VirtioState(uint DeviceId, VirtioRegisters Registers, IReadOnlyList<QueueState> Queues,
    IReadOnlyList<byte>? DeviceState, uint ConfigGeneration, string? NeedsReset);

/// <summary>Save and restore.</summary>
public sealed partial class VirtioMmio
{
    /// <summary>Everything, as a value; changes nothing.</summary>
    public VirtioState Save() => new(_type.DeviceId, State, [.. _ledger.Queues.Select(static queue => queue.Save())],
        _ledger.HasDeviceState ? [.. _ledger.DeviceState] : null, _ledger.ConfigGeneration, _ledger.NeedsReset);

    /// <summary>
    /// Takes over a saved state; null, or why it cannot be right, and then nothing has changed. Requests that were in flight are begun
    /// again by <see cref="Resume"/>, which the owner calls next.
    /// </summary>
    public string? Restore(VirtioState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        if (state.DeviceId != _type.DeviceId) return $"it is the state of a device of type {state.DeviceId}";
        if (state.Queues.Count != _queues.Length) return $"{state.Queues.Count} queues are saved, there are {_queues.Length}";
        for (var index = 0; index < _queues.Length; index++)
            if (state.Queues[index].Check(_ledger.Queues[index].MaxSize) is { } fault) return $"queue {index}: {fault}";
        if (StatusFault(state.Registers) is { } refusal) return refusal;
        if (state.DeviceState is { } bytes && (bytes.Count != _type.StateSize || !_type.RestoreState([.. bytes])))
            return "the state of the device's type is not acceptable";

        _type.Reset();
        foreach (var queue in _queues) queue.Stop();
        _ledger.Clear();
        _ledger.ConfigGeneration = state.ConfigGeneration;
        _ledger.NeedsReset = state.NeedsReset;
        _ledger.SetDeviceState(state.DeviceState is { } saved ? [.. saved] : null);
        for (var index = 0; index < _queues.Length; index++) _ = _ledger.Queues[index].Restore(state.Queues[index]);
        (_ledger.UsedSignals, _ledger.ConfigSignals) = (state.Registers.UsedSignals, state.Registers.ConfigSignals);
        State = state.Registers;
        return null;
    }

    private string? StatusFault(VirtioRegisters registers)
    {
        const DeviceStatus All = DeviceStatus.Acknowledge | DeviceStatus.Driver | DeviceStatus.FeaturesOk | DeviceStatus.DriverOk;
        var steps = registers.Status & ~DeviceStatus.Failed;
        if (steps is not (DeviceStatus.None or DeviceStatus.Acknowledge or (DeviceStatus.Acknowledge | DeviceStatus.Driver)
            or (All & ~DeviceStatus.DriverOk) or All)) return $"a driver cannot come to status {registers.Status}";
        if ((steps & DeviceStatus.FeaturesOk) != 0 && (registers.DriverFeatures & ~OfferedFeatures) != 0)
            return $"features 0x{registers.DriverFeatures & ~OfferedFeatures:x} are not offered here";
        return (registers.Interrupt & ~(InterruptCause.UsedBuffer | InterruptCause.ConfigChange)) == 0
            ? null
            : $"{registers.Interrupt} is no cause of an interrupt";
    }
}
