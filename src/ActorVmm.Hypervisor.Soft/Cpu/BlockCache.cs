using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// One vCPU's translated blocks: an arena that is emptied whole when full, a hash by physical address and mode, and a list per physical
/// page for invalidation. All three take host memory as they are used. A dead block keeps its memory, so that a running or chained block never dangles: its count makes every entry
/// check fail.
/// </summary>
internal sealed unsafe class BlockCache : IDisposable
{
    private const int HashBits = 16;
    private const ulong ArenaBytes = 96UL << 20;

    private readonly GuestRam _ram;
    private readonly DemandPages _hashPages;
    private readonly DemandPages _listPages;
    private readonly DemandPages _arenaPages;
    private readonly Block** _hash;
    private readonly Block** _pages;
    private readonly byte* _arena;
    private readonly Op* _exit;
    private readonly CpuState* _state;
    private ulong _used;

    public BlockCache(GuestRam ram, CpuState* state)
    {
        _ram = ram;
        // SAFETY: the tables and the arena live until Dispose; blocks are bump-allocated below ArenaBytes.
        _hash = (Block**)(_hashPages = new DemandPages((1 << HashBits) * (ulong)sizeof(Block*))).Start;
        _pages = (Block**)(_listPages = new DemandPages(ram.Pages * (ulong)sizeof(Block*))).Start;
        _arena = (_arenaPages = new DemandPages(ArenaBytes)).Start;
        _exit = (Op*)NativeMemory.AllocZeroed((nuint)sizeof(Op));
        _exit->Fn = &ControlOps.Exit;
        _state = state;
        state->BlockHash = _hash;
        state->ExitOp = _exit;
    }

    /// <summary>The compiler tier, where there is one: it hears which blocks end.</summary>
    public Compiler.CompiledTier? Tier { get; init; }

    /// <summary>Called when all blocks are forgotten.</summary>
    public Action? Cleared { get; init; }

    /// <summary>Times that all blocks were forgotten.</summary>
    public ulong Clears { get; private set; }

    /// <summary>Bytes of translated code in the arena.</summary>
    public ulong UsedBytes => _used;

    /// <summary>Blocks made since start, for Inspect.</summary>
    public ulong Translations { get; private set; }

    /// <summary>Times that all memory was given back because the guest idled.</summary>
    public ulong Releases { get; private set; }

    /// <summary>Blocks dropped because their code was written.</summary>
    public ulong Invalidations { get; private set; }

    public static uint Hash(ulong physical, CodeMode mode) => (uint)((physical ^ (physical >> 14) ^ (ulong)mode) & ((1 << HashBits) - 1));

    /// <summary>A block that is not entered into the tables: it serves once (exact instruction counts, single steps).</summary>
    public Block* Scratch(BlockBuilder b, ulong physical, int codeLength)
    {
        // Its link slot is gone after this one use.
        ControlOps.ForgetReturns(_state);
        var keep = _used;
        var block = Allocate(b, physical, ulong.MaxValue, codeLength);
        _used = keep;
        return block;
    }

    /// <summary>Enters a block. True in <paramref name="firstOfPage"/> where the page held none before.</summary>
    public Block* Add(BlockBuilder b, ulong physical, ulong secondPage, int codeLength, out bool firstOfPage)
    {
        var block = Allocate(b, physical, secondPage, codeLength);
        Translations++;
        var slot = &_hash[Hash(physical, b.Mode)];
        block->HashNext = *slot;
        *slot = block;
        firstOfPage = Link(block, physical, second: false);
        if (secondPage != ulong.MaxValue) firstOfPage |= Link(block, secondPage, second: true);
        return block;
    }

    private bool Link(Block* block, ulong physical, bool second)
    {
        var head = &_pages[_ram.PageIndex(physical)];
        var first = *head == null;
        if (first) _ram.AddCodeHolder(physical);
        if (second) block->SecondPageNext = *head;
        else block->PageNext = *head;
        *head = block;
        return first;
    }

