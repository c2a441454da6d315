using ActorVmm.Memory;

namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>
/// One request in flight, for a backend to give back with its result. Never used twice: after a reset, or after the device was restarted,
/// what the backend still answers finds no request and is dropped.
/// </summary>
/// <param name="Queue">The queue's index.</param>
/// <param name="Head">The chain's first descriptor.</param>
/// <param name="Serial">Unique for each time that a request is handed out.</param>
public readonly record struct RequestId(ushort Queue, ushort Head, ulong Serial);

/// <summary>One buffer of a chain; wholly in RAM when the chain was taken.</summary>
/// <param name="Address">Guest physical.</param>
/// <param name="Length">Bytes, at least 1.</param>
public readonly record struct GuestSegment(GuestAddress Address, uint Length);
