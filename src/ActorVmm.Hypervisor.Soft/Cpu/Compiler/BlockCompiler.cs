using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>A jump from one compiled block to another that can be patched, or the way to find its target.</summary>
internal unsafe struct Link
{
    /// <summary>For the handler that resolves it: <c>Disp</c> is the target's distance from the page of the block, <c>Imm</c> a flag for far.</summary>
    public Op Op;

    /// <summary>Writable address of the jump's distance.</summary>
    public int* Site;

    /// <summary>Executable address of the code that resolves it.</summary>
    public byte* Unresolved;

    /// <summary>The next link that leads to the same block.</summary>
    public Link* Next;
}

/// <summary>
/// Compiles one block of 64-bit code to x64, instruction by instruction, from the decoder's instructions and the block's ops. What it does
/// not cover, and what takes a slow path, is left to the op's handler of tier 0 with the exact state; the handler after it either goes on in
/// tier 0 to the block's end, or is replaced by the way back into the compiled code.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    /// <summary>Room that a block is given: far more than 48 instructions with all their cold code take.</summary>
    public const int MaxBytes = 48 << 10;

    private readonly Translator _translator;
    private readonly Stubs _stubs;
    private readonly Emitter _e;
    private readonly Departures _departures;
    private readonly List<Bail> _bails = [];
    private readonly List<Edge> _edges = [];
    private readonly List<Edge> _returns = [];
    private readonly List<(int Instruction, nuint Address)> _resumes = [];
    private readonly int[] _firstOp = new int[BlockBuilder.MaxInstructions + 1];
    private Block* _block;
    private ulong _start;
    private ulong _page;
    private int _at;
    private bool _ended;

    /// <summary>A place where the instruction is left to tier 0.</summary>
    private record struct Bail(nuint Distance, int Op, Pending Flags, int Vectors);

    /// <summary>A jump to another block that is to be resolved.</summary>
    private record struct Edge(nuint Distance, int Displacement);

    public BlockCompiler(Translator translator, Stubs stubs, Emitter emitter, Departures departures) =>
        (_translator, _stubs, _e, _departures) = (translator, stubs, emitter, departures);

    /// <summary>Instructions that were compiled, and those left to tier 0, since the start.</summary>
    public ulong Covered { get; private set; }

    public ulong Left { get; private set; }

    /// <summary>
    /// Compiles; afterwards <see cref="Block.Code"/> and the handlers of the ops lead into the new code. False where it is not worth it: the
    /// block stays with tier 0.
    /// </summary>
    /// <param name="rip">Virtual address of the block at this time; only its low bits get into the code.</param>
    /// <param name="links">Where the links of the block go.</param>
    public bool Compile(Block* block, ReadOnlySpan<byte> code, ulong rip, ref Link* links)
    {
        _block = block;
        (_start, _page, _ended) = (rip, rip & ~0xFFFUL, false);
        _bails.Clear();
        _edges.Clear();
        _returns.Clear();
        _resumes.Clear();
        _translator.DecodeAgain(code, rip, block->Count);
        FindOps();
        FlagsUnknown();
        VectorsUnknown();
        _rejoins = false;

        var start = _e.At;
        EmitHead(out var stopped);
        var body = _e.Here;
        var inCode = true; // false behind an instruction that was left to tier 0, until the way back
        var firstLeft = false;
        var covered = 0;
        for (_at = 0; _at < block->Count && !_ended; _at++)
        {
            ref readonly var i = ref _translator.Decoded(_at);
            var before = _e.At;
            var (bails, edges) = (_bails.Count, _edges.Count);
            var (flags, hostFlags, hostCarry, vectors) = (_flags, _hostFlags, _hostCarry, _vectors);
            if (!inCode)
            {
                FlagsUnknown();
                VectorsUnknown();
            }
            var rejoins = _rejoins;
            _rejoins = false;
            // What ends a block goes on elsewhere, where no vector register is known.
            if (i.FlowControl != FlowControl.Next) StoreVectors();
            if (TryInstruction(i))
            {
                covered++;
                if (!inCode || rejoins) _resumes.Add((_at, (nuint)(before + (_e.Here - _e.At))));
                inCode = true;
                continue;
            }
            // Taken back: it may have emitted part of itself.
            _e.Rewind(before);
            _bails.RemoveRange(bails, _bails.Count - bails);
            _edges.RemoveRange(edges, _edges.Count - edges);
            (_flags, _hostFlags, _hostCarry, _vectors, _rejoins) = (flags, hostFlags, hostCarry, vectors, false);
            Left++;
            if (_at == 0) firstLeft = true;
            if (inCode) LeaveAt(_firstOp[_at], i.Code);
            inCode = false;
        }
        if (covered == 0 || (firstLeft && covered < 3))
        {
            _e.Rewind(start);
            return false;
        }
        Covered += (ulong)covered;
        if (!_ended && inCode) FallThrough();
        EmitCold(stopped, ref links);
        Install(body, firstLeft);
        return true;
    }

    private void FindOps()
    {
        var ops = Block.Ops(_block);
        var next = 0;
        for (var op = 1; op < _block->OpCount && next < _block->Count; op++)
            if (_block->Count - ops[op].Left == next) _firstOp[next++] = op;
    }

    /// <summary>Entry by a jump: the same check as tier 0's, budget and attention.</summary>
    private void EmitHead(out int* stopped)
    {
        _e.SubtractWide(RegisterMap.Budget, _block->Count);
        _e.Move(8, Host.Rax, RegisterMap.Budget);
        _e.Alu(1, 8, Host.Rax, RegisterMap.At(RegisterMap.Attention));
        stopped = _e.JumpIf(8);
    }

    /// <summary>Leaves the current instruction to tier 0 where the host's flags meet a condition.</summary>
    private void BailIf(int condition) => _bails.Add(new Bail((nuint)_e.JumpIf(condition), _firstOp[_at], _flags, _vectors.Dirty));

    /// <summary>Leaves to tier 0, always.</summary>
    private void LeaveAt(int op, Code code)
    {
        LoseHostFlags();
        StoreFlags();
        StoreVectors();
        _e.MoveImmediate(Host.Rax, (long)_departures.Of(code));
        _e.Unary(0xFE, 0, 8, new HostAddress(Host.Rax));
        _bails.Add(new Bail((nuint)_e.Jump(), op, default, 0));
    }

    /// <summary>A jump to the code at a distance from the page's start; resolved when it is first taken.</summary>
    private void EdgeTo(int displacement, int* distance) => _edges.Add(new Edge((nuint)distance, displacement));

    private void EmitCold(int* stopped, ref Link* links)
    {
        // The rest of each stub, shared: RIP of the block's start, then out.
        _e.Bind(stopped);
        _e.AluImmediate(0, 8, RegisterMap.Budget, _block->Count);
        _block->WayOut = _e.Here;
        _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.ExitOp));
        var tail = _e.Here;
        StoreRip();
        _e.JumpTo(_stubs.Leave);
        foreach (var bail in _bails)
        {
            _e.Bind((int*)bail.Distance);
            var flags = bail.Flags;
            StoreFlags(ref flags);
            StoreVectors(bail.Vectors);
            var op = Block.Ops(_block) + bail.Op;
            _e.MoveImmediate(Host.Rdx, (long)op);
            if (!ResumesAt(bail.Op))
            {
                _e.JumpTo(tail);
                continue;
            }
            // The op will lead back here: its handler is called by its own name.
            _e.MoveImmediate(Host.Rax, (long)op->Fn);
            _e.Store(8, RegisterMap.At(RegisterMap.Handler), Host.Rax);
            StoreRip();
            _e.JumpTo(_stubs.LeaveDisplaced);
        }
        foreach (var back in _returns)
        {
            _e.Bind((int*)back.Distance);
            EdgeTo(back.Displacement, _e.Jump());
        }
        foreach (var edge in _edges)
        {
            var link = links++;
            *link = default;
            link->Op.Fn = &CompiledOps.Follow;
            link->Op.Disp = edge.Displacement;
            link->Site = (int*)edge.Distance;
            link->Unresolved = _e.Here;
            _e.Bind(link->Site);
            _e.MoveImmediate(Host.Rdx, (long)link);
            _e.JumpTo(_stubs.Leave);
        }
        foreach (var (instruction, address) in _resumes)
        {
            // From the handler before: RDI is the state.
            _e.AlignHandler();
            Block.Ops(_block)[_firstOp[instruction]].Fn = (delegate*<CpuState*, Op*, void>)_e.Here;
            _e.MoveImmediate(Host.Rax, (long)address);
            _e.JumpTo(_stubs.Resume);
        }
    }

    // Not a predicate: the vCPU's thread allocates nothing, or it would be the one to collect garbage, which stops it for longer than any block.
    private bool ResumesAt(int op)
    {
        foreach (var (instruction, _) in _resumes)
            if (_firstOp[instruction] == op) return true;
        return false;
    }

    private void StoreRip()
    {
        _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Page));
        _e.Lea(Host.Rax, new HostAddress(Host.Rax, (int)(_start - _page)));
        _e.Store(8, RegisterMap.At(RegisterMap.Rip), Host.Rax);
    }

    private void Install(byte* body, bool firstLeft)
    {
        _block->Code = body - Stubs.HeadBytes;
        var entry = Block.Ops(_block);
        if (firstLeft)
        {
            // Tier 0 runs the first instruction without a way in and out.
            entry->Fn = &MoveOps.Nop;
            return;
        }
        _e.AlignHandler();
        entry->Fn = (delegate*<CpuState*, Op*, void>)_e.Here;
        _e.MoveImmediate(Host.Rax, (long)body);
        _e.JumpTo(_stubs.EnterBlock);
    }
}
