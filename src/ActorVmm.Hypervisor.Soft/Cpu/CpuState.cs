using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>One software-TLB entry: a virtual page and how to get from an address in it to the host (data) or to guest physical (code).</summary>
internal struct TlbEntry
{
    /// <summary>Virtual page address (low 12 bits zero), or <see cref="Invalid"/>.</summary>
    public ulong Tag;

    /// <summary>Data TLBs: host address minus virtual address. Code TLB: guest physical minus virtual address.</summary>
    public ulong Addend;

    /// <summary>Matches no page: its low bits are not zero.</summary>
    public const ulong Invalid = 1;
}

/// <summary>A segment register with its hidden part, as the CPU keeps it.</summary>
internal struct Segment
{
    /// <summary>In bytes (scaled by the granularity bit).</summary>
    public uint Limit;
    public ushort Selector;

    /// <summary>Descriptor attribute bits 8..15 and 20..23 of the second dword, shifted down by 8: type(0-3) S(4) DPL(5-6) P(7) AVL(12) L(13) D/B(14) G(15).</summary>
    public ushort Attributes;

    public readonly int Type => Attributes & 15;
    public readonly bool IsCodeOrData => (Attributes & 0x10) != 0;
    public readonly int Dpl => (Attributes >> 5) & 3;
    public readonly bool Present => (Attributes & 0x80) != 0;
    public readonly bool Long => (Attributes & 0x2000) != 0;
    public readonly bool Big => (Attributes & 0x4000) != 0;
}

/// <summary>Why a handler chain came back to the run loop before its block ended.</summary>
internal enum Abort
{
    None = 0,

    /// <summary>An exception: vector in <see cref="CpuState.ExceptionVector"/>. The instruction has changed nothing.</summary>
    Exception,

    /// <summary>An exit to the outside is described in the vCPU's exit object; the instruction is executed again afterwards with the answer.</summary>
    Exit,

    /// <summary>Execute the same instruction again, alone (it wrote to its own block).</summary>
    Restart,

    /// <summary>A repeated string instruction gives way and goes on from its registers.</summary>
    Again,

    /// <summary>HLT has retired.</summary>
    Halt,

    /// <summary>Triple fault.</summary>
    Shutdown,
}

