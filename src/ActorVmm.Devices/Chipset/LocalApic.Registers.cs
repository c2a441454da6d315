using System.Buffers.Binary;

namespace ActorVmm.Devices.Chipset;

/// <summary>The entries of the local vector table, in register order from 0x320 (SDM Vol. 3 §11.5.1).</summary>
public enum LvtEntry
{
    Timer = 0,
    Thermal = 1,
    Performance = 2,
    Lint0 = 3,
    Lint1 = 4,
    Error = 5,
}

/// <summary>Local APIC registers: byte offset in the page / 16 = x2APIC MSR - 0x800 (SDM Vol. 3 Tables 11-1 and 11-6).</summary>
public enum LocalApicRegister : byte
{
    Id = 0x02,
    Version = 0x03,
    TaskPriority = 0x08,
    ArbitrationPriority = 0x09,
    ProcessorPriority = 0x0A,
    EndOfInterrupt = 0x0B,
    RemoteRead = 0x0C,
    LogicalDestination = 0x0D,
    DestinationFormat = 0x0E,
    SpuriousVector = 0x0F,
    InService = 0x10,
    TriggerMode = 0x18,
    Request = 0x20,
    ErrorStatus = 0x28,
    InterruptCommandLow = 0x30,
    InterruptCommandHigh = 0x31,
    LvtTimer = 0x32,
    LvtError = 0x37,
    InitialCount = 0x38,
    CurrentCount = 0x39,
    DivideConfiguration = 0x3E,

    /// <summary>x2APIC only.</summary>
    SelfIpi = 0x3F,
}

public sealed partial class LocalApic
{
    /// <summary>First and last MSR of the x2APIC range.</summary>
    public const uint FirstMsr = 0x800;

    /// <inheritdoc cref="FirstMsr"/>
    public const uint LastMsr = 0x8FF;

    // Version 0x14, six LVT entries (SDM Vol. 3 §11.4.8); no EOI-broadcast suppression.
    const uint VersionValue = 0x0005_0014;

    const uint LvtMasked = 1 << 16;
    const uint LvtModeMask = 7 << 8;
    const uint ErrorSendIllegalVector = 1 << 5;
    const uint ErrorReceiveIllegalVector = 1 << 6;
    const uint ErrorIllegalRegister = 1 << 7;

    // Writable bits per entry: vector and mask everywhere, then timer mode, delivery mode, polarity and trigger.
    static ReadOnlySpan<uint> LvtWritable => [0x0007_00FF, 0x0001_07FF, 0x0001_07FF, 0x0001_A7FF, 0x0001_A7FF, 0x0001_00FF];

    uint LogicalX2ApicId => ((Id >> 4) << 16) | (1u << (int)(Id & 0xF));

    /// <summary>Reads from the register page. Registers are 32 bits wide at multiples of 16; other bytes read as zero.</summary>
    public ulong ReadMmio(ulong offset, int size)
    {
        var within = (int)(offset & 0xF);
        if (offset >= PageSize || within >= 4) return 0;
        if (!TryReadRegister((LocalApicRegister)(offset >> 4), out var value))
        {
            RaiseError(ErrorIllegalRegister);
            return 0;
        }

        var shifted = (ulong)value >> (8 * within);
        return size >= 4 ? shifted : shifted & ((1UL << (8 * size)) - 1);
    }

    /// <summary>Writes to the register page. Only aligned 32-bit writes have a meaning (SDM Vol. 3 §11.4.1); others are ignored.</summary>
    public void WriteMmio(ulong offset, int size, ulong value)
    {
        if (offset >= PageSize || (offset & 0xF) != 0 || size < 4) return;
        var register = (LocalApicRegister)(offset >> 4);
        if (register == LocalApicRegister.InterruptCommandHigh) _icr = (_icr & uint.MaxValue) | ((value & 0xFF00_0000) << 32);
        else if (register == LocalApicRegister.SelfIpi || !TryWriteRegister(register, (uint)value)) RaiseError(ErrorIllegalRegister);
    }

    /// <summary>RDMSR in the range <see cref="FirstMsr"/> to <see cref="LastMsr"/>. False asks for #GP(0).</summary>
    public bool TryReadMsr(uint msr, out ulong value)
    {
        value = 0;
        if (!X2ApicMode || msr is < FirstMsr or > LastMsr) return false;
        var register = (LocalApicRegister)(msr - FirstMsr);
        switch (register)
        {
            case LocalApicRegister.InterruptCommandLow: value = _icr; return true;
            case LocalApicRegister.InterruptCommandHigh or LocalApicRegister.DestinationFormat or LocalApicRegister.EndOfInterrupt
                or LocalApicRegister.ArbitrationPriority or LocalApicRegister.RemoteRead or LocalApicRegister.SelfIpi: return false;
            default:
                var known = TryReadRegister(register, out var low);
                value = low;
                return known;
        }
    }

