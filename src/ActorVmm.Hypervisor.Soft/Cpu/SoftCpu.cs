using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Soft.Cpu.Compiler;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>One software CPU core: owns its state, TLBs, block cache and translator; run by one thread at a time.</summary>
internal sealed unsafe partial class SoftCpu : IDisposable
{
    private readonly CpuState* _s;
    private readonly SoftMachine _machine;
    private readonly Translator _translator = new();
    private GCHandle _self;

    public SoftCpu(SoftMachine machine, int id)
    {
        _machine = machine;
        Id = id;
        // SAFETY: zeroed native memory of the struct's size, freed once in Dispose; aligned so that XMM accesses do not straddle lines.
        _s = (CpuState*)NativeMemory.AlignedAlloc((nuint)sizeof(CpuState), 64);
        NativeMemory.Clear(_s, (nuint)sizeof(CpuState));
        _self = GCHandle.Alloc(this);
        _s->Owner = GCHandle.ToIntPtr(_self);
        if (machine.CompileThreshold > 0)
        {
            if (machine.Options.LockStep) _lockStep = new LockStep(machine);
            _tier = CompiledTier.TryCreate(machine, _s, _translator, out var refusal);
            if (_tier != null) _translator.CompileThreshold = machine.CompileThreshold;
            else machine.NoteNoCompiler(refusal!);
        }
        _supervisor = new TlbSet(ToZero);
        SelectTlbs();
        _blocks = new BlockCache(machine.Ram, _s) { Cleared = ForgetJumps, Tier = _tier };
    }

    public int Id { get; }

    /// <summary>The compiler tier, or null where code is interpreted only.</summary>
    public CompiledTier? Tier => _tier;

    public CpuState* State => _s;

    public SoftMachine Machine => _machine;

    /// <summary>Blocks and machine code, for Inspect.</summary>
    public string Counters => string.Create(CultureInfo.InvariantCulture,
        $"{_blocks.Translations} blocks translated, {_blocks.Invalidations} overwritten, {_blocks.UsedBytes >> 10} KiB, ") +
        string.Create(CultureInfo.InvariantCulture,
            $"{_blocks.Clears} times all, {_blocks.Releases} times released; {JumpFlushes} jump table flushes; ") +
        Pauses + (_lockStep is { } check ? $"{check}; " : "") +
        (_tier?.ToString() ?? (_machine.NoCompiler is { } why ? $"interpreted only: {why}" : "interpreted only"));

    /// <summary>The CPU that owns a state.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static SoftCpu Of(CpuState* s) => Unsafe.As<SoftCpu>(GCHandle.FromIntPtr(s->Owner).Target!);

    /// <summary>Instructions retired, exact at a block boundary.</summary>
    public ulong Retired => (ulong)(_s->Granted - _s->Budget);

    /// <summary>Time stamp counter with the offset applied; exact at <paramref name="op"/>.</summary>
    public ulong ReadTsc(Op* op) => _machine.Clock.NanosecondsAt(op == null ? Elapsed : Elapsed - op->Left) + _s->TscOffset;

    /// <summary>Recomputes <see cref="CpuState.Mode"/> and the TLB pointers after CS, CPL, CR0, CR4 or EFER changed.</summary>
    public void UpdateMode()
    {
        var s = _s;
        s->Mode = (s->Efer & 0x400) != 0 && s->Cs.Long ? CodeMode.Bits64
            : (s->Cr0 & 1) != 0 && s->Cs.Big ? CodeMode.Bits32
            : CodeMode.Bits16;
        SelectTlbs();
    }

    public void Dispose()
    {
        if (!_self.IsAllocated) return;
        _self.Free();
        _blocks.Dispose();
        _tier?.Dispose();
        _lockStep?.Dispose();
        DisposeTlbs();
        NativeMemory.AlignedFree(_s);
    }
}