/// <summary>
/// Everything a handler touches, in native memory so that the garbage collector has nothing to scan or move. The first 256 bytes are
/// addressed by byte offsets inside an <see cref="Op"/>.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct CpuState
{
    /// <summary>RAX RCX RDX RBX RSP RBP RSI RDI R8..R15, then a register that is always zero, then the address temporary.</summary>
    public fixed ulong Regs[18];

    /// <summary>While a block runs: the virtual address (without CS base) of its first instruction. Between blocks: the exact RIP.</summary>
    public ulong Rip;

    /// <summary>Bases of ES CS SS DS FS GS.</summary>
    public fixed ulong SegBase[6];

    /// <summary>Instructions left until the run loop must look at the time; a block subtracts its length on entry.</summary>
    public long Budget;

    /// <summary>Negative when another thread wants the run loop's attention (kick, interrupt, code invalidation).</summary>
    public long Attention;

    /// <summary>Retired instructions = <c>Granted - Budget</c> at a block boundary.</summary>
    public long Granted;

    // Lazy arithmetic flags, see Flags.
    public long FlagA;
    public long FlagB;
    public long FlagR;
    public FlagKind FlagKind;

    /// <summary>0x400 where DF is set, and the other bits of RFLAGS that are not CF PF AF ZF SF OF (bit 1 included).</summary>
    public uint SystemFlags;

    /// <summary>Compiled code only: the virtual page of the running block; RIP is this plus what the code knows.</summary>
    public ulong Page;

    /// <summary>Compiled blocks by virtual address at the current privilege level, see <see cref="Compiler.JumpCache"/>.</summary>
    public byte* JumpCache;

    /// <summary>The data TLBs of the current privilege level.</summary>
    public TlbEntry* TlbRead;
    public TlbEntry* TlbWrite;
    public TlbEntry* TlbCode;

    public Abort Abort;
    public int ExceptionVector;
    public uint ExceptionErrorCode;
    public int HasErrorCode;

    /// <summary>The op whose handler aborted: gives RIP and the instructions of its block that did not run.</summary>
    public Op* AbortOp;

    public int Cpl;

    /// <summary>See <see cref="CodeMode"/>; part of the key of a block.</summary>
    public CodeMode Mode;

    /// <summary>An interrupt may be waiting: instructions that set IF leave the block so that it is taken.</summary>
    public int InterruptWaiting;

    /// <summary>Interrupts are held back for one instruction (STI, MOV SS, POP SS).</summary>
    public int InterruptShadow;

    public ulong Cr0, Cr2, Cr3, Cr4, Efer;
    public fixed ulong Dr[8];

    /// <summary>In the order of <see cref="SegBase"/>; indexed by segment number from Es.</summary>
    public Segment Es, Cs, Ss, Ds, Fs, Gs, Ldtr, Tr;
    public ulong LdtrBase, TrBase, GdtBase, IdtBase;
    public uint GdtLimit, IdtLimit;

    public ulong Star, Lstar, Cstar, SyscallMask, KernelGsBase, TscAux;
    public ulong SysenterCs, SysenterEsp, SysenterEip;
    public ulong TscOffset;

    // x87 and SSE. St holds the 64-bit significands in physical order (MMX aliases them), StExponent sign and exponent.
    public fixed ulong St[8];
    public fixed ushort StExponent[8];
    public ushort FpuControl;

    /// <summary>Status word without TOP (bits 11-13), which is <see cref="FpuTop"/>.</summary>
    public ushort FpuStatus;

    /// <summary>Bit n set: physical register n is empty.</summary>
    public ushort FpuEmpty;
    public ushort FpuTop;
    public ushort FpuOpcode;
    public ulong FpuIp, FpuDp;
    public uint Mxcsr;
    private readonly uint _alignXmm;
    private readonly ulong _alignXmmMore;

    /// <summary>XMM0..XMM15, 16 bytes each. They are 16-byte aligned, as compiled code wants them: the state is, and so is this offset.</summary>
    public fixed ulong Xmm[32];

    /// <summary>GCHandle of the <see cref="SoftCpu"/> that owns this state.</summary>
    public nint Owner;

    /// <summary>Where a locked operation works when its location has no host pointer of its own.</summary>
    public ulong LockBuffer;

    /// <summary>A value on its way through a slow path.</summary>
    public ulong Transfer;

    /// <summary>Blocks by hash of physical address and mode.</summary>
    public Block** BlockHash;

    /// <summary>The op that returns to the run loop.</summary>
    public Op* ExitOp;

    /// <summary>Where calls will return to, newest at <see cref="ReturnTop"/>: pairs of address and link slot (a prediction, checked when used).</summary>
    public fixed ulong Returns[2 * ReturnDepth];
    public int ReturnTop;

    /// <summary>Where <see cref="FlagKind"/> has <see cref="Compiler.CompiledFlags.CarryKept"/>: CF, in the low bit.</summary>
    public byte FlagCarry;

    // The flags before an INC or DEC of compiled code, which keeps their CF.
    public long OldFlagA, OldFlagB, OldFlagR;
    public FlagKind OldFlagKind;
    public byte OldFlagCarry;

    /// <summary>Where <see cref="FlagKind"/> has <see cref="Compiler.CompiledFlags.Rotated"/>: the rotated value, from which CF and OF follow.</summary>
    public long FlagRotated;
    public long OldFlagRotated;

    /// <summary>
    /// Compiled code only: not zero while the host's MXCSR is the guest's, whose sticky flags are then newer than <see cref="Mxcsr"/>.
    /// </summary>
    public int MxcsrInHost;

    /// <summary>The host's own MXCSR: what the runtime expects.</summary>
    public uint HostMxcsr;

    /// <summary>The host's callee-saved registers while compiled code runs.</summary>
    public fixed ulong Saved[6];

    /// <summary>The handler that brings the flags of compiled code into the form of tier 0, see <see cref="Compiler.CompiledFlags"/>.</summary>
    public delegate*<CpuState*, Op*, void> FixFlags;

    /// <summary>The same for an op that compiled code has taken the place of: the handler that it had is <see cref="Handler"/>.</summary>
    public delegate*<CpuState*, Op*, void> FixFlagsThenHandler;

    /// <summary>The handler to run where it is not its op's any more.</summary>
    public delegate*<CpuState*, Op*, void> Handler;

    /// <summary>The op whose handler finds the block at RIP.</summary>
    public Op* DispatchOp;

    public const int ReturnDepth = 16;

    public const int ZeroRegister = 16 * 8;
    public const int TempRegister = 17 * 8;
    public const int RipOffset = 18 * 8;
    public const int SegBaseOffset = 19 * 8;
}

