namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Control and debug registers (SDM Vol. 3 §2.5, §9.8.5, §17.2).</summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>The reset value's fixed bits of DR6 and DR7.</summary>
    private const ulong Dr6Fixed = 0xFFFF_0FF0, Dr6Writable = 0xE00F, Dr7Fixed = 0x400, Dr7Writable = 0xFFFF_23FF;

    internal ulong ReadControl(int number) => number switch
    {
        0 => _s->Cr0,
        2 => _s->Cr2,
        3 => _s->Cr3,
        4 => _s->Cr4,
        _ => Apic.TaskPriority,
    };

    /// <summary>MOV to CR0, 2, 3, 4, 8. False: #GP is raised and nothing has changed.</summary>
    internal bool WriteControl(int number, ulong value)
    {
        switch (number)
        {
            case 0: return WriteCr0(value);
            case 3: return WriteCr3(value);
            case 4: return WriteCr4(value);
            case 2:
                _s->Cr2 = value;
                return true;
            default:
                if (value > 15) return RaiseFault(Vector.Gp, 0);
                NoteOutside();
                Apic.TaskPriority = (byte)value;
                return true;
        }
    }

    /// <summary>MOV to CR0 and LMSW: paging needs protection, and turning it on or off enters or leaves long mode where EFER.LME is set.</summary>
    internal bool WriteCr0(ulong value)
    {
        var s = _s;
        if (value >> 32 != 0) return RaiseFault(Vector.Gp, 0);
        value = value & Cr0Bits.All | Cr0Bits.Et;
        var paging = (value & Cr0Bits.Pg) != 0;
        if (paging && (value & Cr0Bits.Pe) == 0) return RaiseFault(Vector.Gp, 0);
        if ((value & (Cr0Bits.Nw | Cr0Bits.Cd)) == Cr0Bits.Nw) return RaiseFault(Vector.Gp, 0);
        var changed = value ^ s->Cr0;
        if ((changed & Cr0Bits.Pg) != 0)
        {
            if (paging && (s->Efer & EferBits.Lme) != 0)
            {
                // Activation (§9.8.5): PAE must be on, and CS must not claim to be 64-bit already.
                if ((s->Cr4 & Cr4Bits.Pae) == 0 || s->Cs.Long) return RaiseFault(Vector.Gp, 0);
                s->Efer |= EferBits.Lma;
            }
            else if (!paging)
            {
                if (Mode64 || (s->Cr4 & Cr4Bits.Pcide) != 0) return RaiseFault(Vector.Gp, 0);
                s->Efer &= ~EferBits.Lma;
            }
        }
        s->Cr0 = value;
        // Leaving protected mode leaves CPL 0 behind: only ring 0 gets here.
        if ((changed & (Cr0Bits.Pg | Cr0Bits.Wp | Cr0Bits.Pe)) != 0) FlushTlb();
        UpdateMode();
        return true;
    }

    private bool WriteCr3(ulong value) => TryWriteCr3(value) || RaiseFault(Vector.Gp, 0);

    /// <summary>False where the value has reserved bits: nothing has changed then. With PCIDs, bit 63 keeps the context's translations.</summary>
    internal bool TryWriteCr3(ulong value)
    {
        var s = _s;
        var keep = (s->Cr4 & Cr4Bits.Pcide) != 0 && value >> 63 != 0;
        if (keep) value &= ulong.MaxValue >> 1;
        if (LongMode && value >> (int)CpuFeatures.PhysicalBits != 0) return false;
        s->Cr3 = LongMode ? value : (uint)value;
        SwitchAddressSpace(keep);
        return true;
    }

    private bool WriteCr4(ulong value)
    {
        var s = _s;
        if ((value & ~Cr4Bits.All) != 0) return RaiseFault(Vector.Gp, 0);
        if (LongMode && (value & Cr4Bits.Pae) == 0) return RaiseFault(Vector.Gp, 0);
        var changed = value ^ s->Cr4;
        // SDM Vol. 3 §4.10.1: PCIDs begin in IA-32e mode with context 0.
        if ((changed & value & Cr4Bits.Pcide) != 0 && (!LongMode || (s->Cr3 & 0xFFF) != 0)) return RaiseFault(Vector.Gp, 0);
        s->Cr4 = value;
        if ((changed & Cr4Bits.Paging) != 0 || (changed & ~value & Cr4Bits.Pcide) != 0)
        {
            FlushTlb();
            _user = null; // without PCIDs there is context 0 alone
        }
        UpdateMode();
        return true;
    }

    /// <summary>DR4 and DR5 are DR6 and DR7 unless CR4.DE; DR7.GD guards them all.</summary>
    private bool OpenDebug(ref int number)
    {
        var s = _s;
        if (number is 4 or 5)
        {
            if ((s->Cr4 & Cr4Bits.De) != 0) return RaiseFault(Vector.Ud);
            number += 2;
        }
        if (s->Cpl != 0) return RaiseFault(Vector.Gp, 0);
        if ((s->Dr[7] & 0x2000) == 0) return true;
        s->Dr[6] |= 0x2000;
        return RaiseFault(Vector.Db);
    }

    internal bool ReadDebug(int number, out ulong value)
    {
        value = 0;
        if (!OpenDebug(ref number)) return false;
        value = _s->Dr[number];
        return true;
    }

    internal bool WriteDebug(int number, ulong value)
    {
        if (!OpenDebug(ref number)) return false;
        if (number < 4)
        {
            _s->Dr[number] = value;
            return true;
        }
        if (value >> 32 != 0) return RaiseFault(Vector.Gp, 0);
        _s->Dr[number] = number == 6 ? value & Dr6Writable | Dr6Fixed : value & Dr7Writable | Dr7Fixed;
        return true;
    }
}
