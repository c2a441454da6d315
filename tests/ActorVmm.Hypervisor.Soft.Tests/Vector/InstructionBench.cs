using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Hypervisor.Soft.Tests.Differential;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.VectorUnit;

/// <summary>
/// Runs translated instructions without the run loop: a state of its own, pages mapped by hand in its TLBs, and a last op that returns.
/// Memory operands must hit those pages: there is no CPU behind the slow path.
/// </summary>
internal sealed unsafe class InstructionBench : IDisposable
{
    private const ulong CodeAddress = 0x40_0000;
    private const int Pages = Layout.ScratchSize / 0x1000;

    private readonly Translator _translator = new();
    private readonly TlbEntry* _tlb;
    private readonly byte* _memory;

    public InstructionBench()
    {
        // SAFETY: zeroed or filled below, freed once in Dispose.
        State = (CpuState*)NativeMemory.AlignedAlloc((nuint)sizeof(CpuState), 64);
        NativeMemory.Clear(State, (nuint)sizeof(CpuState));
        _memory = (byte*)NativeMemory.AlignedAlloc(Layout.ScratchSize, 4096);
        NativeMemory.Clear(_memory, Layout.ScratchSize);
        _tlb = (TlbEntry*)NativeMemory.Alloc((nuint)(Mem.TlbSize * sizeof(TlbEntry)));
        for (var n = 0; n < Mem.TlbSize; n++) _tlb[n].Tag = TlbEntry.Invalid;
        for (var n = 0UL; n < Pages; n++)
        {
            var page = Layout.Scratch + n * 0x1000;
            *Mem.Entry(_tlb, page) = new TlbEntry { Tag = page, Addend = (ulong)_memory - Layout.Scratch };
        }
        State->TlbRead = State->TlbWrite = State->TlbCode = _tlb;
        State->Mode = CodeMode.Bits64;
        State->Cr0 = 0x8000_0033;
        State->Cr4 = 0x620;
        State->Mxcsr = 0x1F80;
        State->Rip = CodeAddress;
        Cpu.X87.Initialize(State);
    }

    public CpuState* State { get; }

    /// <summary>The bytes behind <see cref="Layout.Scratch"/>.</summary>
    public Span<byte> Memory => new(_memory, Layout.ScratchSize);

    /// <summary>Bytes of stack between the caller of the first op and the last op, in the last run that got there.</summary>
    public nint StackAtEnd { get; private set; }

    public Span<ulong> Xmm(int n) => new(State->Xmm + n * 2, 2);

    /// <summary>Runs assembled code; the vector of the exception that stopped it, or null.</summary>
    public int? Run(Action<Assembler> code)
    {
        var assembler = new Assembler(64);
        code(assembler);
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), CodeAddress);
        return Run(Translate(stream.ToArray()));
    }

    /// <summary>The ops of straight code, without the end of the block.</summary>
    public Op[] Translate(byte[] code)
    {
        _translator.Translate(code, CodeAddress, CodeMode.Bits64, BlockBuilder.MaxInstructions);
        var ops = _translator.Builder.Ops;
        var end = ops.Length - 1;
        if (ops[end].Fn == null) end--; // the slot behind a terminator
        return ops[..end].ToArray();
    }

    /// <summary>Runs ops as one chain.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    public int? Run(ReadOnlySpan<Op> ops)
    {
        nint stack = 0;
        var chain = (Op*)NativeMemory.Alloc((nuint)((ops.Length + 1) * sizeof(Op)));
        try
        {
            ops.CopyTo(new Span<Op>(chain, ops.Length));
            chain[ops.Length] = new Op { Fn = &Stop, Imm = (nint)(&stack) };
            State->Abort = Abort.None;
            chain->Fn(State, chain);
        }
        finally
        {
            NativeMemory.Free(chain);
        }
        StackAtEnd = stack == 0 ? 0 : (nint)(&stack) - stack;
        return State->Abort == Abort.None ? null : State->ExceptionVector;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static void Stop(CpuState* s, Op* op)
    {
        nint here = 0;
        *(nint*)op->Imm = (nint)(&here);
    }

    public void Dispose()
    {
        NativeMemory.AlignedFree(State);
        NativeMemory.AlignedFree(_memory);
        NativeMemory.Free(_tlb);
    }
}
