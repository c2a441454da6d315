using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft;

/// <summary>Chip states as bytes: their structs are plain values, written as they lie in memory.</summary>
internal static class ChipState
{
    public static byte[] Save<T>(T state) where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in state)).ToArray();

    public static T Load<T>(MachineState state, string chip) where T : unmanaged
    {
        if (!state.Chips.TryGetValue(chip, out var bytes)) throw new HypervisorException($"the state lacks '{chip}'");
        if (bytes.Length != Unsafe.SizeOf<T>())
            throw new HypervisorException($"the state of '{chip}' has {bytes.Length} bytes, {Unsafe.SizeOf<T>()} are expected: saved by another version?");
        return MemoryMarshal.Read<T>(bytes);
    }
}