    /// <summary>WRMSR in the range <see cref="FirstMsr"/> to <see cref="LastMsr"/>. False asks for #GP(0).</summary>
    public bool TryWriteMsr(uint msr, ulong value)
    {
        if (!X2ApicMode || msr is < FirstMsr or > LastMsr) return false;
        var register = (LocalApicRegister)(msr - FirstMsr);
        switch (register)
        {
            case LocalApicRegister.InterruptCommandLow:
                _icr = value & 0xFFFF_FFFF_000C_CFFF;
                SendInterrupt((uint)(value >> 32));
                return true;
            case LocalApicRegister.SelfIpi:
                if (value > 0xFF) return false;
                if (value < 16) RaiseError(ErrorSendIllegalVector);
                else Accept(ApicDeliveryMode.Fixed, (byte)value, level: false);
                return true;
            case LocalApicRegister.EndOfInterrupt or LocalApicRegister.ErrorStatus when value != 0:
            case LocalApicRegister.TaskPriority when value > 0xFF:
            case LocalApicRegister.LogicalDestination or LocalApicRegister.DestinationFormat or LocalApicRegister.InterruptCommandHigh:
                return false;
            default:
                return value <= uint.MaxValue && TryWriteRegister(register, (uint)value);
        }
    }

    /// <summary>
    /// WRMSR to IA32_APIC_BASE. False asks for #GP(0): reserved bits, or a step that SDM Vol. 3 Figure 11-27 does not have.
    /// </summary>
    public bool TrySetApicBase(ulong value)
    {
        if ((value & 0xFFF0_0000_0000_02FF) != 0) return false;
        var before = _apicBase & (BaseEnable | BaseX2Apic);
        var after = value & (BaseEnable | BaseX2Apic);
        if (after == BaseX2Apic) return false;
        if (after == (BaseEnable | BaseX2Apic) && before == 0) return false; // through xAPIC first
        if (after == BaseEnable && before == (BaseEnable | BaseX2Apic)) return false; // through disabled first
        Volatile.Write(ref _apicBase, value);
        if (after == 0 && before != 0)
        {
            InitReset();
            _core.InterruptRequested(); // the 8259's output now reaches the boot processor without us
        }

        return true;
    }

    /// <summary>Writes the registers as KVM lays them out: register n at 16·n, the first 1 KiB of the page.</summary>
    /// <exception cref="ArgumentException">The span is shorter than 1024 bytes.</exception>
    public void ExportRegisters(Span<byte> page)
    {
        if (page.Length < 1024) throw new ArgumentException("The register page is 1024 bytes.", nameof(page));
        page[..1024].Clear();
        for (var r = 0; r < 0x40; r++)
            if (TryReadRegister((LocalApicRegister)r, out var value)) BinaryPrimitives.WriteUInt32LittleEndian(page[(r * 16)..], value);
        BinaryPrimitives.WriteUInt32LittleEndian(page[0x310..], (uint)(_icr >> 32));
    }

    /// <summary>
    /// Takes the registers from a page as <see cref="ExportRegisters"/> and KVM write it. Set <see cref="RestoreApicBase"/> before and
    /// <see cref="TscDeadline"/> after. A running timer goes on from its current count.
    /// </summary>
    /// <exception cref="ArgumentException">The span is shorter than 1024 bytes.</exception>
    public void ImportRegisters(ReadOnlySpan<byte> page)
    {
        if (page.Length < 1024) throw new ArgumentException("The register page is 1024 bytes.", nameof(page));
        InitReset();
        _tpr = (byte)Word(page, LocalApicRegister.TaskPriority);
        _ldr = Word(page, LocalApicRegister.LogicalDestination) & 0xFF00_0000;
        _dfr = Word(page, LocalApicRegister.DestinationFormat) | 0x0FFF_FFFF;
        if (X2ApicMode) _ldr = 0; // the page has the derived one
        _svr = Word(page, LocalApicRegister.SpuriousVector) & 0x3FF;
        _esr = Word(page, LocalApicRegister.ErrorStatus);
        _icr = Word(page, LocalApicRegister.InterruptCommandLow) | ((ulong)Word(page, LocalApicRegister.InterruptCommandHigh) << 32);
        for (var i = 0; i < _lvt.Length; i++)
            _lvt[i] = Word(page, (LocalApicRegister)((int)LocalApicRegister.LvtTimer + i)) & LvtWritable[i];
        for (var i = 0; i < 4; i++)
        {
            _isr[i] = Words(page, LocalApicRegister.InService, i);
            Volatile.Write(ref _tmr[i], Words(page, LocalApicRegister.TriggerMode, i));
            Volatile.Write(ref _irr[i], Words(page, LocalApicRegister.Request, i));
        }

        _divide = Word(page, LocalApicRegister.DivideConfiguration) & 0xB;
        _initialCount = Word(page, LocalApicRegister.InitialCount);
        ResumeTimer(Word(page, LocalApicRegister.CurrentCount));
        UpdateProcessorPriority();
        SignalIfPending();
    }

