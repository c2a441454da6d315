using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>How a string instruction repeats.</summary>
internal enum Repeat
{
    None = 0,
    Rep = 1,
    RepNe = 2,
}

/// <summary>
/// MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS. Each element (or each run of elements within a page) commits RSI, RDI and RCX, so that the
/// instruction can be interrupted, fault, or exit between elements and go on where it stopped. Runs are bounded, so interrupts get in.
/// </summary>
internal static unsafe class StringOps
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    /// <summary>Elements per visit of the run loop; the instruction restarts for the rest.</summary>
    private const ulong Slice = 1 << 16;

    /// <summary>Aux of a string op: repeat in bits 0-1, log2 of the address size in bytes in bits 4-5, number of the source segment in 8-10.</summary>
    public static ushort Encode(Repeat repeat, int addressBytes, int segment) =>
        (ushort)((int)repeat | (System.Numerics.BitOperations.Log2((uint)addressBytes) << 4) | (segment << 8));

    private static ulong AddressMask(Op* op) => ((op->Aux >> 4) & 3) switch { 1 => 0xFFFF, 2 => 0xFFFF_FFFF, _ => ulong.MaxValue };

    private static Repeat RepeatOf(Op* op) => (Repeat)(op->Aux & 3);

    private static ulong Count(CpuState* s, Op* op) => RepeatOf(op) == Repeat.None ? 1 : s->Regs[1] & AddressMask(op);

    private static void Advance(CpuState* s, Op* op, int register, ulong bytes)
    {
        var mask = AddressMask(op);
        var value = (s->SystemFlags & Flags.Df) != 0 ? s->Regs[register] - bytes : s->Regs[register] + bytes;
        s->Regs[register] = mask == 0xFFFF ? (s->Regs[register] & ~mask) | (value & mask) : value & mask;
    }

    private static void CountDown(CpuState* s, Op* op, ulong elements)
    {
        if (RepeatOf(op) == Repeat.None) return;
        var mask = AddressMask(op);
        var value = (s->Regs[1] - elements) & mask;
        s->Regs[1] = mask == 0xFFFF ? (s->Regs[1] & ~mask) | value : value;
    }

    private static bool Source(CpuState* s, Op* op, int size, out ulong address) => Address(s, op, 6, op->Aux >> 8, size, out address);

    private static bool Destination(CpuState* s, Op* op, int size, out ulong address) => Address(s, op, 7, 0, size, out address);

    private static bool Address(CpuState* s, Op* op, int register, int segment, int size, out ulong address)
    {
        var offset = s->Regs[register] & AddressMask(op);
        if (s->Mode == CodeMode.Bits64)
        {
            address = segment >= 4 ? offset + s->SegBase[segment] : offset;
            return true;
        }
        address = (uint)(offset + s->SegBase[segment]);
        return LegacyAddress.CheckLimit(s, op, segment, (uint)offset, (uint)size);
    }

    /// <summary>Elements that lie wholly in the page of <paramref name="address"/>, going up or down, at most <paramref name="count"/>.</summary>
    private static ulong InPage(CpuState* s, ulong address, int size, ulong count)
    {
        var offset = address & 0xFFF;
        var room = (s->SystemFlags & Flags.Df) == 0
            ? (0x1000 - offset) / (uint)size
            : offset + (uint)size <= 0x1000 ? offset / (uint)size + 1 : 0;
        return Math.Min(room, count);
    }

    /// <summary>True where the instruction is finished; false where the caller returns (fault or exit in the state, or the slice is used up).</summary>
    private static bool Continue(CpuState* s, Op* op, ref ulong budget, ulong done)
    {
        SoftCpu.Of(s).ElementDone();
        budget -= Math.Min(budget, done);
        if (budget > 0) return true;
        // The rest is the same instruction again: give the run loop a look at interrupts.
        s->Abort = Abort.Again;
        s->AbortOp = op;
        return false;
    }

    [MethodImpl(Hot)]
    public static void Movs<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!MovsSlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool MovsSlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var size = (uint)sizeof(T);
        var budget = Slice;
        for (ulong left; (left = Count(s, op)) != 0;)
        {
            if (!Source(s, op, sizeof(T), out var from) || !Destination(s, op, sizeof(T), out var to)) return false;
            ulong done = 1;
            var run = RepeatOf(op) == Repeat.None || s->Mode != CodeMode.Bits64 ? 1 : InPage(s, to, sizeof(T), InPage(s, from, sizeof(T), left));
            var read = Mem.Entry(s->TlbRead, from);
            var write = Mem.Entry(s->TlbWrite, to);
            if (run > 1 && Mem.Hit(read, from, sizeof(T)) && Mem.Hit(write, to, sizeof(T)))
            {
                Copy<T>(s, (byte*)(from + read->Addend), (byte*)(to + write->Addend), run);
                done = run;
            }
            else
            {
                var value = Width<T>.Read(s, op, from);
                if (s->Abort != Abort.None) return false;
                Width<T>.Write(s, op, to, value);
                if (s->Abort != Abort.None) return false;
            }
            Advance(s, op, 6, done * size);
            Advance(s, op, 7, done * size);
            CountDown(s, op, done);
            if (RepeatOf(op) == Repeat.None) return true;
            if (Count(s, op) != 0 && !Continue(s, op, ref budget, done)) return false;
        }
        return true;
    }

    private static void Copy<T>(CpuState* s, byte* from, byte* to, ulong elements) where T : unmanaged
    {
        var bytes = elements * (uint)sizeof(T);
        if ((s->SystemFlags & Flags.Df) == 0)
        {
            // SAFETY: both runs lie in one page each that the TLB maps; overlapping upward copies repeat a pattern, element by element.
            if (to <= from || to >= from + bytes) Buffer.MemoryCopy(from, to, bytes, bytes);
            else for (ulong i = 0; i < elements; i++) ((T*)to)[i] = ((T*)from)[i];
            return;
        }
        for (ulong i = 0; i < elements; i++) *((T*)to - i) = *((T*)from - i);
    }

    [MethodImpl(Hot)]
    public static void Stos<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!StosSlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool StosSlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var size = (uint)sizeof(T);
        var value = Width<T>.Get(s, 0);
        var budget = Slice;
        for (ulong left; (left = Count(s, op)) != 0;)
        {
            if (!Destination(s, op, sizeof(T), out var to)) return false;
            ulong done = 1;
            var run = RepeatOf(op) == Repeat.None || s->Mode != CodeMode.Bits64 ? 1 : InPage(s, to, sizeof(T), left);
            var write = Mem.Entry(s->TlbWrite, to);
            if (run > 1 && Mem.Hit(write, to, sizeof(T)))
            {
                var p = (T*)(to + write->Addend);
                if ((s->SystemFlags & Flags.Df) == 0) new Span<T>(p, (int)run).Fill(*(T*)s);
                else for (ulong i = 0; i < run; i++) *(p - i) = *(T*)s;
                done = run;
            }
            else
            {
                Width<T>.Write(s, op, to, value);
                if (s->Abort != Abort.None) return false;
            }
            Advance(s, op, 7, done * size);
            CountDown(s, op, done);
            if (RepeatOf(op) == Repeat.None) return true;
            if (Count(s, op) != 0 && !Continue(s, op, ref budget, done)) return false;
        }
        return true;
    }

    [MethodImpl(Hot)]
    public static void Lods<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!LodsSlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool LodsSlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var budget = Slice;
        while (Count(s, op) != 0)
        {
            if (!Source(s, op, sizeof(T), out var from)) return false;
            var value = Width<T>.Read(s, op, from);
            if (s->Abort != Abort.None) return false;
            Width<T>.Set(s, 0, value);
            Advance(s, op, 6, (uint)sizeof(T));
            CountDown(s, op, 1);
            if (RepeatOf(op) == Repeat.None) return true;
            if (Count(s, op) != 0 && !Continue(s, op, ref budget, 1)) return false;
        }
        return true;
    }

    /// <summary>CMPS and SCAS end on the first element that decides; RCX = 0 leaves the flags alone.</summary>
    [MethodImpl(Hot)]
    public static void Cmps<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!CompareSlow<T>(s, op, withMemory: true)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(Hot)]
    public static void Scas<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!CompareSlow<T>(s, op, withMemory: false)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool CompareSlow<T>(CpuState* s, Op* op, bool withMemory) where T : unmanaged
    {
        var budget = Slice;
        while (Count(s, op) != 0)
        {
            var a = Width<T>.Get(s, 0);
            if (withMemory)
            {
                if (!Source(s, op, sizeof(T), out var from)) return false;
                a = Width<T>.Read(s, op, from);
                if (s->Abort != Abort.None) return false;
            }
            if (!Destination(s, op, sizeof(T), out var at)) return false;
            var b = Width<T>.Read(s, op, at);
            if (s->Abort != Abort.None) return false;
            (s->FlagA, s->FlagB, s->FlagR, s->FlagKind) = (a, b, Width<T>.Extend(a - b), FlagKind.Sub);
            if (withMemory) Advance(s, op, 6, (uint)sizeof(T));
            Advance(s, op, 7, (uint)sizeof(T));
            CountDown(s, op, 1);
            if (RepeatOf(op) == Repeat.None || (a == b) == (RepeatOf(op) == Repeat.RepNe)) return true;
            if (Count(s, op) != 0 && !Continue(s, op, ref budget, 1)) return false;
        }
        return true;
    }

    /// <summary>OUTS: the element's exit is described, then committed; the run loop comes back for the next.</summary>
    [MethodImpl(Hot)]
    public static void Outs<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!OutsSlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool OutsSlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var cpu = SoftCpu.Of(s);
        var budget = Slice;
        while (Count(s, op) != 0)
        {
            var port = (ushort)s->Regs[2];
            if (!cpu.PortAllowed(op, port, sizeof(T))) return false;
            if (!Source(s, op, sizeof(T), out var from)) return false;
            var value = Width<T>.Read(s, op, from);
            if (s->Abort != Abort.None) return false;
            cpu.PortWriteInString(op, port, sizeof(T), Width<T>.Zero(value));
            if (s->Abort != Abort.None) return false;
            Advance(s, op, 6, (uint)sizeof(T));
            CountDown(s, op, 1);
            if (RepeatOf(op) == Repeat.None) return true;
            if (Count(s, op) != 0 && !Continue(s, op, ref budget, 1)) return false;
        }
        return true;
    }

    [MethodImpl(Hot)]
    public static void Ins<T>(CpuState* s, Op* op) where T : unmanaged
    {
        if (!InsSlow<T>(s, op)) return;
        op[1].Fn(s, op + 1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool InsSlow<T>(CpuState* s, Op* op) where T : unmanaged
    {
        var cpu = SoftCpu.Of(s);
        var budget = Slice;
        while (Count(s, op) != 0)
        {
            var port = (ushort)s->Regs[2];
            if (!cpu.PortAllowed(op, port, sizeof(T))) return false;
            if (!Destination(s, op, sizeof(T), out var to) || !Mem.ProbeWrite(s, op, to, sizeof(T))) return false;
            var value = cpu.PortReadInString(op, port, sizeof(T));
            if (s->Abort != Abort.None) return false;
            Width<T>.Write(s, op, to, (long)value);
            if (s->Abort != Abort.None) return false;
            Advance(s, op, 7, (uint)sizeof(T));
            CountDown(s, op, 1);
            if (RepeatOf(op) == Repeat.None) return true;
            if (Count(s, op) != 0 && !Continue(s, op, ref budget, 1)) return false;
        }
        return true;
    }
}
