namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>RDMSR and WRMSR (SDM Vol. 4; AMD APM Vol. 2 App. A). What is not listed raises #GP(0), as on hardware; guests probe for that.</summary>
internal sealed unsafe partial class SoftCpu
{
    private const int MtrrVariables = 16, MtrrFixedRanges = 11;

    /// <summary>The local APIC; whoever builds the machine binds it.</summary>
    internal ILocalApicPort Apic { get; set; } = AbsentLocalApic.Instance;

    // Registers that the guest may set and that this CPU only remembers: memory types have no effect on a machine without caches.
    private readonly ulong[] _mtrrVariable = new ulong[MtrrVariables];
    private readonly ulong[] _mtrrFixed = new ulong[MtrrFixedRanges];
    private ulong _mtrrDefType;
    private ulong _pat = Msr.PatReset;
    private ulong _miscEnable = 1;
    private ulong _debugControl;
    private ulong _mcgStatus;
    private ulong _tscAdjust;
    private ulong _sysCfg;
    private ulong _hwCr;

    /// <summary>Bit 1: LFENCE serialises. It does, so the bit reads one from reset.</summary>
    private ulong _decodeConfig = 2;

    /// <summary>Reads a register; false where it does not exist. <paramref name="op"/> gives the exact time, null between blocks.</summary>
    internal bool TryReadMsr(Op* op, uint index, out ulong value)
    {
        var s = _s;
        switch (index)
        {
            case Msr.Tsc: value = ReadTsc(op); return true;
            case Msr.ApicBase: value = Apic.ApicBase; return true;
            case Msr.TscAdjust: value = _tscAdjust; return true;
            case Msr.PatchLevel: value = CpuFeatures.PatchLevel; return true;
            case Msr.MtrrCap: value = Msr.MtrrCapValue; return true;
            case Msr.SysenterCs: value = s->SysenterCs; return true;
            case Msr.SysenterEsp: value = s->SysenterEsp; return true;
            case Msr.SysenterEip: value = s->SysenterEip; return true;
            case Msr.McgStatus: value = _mcgStatus; return true;
            case Msr.MiscEnable: value = _miscEnable; return true;
            case Msr.DebugControl: value = _debugControl; return true;
            case Msr.Pat: value = _pat; return true;
            case Msr.MtrrDefType: value = _mtrrDefType; return true;
            case Msr.TscDeadline: value = Apic.TscDeadline; return true;
            case Msr.Efer: value = s->Efer; return true;
            case Msr.Star: value = s->Star; return true;
            case Msr.Lstar: value = s->Lstar; return true;
            case Msr.Cstar: value = s->Cstar; return true;
            case Msr.SyscallMask: value = s->SyscallMask; return true;
            case Msr.FsBase: value = s->SegBase[SegFs]; return true;
            case Msr.GsBase: value = s->SegBase[SegGs]; return true;
            case Msr.KernelGsBase: value = s->KernelGsBase; return true;
            case Msr.TscAux: value = s->TscAux; return true;
            case Msr.SysCfg: value = _sysCfg; return true;
            case Msr.HwCr: value = _hwCr; return true;
            case Msr.DecodeConfig: value = _decodeConfig; return true;
            // No machine-check banks, no SMM, no SVM, no C1E: all zero.
            case Msr.PlatformId or Msr.McgCap or Msr.TopOfMemory or Msr.TopOfMemory2 or Msr.InterruptPendingMessage:
            case Msr.TsegAddress or Msr.TsegMask or Msr.VmCr:
                value = 0;
                return true;
            case >= Msr.FirstX2Apic and <= Msr.LastX2Apic: return Apic.TryReadMsr(index, out value);
            case >= Msr.MtrrFirstVariable and <= Msr.MtrrLastVariable: value = _mtrrVariable[index - Msr.MtrrFirstVariable]; return true;
            default:
                var range = FixedRange(index);
                value = range < 0 ? 0 : _mtrrFixed[range];
                return range >= 0;
        }
    }