    /// <summary>Sets IA32_APIC_BASE without the checks of a guest's write, for restore.</summary>
    public void RestoreApicBase(ulong value) => Volatile.Write(ref _apicBase, value);

    static uint Word(ReadOnlySpan<byte> page, LocalApicRegister register) =>
        BinaryPrimitives.ReadUInt32LittleEndian(page[((int)register * 16)..]);

    static ulong Words(ReadOnlySpan<byte> page, LocalApicRegister first, int word) =>
        Word(page, (LocalApicRegister)((int)first + 2 * word)) | ((ulong)Word(page, (LocalApicRegister)((int)first + 2 * word + 1)) << 32);

    uint Lvt(LvtEntry entry) => Volatile.Read(ref _lvt[(int)entry]);

    bool TryReadRegister(LocalApicRegister register, out uint value)
    {
        switch (register)
        {
            case LocalApicRegister.Id: value = X2ApicMode ? Id : Id << 24; return true;
            case LocalApicRegister.Version: value = VersionValue; return true;
            case LocalApicRegister.TaskPriority: value = _tpr; return true;
            case LocalApicRegister.ProcessorPriority: value = _ppr; return true;
            case LocalApicRegister.LogicalDestination: value = X2ApicMode ? LogicalX2ApicId : _ldr; return true;
            case LocalApicRegister.DestinationFormat: value = _dfr; return true;
            case LocalApicRegister.SpuriousVector: value = _svr; return true;
            case >= LocalApicRegister.InService and < LocalApicRegister.TriggerMode: value = Half(_isr, register); return true;
            case >= LocalApicRegister.TriggerMode and < LocalApicRegister.Request: value = Half(_tmr, register); return true;
            case >= LocalApicRegister.Request and < LocalApicRegister.ErrorStatus: value = Half(_irr, register); return true;
            case LocalApicRegister.ErrorStatus: value = _esr; return true;
            case LocalApicRegister.InterruptCommandLow: value = (uint)_icr; return true;
            case LocalApicRegister.InterruptCommandHigh: value = (uint)(_icr >> 32); return true;
            case >= LocalApicRegister.LvtTimer and <= LocalApicRegister.LvtError:
                value = _lvt[register - LocalApicRegister.LvtTimer];
                return true;
            case LocalApicRegister.InitialCount: value = _initialCount; return true;
            case LocalApicRegister.CurrentCount: value = CurrentCount(); return true;
            case LocalApicRegister.DivideConfiguration: value = _divide; return true;
            case LocalApicRegister.ArbitrationPriority or LocalApicRegister.EndOfInterrupt or LocalApicRegister.RemoteRead:
                value = 0;
                return true;
            default: value = 0; return false;
        }
    }

    // Eight registers of 32 vectors each, at a multiple of eight.
    static uint Half(ulong[] words, LocalApicRegister register) =>
        (uint)(Volatile.Read(ref words[((int)register & 7) >> 1]) >> (((int)register & 1) * 32));

