namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Segment registers, LDT and task register, descriptor inspection. In <see cref="Op.Aux"/>: operand size, above it the segment number.</summary>
internal static unsafe partial class SystemOps
{
    public static bool MovToSegment(SoftCpu cpu, CpuState* s, Op* op) => LoadSegment(cpu, s, op->Aux >> 8, Reg.Get<ushort>(s, op->Src));

    public static bool MovToSegmentMemory(SoftCpu cpu, CpuState* s, Op* op)
    {
        var selector = Mem.Read<ushort>(s, op, AtAny.Of(s, op));
        return s->Abort == Abort.None && LoadSegment(cpu, s, op->Aux >> 8, selector);
    }

    /// <summary>A load of SS holds interrupts back for one instruction (SDM Vol. 3 §6.8.3); its op ends the block.</summary>
    private static bool LoadSegment(SoftCpu cpu, CpuState* s, int number, ushort selector)
    {
        if (!cpu.LoadDataSegment(number, selector)) return false;
        if (number == SoftCpu.SegSs) s->InterruptShadow = 1;
        return true;
    }

    public static bool MovFromSegment(SoftCpu cpu, CpuState* s, Op* op)
    {
        SetRegister(s, op->Dst, SoftCpu.SegmentOf(s, op->Aux >> 8).Selector, op->Aux & 0xFF);
        return true;
    }

    public static bool MovFromSegmentMemory(SoftCpu cpu, CpuState* s, Op* op) =>
        StoreWord(s, op, SoftCpu.SegmentOf(s, op->Aux >> 8).Selector);

    public static bool PushSegment(SoftCpu cpu, CpuState* s, Op* op) =>
        cpu.PushValue(op, SoftCpu.SegmentOf(s, op->Aux >> 8).Selector, op->Aux & 0xFF);

    public static bool PopSegment(SoftCpu cpu, CpuState* s, Op* op) => cpu.PopSegment(op, op->Aux >> 8, op->Aux & 0xFF);

