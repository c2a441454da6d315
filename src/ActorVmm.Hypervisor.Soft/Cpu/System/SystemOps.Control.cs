using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Control registers, table registers, caches, HLT, fences.</summary>
internal static unsafe partial class SystemOps
{
    /// <summary>HLT retires and then stops; the run loop finds <see cref="Abort.Halt"/> with RIP already behind it.</summary>
    public static bool Hlt(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        s->Rip = cpu.NextRip(op);
        s->AbortOp = null; // nothing to wind back
        s->Abort = Abort.Halt;
        return true;
    }

    public static bool Clts(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        s->Cr0 &= ~Cr0Bits.Ts;
        return true;
    }

    /// <summary>MOV r, CRn.</summary>
    public static bool MovFromControl(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        SetRegister(s, op->Dst, cpu.ReadControl(op->Aux), cpu.Mode64 ? 8 : 4);
        return true;
    }

    /// <summary>MOV CRn, r.</summary>
    public static bool MovToControl(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        var value = Reg.Get<ulong>(s, op->Src);
        return cpu.WriteControl(op->Aux, cpu.Mode64 ? value : (uint)value);
    }

    /// <summary>MOV CR3, r of 64-bit mode, the one that context switches use.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void MovToCr3(CpuState* s, Op* op)
    {
        if (s->Cpl != 0 || !SoftCpu.Of(s).TryWriteCr3(Reg.Get<ulong>(s, op->Src)))
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        Flow.EndBlock(s, op);
    }

    public static bool MovFromDebug(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!cpu.ReadDebug(op->Aux, out var value)) return false;
        SetRegister(s, op->Dst, value, cpu.Mode64 ? 8 : 4);
        return true;
    }

    public static bool MovToDebug(SoftCpu cpu, CpuState* s, Op* op)
    {
        var value = Reg.Get<ulong>(s, op->Src);
        return cpu.WriteDebug(op->Aux, cpu.Mode64 ? value : (uint)value);
    }

    public static bool LmswRegister(SoftCpu cpu, CpuState* s, Op* op) => Lmsw(cpu, s, op, Reg.Get<ushort>(s, op->Src));

    public static bool LmswMemory(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        var value = Mem.Read<ushort>(s, op, AtAny.Of(s, op));
        return s->Abort == Abort.None && Lmsw(cpu, s, op, value);
    }

    /// <summary>PE MP EM TS only, and PE can be set but not cleared.</summary>
    private static bool Lmsw(SoftCpu cpu, CpuState* s, Op* op, ushort value) =>
        Privileged(s, op) && cpu.WriteCr0((s->Cr0 & ~0xEUL) | (value & 0xFUL));

    /// <summary>SMSW stores more of CR0 the wider its register is.</summary>
    public static bool SmswRegister(SoftCpu cpu, CpuState* s, Op* op)
    {
        SetRegister(s, op->Dst, s->Cr0, op->Aux);
        return true;
    }

    public static bool SmswMemory(SoftCpu cpu, CpuState* s, Op* op) => StoreWord(s, op, (ushort)s->Cr0);

    private static bool StoreWord(CpuState* s, Op* op, ushort value)
    {
        Mem.Write(s, op, AtAny.Of(s, op), value);
        return s->Abort == Abort.None;
    }

    /// <summary>LGDT; Aux is the operand form (see <see cref="LoadTable"/>).</summary>
    public static bool Lgdt(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!LoadTable(s, op, out var limit, out var address)) return false;
        (s->GdtLimit, s->GdtBase) = (limit, address);
        return true;
    }

    public static bool Lidt(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!LoadTable(s, op, out var limit, out var address)) return false;
        (s->IdtLimit, s->IdtBase) = (limit, address);
        return true;
    }

    /// <summary>A 16-bit limit and a base of Aux bytes: 8 in 64-bit mode, 4, or 3 with 16-bit operands.</summary>
    private static bool LoadTable(CpuState* s, Op* op, out ushort limit, out ulong address)
    {
        (limit, address) = (0, 0);
        if (!Privileged(s, op)) return false;
        var at = AtAny.Of(s, op);
        limit = Mem.Read<ushort>(s, op, at);
        if (s->Abort != Abort.None) return false;
        address = op->Aux == 8 ? Mem.Read<ulong>(s, op, at + 2) : Mem.Read<uint>(s, op, at + 2);
        if (s->Abort != Abort.None) return false;
        if (op->Aux == 3) address &= 0xFF_FFFF;
        return SoftCpu.IsCanonical(address) || Gp(s, op);
    }

    public static bool Sgdt(SoftCpu cpu, CpuState* s, Op* op) => StoreTable(s, op, s->GdtLimit, s->GdtBase);

    public static bool Sidt(SoftCpu cpu, CpuState* s, Op* op) => StoreTable(s, op, s->IdtLimit, s->IdtBase);

    private static bool StoreTable(CpuState* s, Op* op, uint limit, ulong address)
    {
        var at = AtAny.Of(s, op);
        if (!Mem.ProbeWrite(s, op, at, op->Aux == 8 ? 10 : 6)) return false;
        Mem.Write(s, op, at, (ushort)limit);
        if (s->Abort != Abort.None) return false;
        if (op->Aux == 8) Mem.Write(s, op, at + 2, address);
        else Mem.Write(s, op, at + 2, (uint)address);
        return s->Abort == Abort.None;
    }

    public static bool Invlpg(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        var address = AtAny.Of(s, op);
        if (SoftCpu.IsCanonical(address)) cpu.FlushPage(address);
        return true;
    }

    /// <summary>INVPCID: the type in a register, context and address in memory (SDM Vol. 2A).</summary>
    public static bool Invpcid(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        var at = AtAny.Of(s, op);
        var context = Mem.Read<ulong>(s, op, at);
        if (s->Abort != Abort.None) return false;
        var address = Mem.Read<ulong>(s, op, at + 8);
        if (s->Abort != Abort.None) return false;
        var type = Reg.Get<ulong>(s, op->Src);
        if (!cpu.Mode64) type = (uint)type;
        if (type > 3 || context >> 12 != 0) return Gp(s, op);
        if (type < 2 && context != 0 && (s->Cr4 & Cr4Bits.Pcide) == 0) return Gp(s, op);
        if (type == 0 && !SoftCpu.IsCanonical(address)) return Gp(s, op);
        cpu.FlushContext((int)type, context, address);
        return true;
    }

    /// <summary>WBINVD, WBNOINVD and INVD: there are no caches.</summary>
    public static bool FlushCaches(SoftCpu cpu, CpuState* s, Op* op) => Privileged(s, op);

    /// <summary>CLFLUSH faults as a load of one byte does.</summary>
    public static bool Clflush(SoftCpu cpu, CpuState* s, Op* op)
    {
        Mem.Read<byte>(s, op, AtAny.Of(s, op));
        return s->Abort == Abort.None;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Nop(CpuState* s, Op* op) => op[1].Fn(s, op + 1);

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Mfence(CpuState* s, Op* op)
    {
        Interlocked.MemoryBarrier();
        op[1].Fn(s, op + 1);
    }
}
