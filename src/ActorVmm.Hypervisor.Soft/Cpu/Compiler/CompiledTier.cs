using System.Globalization;
using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>One vCPU's compiler tier: its machine code and links.</summary>
internal sealed unsafe class CompiledTier : IDisposable
{
    /// <summary>As a process starts and as managed code expects it: everything masked, round to nearest.</summary>
    private const uint DefaultMxcsr = 0x1F80;

    private const ulong MaxLinks = 512 << 10;

    private readonly ExecutableMemory _memory;
    private readonly Emitter _emitter = new();
    private readonly Departures _departures = new();
    private readonly BlockCompiler _compiler;
    private readonly DemandPages _linkPages = new(MaxLinks * (ulong)sizeof(Link));
    private readonly Link* _links;
    private readonly Op* _dispatch;
    private readonly byte* _firstCode;
    private Link* _nextLink;
    private byte* _nextCode;

    private CompiledTier(ExecutableMemory memory, CpuState* s, Translator translator, int threshold)
    {
        (_memory, Threshold) = (memory, threshold);
        // SAFETY: native tables that compiled code and its links point into; freed in Dispose, when no vCPU runs any more.
        _links = (Link*)_linkPages.Start;
        _dispatch = (Op*)NativeMemory.AllocZeroed((nuint)sizeof(Op));
        _dispatch->Fn = &CompiledOps.Dispatch;
        s->DispatchOp = _dispatch;
        s->HostMxcsr = DefaultMxcsr;
        s->FixFlags = &CompiledFlags.Fix;
        s->FixFlagsThenHandler = &CompiledFlags.FixThenHandler;
        _emitter.Begin(memory.Write, memory.Write + memory.Size, memory.Delta);
        var stubs = Stubs.Emit(_emitter);
        ToZero = stubs.ToZero;
        _compiler = new BlockCompiler(translator, stubs, _emitter, _departures);
        _firstCode = _nextCode = _emitter.At;
        _nextLink = _links;
    }

    /// <summary>Makes the tier of a vCPU; null, with the reason, where the host offers no executable memory.</summary>
    public static CompiledTier? TryCreate(SoftMachine machine, CpuState* s, Translator translator, out string? refusal)
    {
        var memory = ExecutableMemory.TryCreate(machine.HostArchitecture, (nuint)machine.CodeBytes, out refusal);
        return memory == null ? null : new CompiledTier(memory, s, translator, machine.CompileThreshold);
    }

    /// <summary>Entries after which a block is compiled.</summary>
    public int Threshold { get; }

    /// <summary>What compiled code leaves for.</summary>
    public Departures Departures => _departures;

    /// <summary>See <see cref="Stubs.ToZero"/>.</summary>
    public byte* ToZero { get; }

    /// <summary>Blocks compiled since the start.</summary>
    public ulong Compilations { get; private set; }

    /// <summary>Most bytes of machine code; when they are used up, all blocks are forgotten.</summary>
    public ulong LimitBytes => _memory.Size;

    /// <summary>Bytes of machine code.</summary>
    public ulong UsedBytes => (ulong)(_nextCode - _firstCode);

    public BlockCompiler Compiler => _compiler;

    /// <summary>No further block fits: everything must be cleared.</summary>
    public bool IsFull => _memory.Write + _memory.Size - _nextCode < BlockCompiler.MaxBytes || _nextLink - _links > (long)MaxLinks - 16;

    /// <summary>Compiles a block that starts at <paramref name="rip"/> at this time.</summary>
    public void Compile(Block* block, ReadOnlySpan<byte> code, ulong rip)
    {
        if (!IsFull)
        {
            _emitter.Begin(_nextCode, _memory.Write + _memory.Size, _memory.Delta);
            if (_compiler.Compile(block, code, rip, ref _nextLink))
            {
                Compilations++;
                _nextCode = (byte*)(((nint)_emitter.At + 15) & ~15);
                return;
            }
        }
        // It stays with tier 0, without counting.
        Block.Ops(block)->Fn = &MoveOps.Nop;
    }

    /// <summary>Patches a jump to lead straight to a block.</summary>
    public void Connect(Link* link, Block* block)
    {
        if (link->Next != null) return; // patched, and asked for by an old way in
        Patch(link, block->Code);
        link->Next = block->Incoming == null ? link : block->Incoming;
        block->Incoming = link;
    }

    private void Patch(Link* link, byte* target) => *link->Site = (int)(target - ((byte*)link->Site + _memory.Delta + 4));

    /// <summary>A compiled block's code was overwritten: nothing leads into it any more.</summary>
    public void Drop(Block* block)
    {
        for (var link = block->Incoming; link != null;)
        {
            var next = link->Next == link ? null : link->Next;
            Patch(link, link->Unresolved);
            link->Next = null;
            link = next;
        }
        block->Incoming = null;
        // Jump caches may still lead to its head: from there it goes straight out, uncounted.
        const int jumpBytes = 5;
        // SAFETY: the head is longer than a jump, and no thread but this one, which is in no block, runs this code.
        var head = block->Code - _memory.Delta;
        *head = 0xE9;
        *(int*)(head + 1) = (int)(block->WayOut - (block->Code + jumpBytes));
    }

    /// <summary>Forgets all code; only between blocks.</summary>
    public void Clear()
    {
        _nextCode = _firstCode;
        _nextLink = _links;
    }

    /// <summary>After <see cref="Clear"/>: the host gets back the memory of code and links.</summary>
    public void Release()
    {
        _linkPages.Forget();
        _memory.Forget(_firstCode);
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{Compilations} compiled, {UsedBytes >> 10} of {_memory.Size >> 10} KiB of machine code, " +
        $"{_compiler.Covered} instructions covered, {_compiler.Left} left to tier 0; ") + _departures;

    public void Dispose()
    {
        _linkPages.Dispose();
        _departures.Dispose();
        NativeMemory.Free(_dispatch);
        _memory.Dispose();
    }
}