    /// <summary>Writes a register; false, with nothing changed, where it does not exist or the value is reserved.</summary>
    internal bool TryWriteMsr(Op* op, uint index, ulong value)
    {
        var s = _s;
        switch (index)
        {
            case >= Msr.FirstX2Apic and <= Msr.LastX2Apic: return Apic.TryWriteMsr(index, value);
            case Msr.TscDeadline: Apic.TscDeadline = value; return true;
            case Msr.FsBase: return Set(ref s->SegBase[SegFs], value, IsCanonical(value));
            case Msr.GsBase: return Set(ref s->SegBase[SegGs], value, IsCanonical(value));
            case Msr.KernelGsBase: return Set(ref s->KernelGsBase, value, IsCanonical(value));
            case Msr.Tsc:
                var delta = value - ReadTsc(op);
                _tscAdjust += delta;
                MoveTsc(delta);
                return true;
            case Msr.TscAdjust:
                MoveTsc(value - _tscAdjust);
                _tscAdjust = value;
                return true;
            case Msr.ApicBase: return Apic.TryWriteApicBase(value);
            case Msr.Efer: return WriteEfer(value);
            case Msr.Star: s->Star = value; return true;
            case Msr.Lstar: return Set(ref s->Lstar, value, IsCanonical(value));
            case Msr.Cstar: return Set(ref s->Cstar, value, IsCanonical(value));
            case Msr.SyscallMask: s->SyscallMask = (uint)value; return true;
            case Msr.TscAux: return Set(ref s->TscAux, value, value >> 32 == 0);
            case Msr.SysenterCs: s->SysenterCs = (uint)value; return true;
            case Msr.SysenterEsp: return Set(ref s->SysenterEsp, value, IsCanonical(value));
            case Msr.SysenterEip: return Set(ref s->SysenterEip, value, IsCanonical(value));
            case Msr.Pat: return Set(ref _pat, value, AreMemoryTypes(value, PatTypes));
            case Msr.MtrrDefType: return Set(ref _mtrrDefType, value, (value & ~0xCFFUL) == 0 && AreMemoryTypes(value & 0xFF, MtrrTypes));
            case Msr.McgStatus: return Set(ref _mcgStatus, value, (value & ~7UL) == 0);
            case Msr.MiscEnable: _miscEnable = value; return true;
            case Msr.DebugControl: return Set(ref _debugControl, value, (value & ~3UL) == 0);
            case Msr.SysCfg: _sysCfg = value; return true;
            case Msr.HwCr: _hwCr = value; return true;
            case Msr.DecodeConfig: _decodeConfig = value | 2; return true;
            case Msr.PatchLevel or Msr.InterruptPendingMessage or Msr.TsegAddress or Msr.TsegMask: return true; // no effect here
            case >= Msr.MtrrFirstVariable and <= Msr.MtrrLastVariable: return WriteVariableRange((int)(index - Msr.MtrrFirstVariable), value);
            default:
                var range = FixedRange(index);
                return range >= 0 && Set(ref _mtrrFixed[range], value, AreMemoryTypes(value, MtrrTypes));
        }
    }

    private void MoveTsc(ulong delta)
    {
        _s->TscOffset += delta;
        Apic.OnTscOffset(_s->TscOffset);
    }

    private static bool Set(ref ulong register, ulong value, bool valid)
    {
        if (valid) register = value;
        return valid;
    }

    /// <summary>Bit n: memory type n is defined (SDM Vol. 3 §12.11.1, §12.12.2); UC- exists in the PAT only.</summary>
    private const int MtrrTypes = 0b0111_0011, PatTypes = 0b1111_0011;

    private static bool AreMemoryTypes(ulong value, int defined)
    {
        for (; value != 0; value >>= 8)
            if ((value & 0xFF) > 7 || (defined >> (int)(value & 0xFF) & 1) == 0) return false;
        return true;
    }

    private bool WriteVariableRange(int number, ulong value)
    {
        const ulong address = ((1UL << (int)CpuFeatures.PhysicalBits) - 1) & ~0xFFFUL;
        var allowed = (number & 1) == 0
            ? (value & ~(address | 0xFF)) == 0 && AreMemoryTypes(value & 0xFF, MtrrTypes)
            : (value & ~(address | 0x800)) == 0;
        return Set(ref _mtrrVariable[number], value, allowed);
    }

    private static int FixedRange(uint index) => index switch
    {
        Msr.MtrrFixed64K => 0,
        Msr.MtrrFixed16K or Msr.MtrrFixed16K + 1 => 1 + (int)(index - Msr.MtrrFixed16K),
        >= Msr.MtrrFixed4K and <= Msr.MtrrFixed4K + 7 => 3 + (int)(index - Msr.MtrrFixed4K),
        _ => -1,
    };

    /// <summary>LMA is read-only; LME may not change while paging is on (SDM Vol. 3 §9.8.5).</summary>
    private bool WriteEfer(ulong value)
    {
        var s = _s;
        if ((value & ~EferBits.All) != 0) return false;
        var changed = value ^ s->Efer;
        if ((changed & EferBits.Lme) != 0 && (s->Cr0 & Cr0Bits.Pg) != 0) return false;
        s->Efer = value & ~EferBits.Lma | s->Efer & EferBits.Lma;
        if ((changed & EferBits.Nxe) != 0) FlushTlb();
        UpdateMode();
        return true;
    }
}