/// <summary>What the decoder must know about CS.</summary>
[Flags]
internal enum CodeMode
{
    /// <summary>16-bit code (real mode or a 16-bit segment).</summary>
    Bits16 = 0,
    Bits32 = 1,
    Bits64 = 2,
}

/// <summary>
/// One decoded operation, 32 bytes in native memory; an instruction is one or more of them. Register operands are byte offsets into
/// <see cref="CpuState"/>, so that AH is simply offset 1 and "no register" is the zero register.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct Op
{
    public delegate*<CpuState*, Op*, void> Fn;
    public long Imm;
    public int Disp;
    public byte Dst;
    public byte Src;
    public byte Base;
    public byte Index;
    public byte Scale;

    /// <summary>Offset of the segment base to add (FS, GS), or the zero register.</summary>
    public byte Seg;

    /// <summary>Length of the instruction in bytes.</summary>
    public byte Length;

    /// <summary>Instructions of the block that have not retired when this one starts, this one included.</summary>
    public byte Left;

    /// <summary>Bytes from the start of the block to the start of this instruction.</summary>
    public ushort IpOffset;
    public ushort Aux;

    /// <summary>Distance from the block's start to the next instruction.</summary>
    public readonly long NextOffset => IpOffset + Length;
}

/// <summary>
/// A straight run of decoded instructions within one physical page (or one instruction across two), in native memory, followed by its ops.
/// Blocks are found by physical address and mode; they know no virtual address, so that double mappings share them.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct Block
{
    /// <summary>Instructions in the block; <see cref="Dead"/> makes every entry check fail once the code has been overwritten.</summary>
    public int Count;
    public CodeMode Mode;
    public ulong Physical;

    /// <summary>Physical page of the second half of an instruction that crosses pages; else <see cref="ulong.MaxValue"/>.</summary>
    public ulong SecondPage;
    public Block* HashNext;
    public Block* PageNext;
    public Block* SecondPageNext;

    /// <summary>Bytes of code.</summary>
    public int Length;

    /// <summary>Ops behind this header.</summary>
    public int OpCount;

    /// <summary>Where compiled code enters it by a jump (its budget is checked there), or null.</summary>
    public byte* Code;

    /// <summary>Behind the check at <see cref="Code"/>: the way out to the run loop with RIP at the block's start.</summary>
    public byte* WayOut;

    /// <summary>Jumps of compiled code that lead straight here.</summary>
    public Compiler.Link* Incoming;

    /// <summary>Under <see cref="LockStep"/>: a copy that tier 0 runs, made before the block was compiled.</summary>
    public Block* Interpreted;

    public const int Dead = int.MaxValue;

    public static Op* Ops(Block* block) => (Op*)(block + 1);

    /// <summary>True where <paramref name="op"/> is one of the block's.</summary>
    public static bool Holds(Block* block, Op* op) => op >= Ops(block) && op < Ops(block) + block->OpCount;
}

/// <summary>Typed access to the state by byte offset.</summary>
internal static unsafe class Reg
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Get<T>(CpuState* s, byte offset) where T : unmanaged => *(T*)((byte*)s + offset);

    /// <summary>Writes a general register the way the CPU does: 32-bit writes clear the upper half, 8- and 16-bit writes keep the rest.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set<T>(CpuState* s, byte offset, T value) where T : unmanaged
    {
        if (sizeof(T) == 4) *(ulong*)((byte*)s + offset) = Unsafe.BitCast<T, uint>(value);
        else *(T*)((byte*)s + offset) = value;
    }

    /// <summary>A full 64-bit register by number (0 = RAX ... 15 = R15).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ref ulong Full(CpuState* s, int number) => ref s->Regs[number];
}
