using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>One software CPU core: owns its state, TLBs, block cache and translator; run by one thread at a time.</summary>
internal sealed unsafe partial class SoftCpu
{
    private readonly CpuState* _s;

    /// <summary>The CPU that owns a state.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static SoftCpu Of(CpuState* s) => Unsafe.As<SoftCpu>(GCHandle.FromIntPtr(s->Owner).Target!);

    // --- memory, see SoftCpu.Memory.cs (being written by the integrator; the signatures stand) ---

    /// <summary>Loads 1 to 8 bytes at the current privilege.</summary>
    public ulong ReadSlow(Op* op, ulong address, int size, bool forWrite) => 0;

    /// <summary>Stores 1 to 8 bytes at the current privilege.</summary>
    public void WriteSlow(Op* op, ulong address, ulong value, int size) { }

    /// <summary>Raises the fault a write would raise; true where it would not.</summary>
    public bool ProbeWrite(Op* op, ulong address, int size) => false;

    /// <summary>Supervisor load from a linear address (descriptor tables, TSS, stacks during delivery). False: an exception is set in the state.</summary>
    public bool SystemRead(ulong linear, int size, out ulong value) { value = 0; return false; }

    /// <summary>Supervisor store.</summary>
    public bool SystemWrite(ulong linear, int size, ulong value) => false;

    /// <summary>Drops TLB entries; global ones only on request.</summary>
    public void FlushTlb(bool includeGlobal) { }

    /// <summary>Drops the entries of one page.</summary>
    public void FlushPage(ulong linear) { }

    /// <summary>Recomputes <see cref="CpuState.Mode"/> and the TLB pointers after CS, CPL, CR0, CR4 or EFER changed.</summary>
    public void UpdateMode() { }

    /// <summary>Time stamp counter with the offset applied; exact at <paramref name="op"/>.</summary>
    public ulong ReadTsc(Op* op) => 0;
}