    private Block* Allocate(BlockBuilder b, ulong physical, ulong secondPage, int codeLength)
    {
        var ops = b.Ops;
        var size = (ulong)(sizeof(Block) + ops.Length * sizeof(Op));
        if (_used + size > ArenaBytes) Clear();
        var block = (Block*)(_arena + _used);
        _used += (size + 31) & ~31UL;
        *block = new Block { Count = b.Instructions, Mode = b.Mode, Physical = physical, SecondPage = secondPage, Length = codeLength, OpCount = ops.Length };
        var target = Block.Ops(block);
        for (var i = 0; i < ops.Length; i++)
        {
            target[i] = ops[i];
            target[i].Left = (byte)(b.Instructions - b.InstructionOf(i));
        }
        return block;
    }

    /// <summary>Keeps a copy of a block as tier 0 runs it, before it is compiled. False where the arena is full.</summary>
    public bool TryKeepInterpreted(Block* block)
    {
        var size = (ulong)(sizeof(Block) + block->OpCount * sizeof(Op));
        if (_used + size > ArenaBytes) return false;
        var copy = (Block*)(_arena + _used);
        _used += (size + 31) & ~31UL;
        // SAFETY: both lie within the arena, with their ops behind them.
        Buffer.MemoryCopy(block, copy, size, size);
        Block.Ops(copy)->Fn = &MoveOps.Nop; // where the original counts its entries
        block->Interpreted = copy;
        return true;
    }

    /// <summary>Forgets every block; only between blocks.</summary>
    public void Clear()
    {
        for (ulong page = 0; page < _ram.Pages; page++)
        {
            if (_pages[page] != null) _ram.RemoveCodeHolder(_ram.PhysicalOf(page));
        }
        _listPages.Forget();
        _hashPages.Forget();
        _used = 0;
        ControlOps.ForgetReturns(_state);
        Tier?.Clear();
        Cleared?.Invoke();
        Clears++;
    }

    /// <summary>Forgets every block and gives their memory back to the host; only between blocks.</summary>
    public void Release()
    {
        Clear();
        _arenaPages.Forget();
        Tier?.Release();
        Releases++;
    }

    /// <summary>Drops the blocks that overlap a written range. True where the one that <paramref name="running"/> belongs to is among them.</summary>
    public bool Invalidate(ulong physical, int size, Op* running)
    {
        var hit = false;
        var head = &_pages[_ram.PageIndex(physical)];
        if (*head == null) return false;
        var page = physical >> 12;
        for (var link = head; *link != null;)
        {
            var block = *link;
            var second = block->Physical >> 12 != page;
            if (Overlaps(block, second, physical, size))
            {
                hit |= Block.Holds(block, running) || (block->Interpreted != null && Block.Holds(block->Interpreted, running));
                Drop(block, second);
                *link = second ? block->SecondPageNext : block->PageNext;
            }
            else
            {
                link = second ? &block->SecondPageNext : &block->PageNext;
            }
        }
        if (*head == null) _ram.RemoveCodeHolder(physical);
        return hit;
    }

    private static bool Overlaps(Block* block, bool second, ulong physical, int size)
    {
        var firstLength = Math.Min((ulong)block->Length, 0x1000 - (block->Physical & 0xFFF));
        var (start, length) = second ? (block->SecondPage, (ulong)block->Length - firstLength) : (block->Physical, firstLength);
        return physical < start + length && start < physical + (ulong)size;
    }

    private void Drop(Block* block, bool viaSecond)
    {
        Invalidations++;
        block->Count = Block.Dead;
        if (block->Code != null) Tier!.Drop(block);
        for (var link = &_hash[Hash(block->Physical, block->Mode)]; *link != null; link = &(*link)->HashNext)
        {
            if (*link != block) continue;
            *link = block->HashNext;
            break;
        }
        if (block->SecondPage == ulong.MaxValue) return;
        // It hangs in two page lists; take it out of the other one.
        var other = viaSecond ? block->Physical : block->SecondPage;
        var head = &_pages[_ram.PageIndex(other)];
        for (var link = head; *link != null;)
        {
            var second = (*link)->Physical >> 12 != other >> 12;
            var next = second ? &(*link)->SecondPageNext : &(*link)->PageNext;
            if (*link == block)
            {
                *link = *next;
                break;
            }
            link = next;
        }
        if (*head == null) _ram.RemoveCodeHolder(other);
    }

    public void Dispose()
    {
        _hashPages.Dispose();
        _listPages.Dispose();
        _arenaPages.Dispose();
        NativeMemory.Free(_exit);
    }
}