    bool TryWriteRegister(LocalApicRegister register, uint value)
    {
        switch (register)
        {
            case LocalApicRegister.TaskPriority: TaskPriority = (byte)value; return true;
            case LocalApicRegister.EndOfInterrupt: EndOfInterrupt(); return true;
            case LocalApicRegister.LogicalDestination: Volatile.Write(ref _ldr, value & 0xFF00_0000); return true;
            case LocalApicRegister.DestinationFormat: Volatile.Write(ref _dfr, value | 0x0FFF_FFFF); return true;
            case LocalApicRegister.SpuriousVector: WriteSpuriousVector(value & 0x3FF); return true;
            case LocalApicRegister.ErrorStatus: _esr = Interlocked.Exchange(ref _errors, 0); return true;
            case LocalApicRegister.InterruptCommandLow:
                _icr = (_icr & 0xFFFF_FFFF_0000_0000) | (value & 0x000C_CFFF);
                SendInterrupt((uint)(_icr >> 56));
                return true;
            case >= LocalApicRegister.LvtTimer and <= LocalApicRegister.LvtError:
                WriteLvt((LvtEntry)(register - LocalApicRegister.LvtTimer), value);
                return true;
            case LocalApicRegister.InitialCount: StartCount(value); return true;
            case LocalApicRegister.DivideConfiguration: WriteDivide(value & 0xB); return true;

            // The ID is fixed; the others are read-only. In xAPIC mode such writes do nothing, as x2APIC MSRs they fault.
            case LocalApicRegister.Id or LocalApicRegister.Version or LocalApicRegister.ProcessorPriority or LocalApicRegister.CurrentCount
                or LocalApicRegister.ArbitrationPriority or LocalApicRegister.RemoteRead:
            case >= LocalApicRegister.InService and < LocalApicRegister.ErrorStatus:
                return !X2ApicMode;
            default: return false;
        }
    }

    void WriteSpuriousVector(uint value)
    {
        Volatile.Write(ref _svr, value);
        if ((value & SvrEnable) != 0) return;
        for (var i = 0; i < _lvt.Length; i++) Volatile.Write(ref _lvt[i], _lvt[i] | LvtMasked); // SDM Vol. 3 §11.4.7.2
    }

    void WriteLvt(LvtEntry entry, uint value)
    {
        value &= LvtWritable[(int)entry];
        if (!SoftwareEnabled) value |= LvtMasked;
        if (entry == LvtEntry.Timer) ChangeTimerMode(value);
        Volatile.Write(ref _lvt[(int)entry], value);
        if (entry is not (LvtEntry.Lint0 or LvtEntry.Lint1)) return;
        // The pin may be high already: a level-triggered input sees it as soon as it is unmasked, and so does ExtINT.
        if (AcceptsExtInt) _core.InterruptRequested();
        else if ((value & (1 << 15)) != 0 && (_lintLevels & (entry == LvtEntry.Lint0 ? 1 : 2)) != 0) RaiseLocal(entry);
    }

    // SDM Vol. 3 §11.6.1: vector 7:0, mode 10:8, logical 11, level 14, trigger 15, shorthand 19:18.
    void SendInterrupt(uint destination)
    {
        var command = (uint)_icr;
        var vector = (byte)command;
        var mode = (ApicDeliveryMode)((command >> 8) & 7);
        var logical = (command & (1 << 11)) != 0;
        if (mode == ApicDeliveryMode.Init && (command & 0xC000) == 0x8000) return; // INIT level de-assert: no effect
        if (mode is ApicDeliveryMode.Fixed or ApicDeliveryMode.LowestPriority && vector < 16)
        {
            RaiseError(ErrorSendIllegalVector);
            return;
        }

        switch ((command >> 18) & 3)
        {
            case 1:
                if (mode is ApicDeliveryMode.Fixed) Accept(mode, vector, level: false); // others are not valid with "self"
                break;
            case 2: _bus.DeliverToAll(null, mode, vector); break;
            case 3: _bus.DeliverToAll(this, mode, vector); break;
            default:
                // In xAPIC mode the physical destination 0xFF is the broadcast.
                var everybody = !X2ApicMode && !logical && destination == 0xFF;
                _bus.Deliver(everybody ? uint.MaxValue : destination, logical, mode, vector, level: false);
                break;
        }
    }

    void RaiseLocal(LvtEntry entry)
    {
        var lvt = Lvt(entry);
        if ((lvt & LvtMasked) != 0) return;
        var mode = entry is LvtEntry.Timer or LvtEntry.Error ? ApicDeliveryMode.Fixed : (ApicDeliveryMode)((lvt & LvtModeMask) >> 8);
        if (mode != ApicDeliveryMode.ExtInt) Accept(mode, (byte)lvt, level: false);
        else _core.InterruptRequested();
    }

    void RaiseError(uint error)
    {
        if ((Interlocked.Or(ref _errors, error) & error) != 0) return; // reported already; also ends the error entry's own illegal vector
        RaiseLocal(LvtEntry.Error);
    }
}