    /// <summary>LDS, LES, LSS, LFS, LGS: offset of the operand size, then a selector.</summary>
    public static bool LoadFarPointer(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!ReadFarPointer(s, op, op->Aux & 0xFF, out var selector, out var offset)) return false;
        if (!cpu.LoadDataSegment(op->Aux >> 8, selector)) return false;
        SetRegister(s, op->Dst, offset, op->Aux & 0xFF);
        return true;
    }

    private static bool ReadFarPointer(CpuState* s, Op* op, int size, out ushort selector, out ulong offset)
    {
        selector = 0;
        var at = AtAny.Of(s, op);
        offset = size switch { 2 => Mem.Read<ushort>(s, op, at), 4 => Mem.Read<uint>(s, op, at), _ => Mem.Read<ulong>(s, op, at) };
        if (s->Abort != Abort.None) return false;
        selector = Mem.Read<ushort>(s, op, at + (uint)size);
        return s->Abort == Abort.None;
    }

    // --- LLDT, LTR, SLDT, STR ---

    public static bool LldtRegister(SoftCpu cpu, CpuState* s, Op* op) => SystemSegment(cpu, s, op) && cpu.LoadLdt(Reg.Get<ushort>(s, op->Src));

    public static bool LldtMemory(SoftCpu cpu, CpuState* s, Op* op) =>
        SystemSegment(cpu, s, op) && ReadWord(s, op, out var selector) && cpu.LoadLdt(selector);

    public static bool LtrRegister(SoftCpu cpu, CpuState* s, Op* op) => SystemSegment(cpu, s, op) && cpu.LoadTaskRegister(Reg.Get<ushort>(s, op->Src));

    public static bool LtrMemory(SoftCpu cpu, CpuState* s, Op* op) =>
        SystemSegment(cpu, s, op) && ReadWord(s, op, out var selector) && cpu.LoadTaskRegister(selector);

    private static bool SystemSegment(SoftCpu cpu, CpuState* s, Op* op) => (cpu.ProtectedMode || Ud(s, op)) && Privileged(s, op);

    private static bool ReadWord(CpuState* s, Op* op, out ushort value)
    {
        value = Mem.Read<ushort>(s, op, AtAny.Of(s, op));
        return s->Abort == Abort.None;
    }

    public static bool SldtRegister(SoftCpu cpu, CpuState* s, Op* op) => StoreSelector(cpu, s, op, s->Ldtr.Selector);

    public static bool StrRegister(SoftCpu cpu, CpuState* s, Op* op) => StoreSelector(cpu, s, op, s->Tr.Selector);

    private static bool StoreSelector(SoftCpu cpu, CpuState* s, Op* op, ushort selector)
    {
        if (!cpu.ProtectedMode) return Ud(s, op);
        SetRegister(s, op->Dst, selector, op->Aux & 0xFF);
        return true;
    }

    public static bool SldtMemory(SoftCpu cpu, CpuState* s, Op* op) => cpu.ProtectedMode ? StoreWord(s, op, s->Ldtr.Selector) : Ud(s, op);

    public static bool StrMemory(SoftCpu cpu, CpuState* s, Op* op) => cpu.ProtectedMode ? StoreWord(s, op, s->Tr.Selector) : Ud(s, op);

    // --- LAR, LSL, VERR, VERW: the operand is a register (Step) or comes from memory ---

    public static bool LarRegister(SoftCpu cpu, CpuState* s, Op* op) => Lar(cpu, s, op, Reg.Get<ushort>(s, op->Src));
    public static bool LarMemory(SoftCpu cpu, CpuState* s, Op* op) => ReadWord(s, op, out var selector) && Lar(cpu, s, op, selector);
    public static bool LslRegister(SoftCpu cpu, CpuState* s, Op* op) => Lsl(cpu, s, op, Reg.Get<ushort>(s, op->Src));
    public static bool LslMemory(SoftCpu cpu, CpuState* s, Op* op) => ReadWord(s, op, out var selector) && Lsl(cpu, s, op, selector);
    public static bool VerrRegister(SoftCpu cpu, CpuState* s, Op* op) => Verify(cpu, s, op, Reg.Get<ushort>(s, op->Src), write: false);
    public static bool VerrMemory(SoftCpu cpu, CpuState* s, Op* op) => ReadWord(s, op, out var selector) && Verify(cpu, s, op, selector, write: false);
    public static bool VerwRegister(SoftCpu cpu, CpuState* s, Op* op) => Verify(cpu, s, op, Reg.Get<ushort>(s, op->Src), write: true);
    public static bool VerwMemory(SoftCpu cpu, CpuState* s, Op* op) => ReadWord(s, op, out var selector) && Verify(cpu, s, op, selector, write: true);

    private static bool Lar(SoftCpu cpu, CpuState* s, Op* op, ushort selector)
    {
        // Types that LAR knows: segments, TSS, LDT, call and task gates (SDM Vol. 2A LAR, table 3-51).
        if (!Inspect(cpu, s, op, selector, longTypes: 0b0001_1010_0000_0100, legacyTypes: 0b0001_1010_0011_1110, out var descriptor, out var found)) return false;
        if (found) SetRegister(s, op->Dst, (uint)(descriptor.Raw >> 32) & 0x00F0_FF00, op->Aux & 0xFF);
        return SetZero(s, found);
    }

    private static bool Lsl(SoftCpu cpu, CpuState* s, Op* op, ushort selector)
    {
        // Gates have no limit.
        if (!Inspect(cpu, s, op, selector, longTypes: 0b0000_1010_0000_0100, legacyTypes: 0b0000_1010_0000_1110, out var descriptor, out var found)) return false;
        if (found) SetRegister(s, op->Dst, descriptor.Limit, op->Aux & 0xFF);
        return SetZero(s, found);
    }

    private static bool Verify(SoftCpu cpu, CpuState* s, Op* op, ushort selector, bool write)
    {
        if (!Inspect(cpu, s, op, selector, 0, 0, out var descriptor, out var found)) return false;
        return SetZero(s, found && (write ? descriptor.IsWritableData : descriptor.IsReadable));
    }

    /// <summary>Finds a descriptor that may be looked at; bit n of the masks allows system type n. False: a fault is raised.</summary>
    private static bool Inspect(SoftCpu cpu, CpuState* s, Op* op, ushort selector, int longTypes, int legacyTypes, out Descriptor descriptor, out bool found)
    {
        (descriptor, found) = (default, false);
        if (!cpu.ProtectedMode) return Ud(s, op);
        if (!cpu.TryInspectDescriptor(selector, out descriptor)) return s->Abort == Abort.None;
        found = cpu.MayInspect(selector, descriptor) &&
            (descriptor.IsCodeOrData || ((cpu.LongMode ? longTypes : legacyTypes) >> descriptor.Type & 1) != 0);
        return true;
    }

    private static bool SetZero(CpuState* s, bool zero)
    {
        Flags.Change(s, Flags.Zf, zero ? Flags.Zf : 0);
        return true;
    }

    /// <summary>ARPL r/m16, r16: raises the RPL of the destination to that of the source.</summary>
    public static bool ArplRegister(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!cpu.ProtectedMode) return Ud(s, op);
        var (selector, rpl) = (Reg.Get<ushort>(s, op->Dst), Reg.Get<ushort>(s, op->Src) & 3);
        var raise = (selector & 3) < rpl;
        if (raise) Reg.Set(s, op->Dst, (ushort)(selector & ~3 | rpl));
        return SetZero(s, raise);
    }

    public static bool ArplMemory(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!cpu.ProtectedMode) return Ud(s, op);
        if (!ReadWord(s, op, out var selector)) return false;
        var rpl = Reg.Get<ushort>(s, op->Src) & 3;
        var raise = (selector & 3) < rpl;
        if (raise && !StoreWord(s, op, (ushort)(selector & ~3 | rpl))) return false;
        return SetZero(s, raise);
    }

    /// <summary>BOUND: #BR outside the signed bounds in memory.</summary>
    public static bool Bound(SoftCpu cpu, CpuState* s, Op* op)
    {
        var at = AtAny.Of(s, op);
        long low, high, index;
        if (op->Aux == 2)
        {
            var pair = Mem.Read<uint>(s, op, at);
            (low, high, index) = ((short)pair, (short)(pair >> 16), Reg.Get<short>(s, op->Src));
        }
        else
        {
            var pair = Mem.Read<ulong>(s, op, at);
            (low, high, index) = ((int)pair, (int)(pair >> 32), Reg.Get<int>(s, op->Src));
        }
        if (s->Abort != Abort.None) return false;
        return (index >= low && index <= high) || cpu.RaiseFault(Vector.Br);
    }
}
