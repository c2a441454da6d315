namespace ActorVmm.Devices.Chipset;

/// <summary>
/// A local APIC with xAPIC and x2APIC interfaces (SDM Vol. 3 ch. 11).
/// <para>
/// Threads: <see cref="Accept"/> and the identity that messages are matched with may be used from any thread; everything else belongs
/// to the
/// thread of the vCPU that owns this APIC. IRR and TMR are words that are only changed atomically.
/// </para>
/// </summary>
public sealed partial class LocalApic : IDeviceState<LocalApicState>, ITimedDevice
{
    /// <summary>Where the register page is after reset.</summary>
    public const ulong DefaultBase = 0xFEE0_0000;

    /// <summary>Bytes of the register page.</summary>
    public const int PageSize = 4096;

    const ulong BaseBsp = 1 << 8;
    const ulong BaseX2Apic = 1 << 10;
    const ulong BaseEnable = 1 << 11;
    const uint SvrEnable = 1 << 8;

    readonly IApicBus _bus;
    readonly IApicCore _core;
    readonly IClock _clock;
    readonly bool _bootProcessor;

    readonly ulong[] _irr = new ulong[4]; // atomic: any thread
    readonly ulong[] _tmr = new ulong[4]; // atomic: any thread
    readonly ulong[] _isr = new ulong[4]; // owner only
    readonly uint[] _lvt = new uint[6];   // written by the owner, read by any thread (an error raises its LVT entry)

    ulong _apicBase;
    uint _svr;
    uint _ldr;
    uint _dfr;
    byte _tpr;
    byte _ppr;
    uint _esr;
    uint _errors; // atomic: any thread
    ulong _icr;
    int _extInt;  // atomic: any thread
    byte _lintLevels;

    /// <summary>A local APIC in its power-on state.</summary>
    /// <param name="id">APIC ID, 0 to 254.</param>
    /// <param name="bus">Where its messages go; the bus must know this APIC (<see cref="ApicBus.Attach(LocalApic)"/>).</param>
    /// <param name="core">The core to signal.</param>
    /// <param name="clock">Machine time.</param>
    /// <param name="tscFrequencyHz">Ticks of the TSC per second of machine time.</param>
    /// <param name="bootProcessor">Sets the BSP flag in IA32_APIC_BASE.</param>
    public LocalApic(uint id, IApicBus bus, IApicCore core, IClock clock, ulong tscFrequencyHz, bool bootProcessor)
    {
        Id = id;
        _bus = bus;
        _core = core;
        _clock = clock;
        _tscFrequency = tscFrequencyHz;
        _bootProcessor = bootProcessor;
        Reset();
    }

    /// <summary>The APIC ID, the same in both modes.</summary>
    public uint Id { get; }

    /// <summary>IA32_APIC_BASE; <see cref="TrySetApicBase"/> changes it as WRMSR does.</summary>
    public ulong ApicBase => Volatile.Read(ref _apicBase);

    /// <summary>Guest physical address of the register page, meaningful while <see cref="MmioEnabled"/>.</summary>
    public ulong MmioBase => ApicBase & 0x000F_FFFF_FFFF_F000;

    /// <summary>Whether the register page is decoded: enabled and not in x2APIC mode.</summary>
    public bool MmioEnabled => (ApicBase & (BaseEnable | BaseX2Apic)) == BaseEnable;

    /// <summary>Whether the registers are MSRs.</summary>
    public bool X2ApicMode => (ApicBase & BaseX2Apic) != 0;

    /// <summary>IA32_APIC_BASE bit 11.</summary>
    public bool HardwareEnabled => (ApicBase & BaseEnable) != 0;

    /// <summary>SVR bit 8.</summary>
    public bool SoftwareEnabled => (Volatile.Read(ref _svr) & SvrEnable) != 0;

    /// <summary>The task priority register; CR8 is its upper four bits.</summary>
    public byte TaskPriority
    {
        get => Volatile.Read(ref _tpr);
        set
        {
            Volatile.Write(ref _tpr, value);
            UpdateProcessorPriority();
            SignalIfPending();
        }
    }

    /// <summary>CR8, 0 to 15.</summary>
    public byte Cr8
    {
        get => (byte)(TaskPriority >> 4);
        set => TaskPriority = (byte)(value << 4);
    }

    /// <summary>The processor priority: what an interrupt's class must exceed (SDM Vol. 3 §11.8.3.1).</summary>
    public byte ProcessorPriority => _ppr;

    /// <summary>
    /// The vector that would be delivered now, or null. The 8259's interrupts are not in it: see <see cref="AcceptsExtInt"/>.
    /// </summary>
    public int? PendingVector
    {
        get
        {
            var vector = HighestDeliverable();
            return vector < 0 ? null : vector;
        }
    }

    /// <summary>
    /// Whether the core takes the 8259's INTR output: LINT0 programmed as ExtINT and unmasked, or the APIC switched off (INTR then goes
    /// straight to the boot processor, SDM Vol. 3 §11.4.3).
    /// </summary>
    public bool AcceptsExtInt =>
        (!HardwareEnabled && _bootProcessor) || (Lvt(LvtEntry.Lint0) & (LvtMasked | LvtModeMask)) == (uint)ApicDeliveryMode.ExtInt << 8;

    /// <summary>An ExtINT message from the I/O APIC waits: the core takes the vector from the 8259 pair.</summary>
    public bool ExtIntPending => Volatile.Read(ref _extInt) != 0;

    /// <inheritdoc/>
    public LocalApicState State
    {
        get => new()
        {
            ApicBase = _apicBase, TaskPriority = _tpr, LogicalDestination = _ldr, DestinationFormat = _dfr, SpuriousVector = _svr,
            ErrorStatus = _esr, ErrorsPending = Volatile.Read(ref _errors), InterruptCommand = _icr,
            LvtTimer = _lvt[0], LvtThermal = _lvt[1], LvtPerformance = _lvt[2], LvtLint0 = _lvt[3], LvtLint1 = _lvt[4], LvtError = _lvt[5],
            InitialCount = _initialCount, DivideConfiguration = _divide, TimerDeadline = _deadline, TscDeadline = _tscDeadline,
            TscOffset = _tscOffset, ExtIntPending = ExtIntPending, LintLevels = _lintLevels,
            Requested = VectorSet.From(_irr), InService = VectorSet.From(_isr), LevelTriggered = VectorSet.From(_tmr),
        };
        set
        {
            (_apicBase, _tpr, _ldr, _dfr, _svr) =
                (value.ApicBase, value.TaskPriority, value.LogicalDestination, value.DestinationFormat, value.SpuriousVector);
            (_esr, _icr) = (value.ErrorStatus, value.InterruptCommand);
            (_lvt[0], _lvt[1], _lvt[2], _lvt[3], _lvt[4], _lvt[5]) =
                (value.LvtTimer, value.LvtThermal, value.LvtPerformance, value.LvtLint0, value.LvtLint1, value.LvtError);
            (_initialCount, _divide, _deadline) = (value.InitialCount, value.DivideConfiguration, value.TimerDeadline);
            (_tscDeadline, _tscOffset, _lintLevels) = (value.TscDeadline, value.TscOffset, value.LintLevels);
            Volatile.Write(ref _errors, value.ErrorsPending);
            Volatile.Write(ref _extInt, value.ExtIntPending ? 1 : 0);
            value.Requested.CopyTo(_irr);
            value.InService.CopyTo(_isr);
            value.LevelTriggered.CopyTo(_tmr);
            UpdateProcessorPriority();
            _core.InterruptRequested();
        }
    }

    /// <summary>
    /// Power-on: xAPIC mode at <see cref="DefaultBase"/>, software-disabled, every LVT entry masked (SDM Vol. 3 §11.4.7.1).
    /// </summary>
    public void Reset()
    {
        Volatile.Write(ref _apicBase, DefaultBase | BaseEnable | (_bootProcessor ? BaseBsp : 0));
        _tscOffset = 0;
        InitReset();
    }

    /// <summary>
    /// What INIT does: the registers as at power-on; ID, IA32_APIC_BASE and the TSC keep their values (SDM Vol. 3 §11.4.7.3).
    /// </summary>
    public void InitReset()
    {
        Volatile.Write(ref _svr, 0xFF);
        Volatile.Write(ref _tpr, 0);
        Volatile.Write(ref _ldr, 0);
        Volatile.Write(ref _dfr, uint.MaxValue);
        for (var i = 0; i < 4; i++)
        {
            Volatile.Write(ref _irr[i], 0);
            Volatile.Write(ref _tmr[i], 0);
            _isr[i] = 0;
        }

        for (var i = 0; i < _lvt.Length; i++) Volatile.Write(ref _lvt[i], LvtMasked);
        _ppr = 0;
        _esr = 0;
        _icr = 0;
        _lintLevels = 0;
        Volatile.Write(ref _errors, 0);
        Volatile.Write(ref _extInt, 0);
        ResetTimer();
    }

    /// <summary>
    /// Programs LINT0 as ExtINT and LINT1 as NMI, as PC firmware leaves the boot processor ("virtual wire mode", MP specification
    /// §3.6.2.2).
    /// </summary>
    public void EnterVirtualWireMode()
    {
        Volatile.Write(ref _lvt[(int)LvtEntry.Lint0], (uint)ApicDeliveryMode.ExtInt << 8);
        Volatile.Write(ref _lvt[(int)LvtEntry.Lint1], (uint)ApicDeliveryMode.Nmi << 8);
        _core.InterruptRequested();
    }

    /// <summary>Takes a message from the bus. Any thread.</summary>
    /// <returns>False where this APIC is off and ignores it.</returns>
    public bool Accept(ApicDeliveryMode mode, byte vector, bool level)
    {
        if (!HardwareEnabled) return false;
        switch (mode)
        {
            case ApicDeliveryMode.Fixed or ApicDeliveryMode.LowestPriority:
                if (!SoftwareEnabled) return false;
                Request(vector, level);
                return true;
            case ApicDeliveryMode.ExtInt:
                if (Interlocked.Exchange(ref _extInt, 1) == 0) _core.InterruptRequested();
                return true;
            case ApicDeliveryMode.Nmi: _core.NmiRequested(); return true;
            case ApicDeliveryMode.Smi: _core.SmiRequested(); return true;
            case ApicDeliveryMode.Init: _core.InitRequested(); return true;
            case ApicDeliveryMode.Startup: _core.StartupRequested(vector); return true;
            default: return false; // reserved encoding
        }
    }

    /// <summary>Whether a message with this destination is for this APIC (SDM Vol. 3 §11.6.2). Any thread.</summary>
    public bool Matches(uint destination, bool logical)
    {
        if (destination == uint.MaxValue) return true;
        var x2Apic = X2ApicMode;
        if (!logical) return destination == Id;
        if (x2Apic)
        {
            var ldr = LogicalX2ApicId;
            return destination >> 16 == ldr >> 16 && (destination & ldr & 0xFFFF) != 0;
        }

        if (destination > 0xFF) return false;
        var mine = Volatile.Read(ref _ldr) >> 24;
        if (Volatile.Read(ref _dfr) >> 28 == 0xF) return (mine & destination) != 0; // flat
        var cluster = destination >> 4;
        return (cluster == 0xF || cluster == mine >> 4) && (mine & destination & 0xF) != 0;
    }

    /// <summary>
    /// The core takes the interrupt: the vector moves from IRR to ISR. Where none is deliverable any more, the spurious vector.
    /// </summary>
    public byte Acknowledge()
    {
        var vector = HighestDeliverable();
        if (vector < 0) return (byte)_svr;
        Interlocked.And(ref _irr[vector >> 6], ~(1UL << (vector & 63)));
        _isr[vector >> 6] |= 1UL << (vector & 63);
        UpdateProcessorPriority();
        return (byte)vector;
    }

    /// <summary>The core takes the ExtINT message; the vector comes from the 8259 pair.</summary>
    public void AcknowledgeExtInt() => Volatile.Write(ref _extInt, 0);

    /// <summary>
    /// Drives a local interrupt pin: 0 is LINT0 (the 8259's INTR on a PC), 1 is LINT1 (NMI). With LINT0 as ExtINT the core is woken and
    /// polls <see cref="AcceptsExtInt"/>. Any thread, one at a time (the chip lock).
    /// </summary>
    public void SetLint(int pin, bool level)
    {
        var bit = (byte)(1 << pin);
        var rose = level && (_lintLevels & bit) == 0;
        _lintLevels = (byte)(level ? _lintLevels | bit : _lintLevels & ~bit);
        if (rose) RaiseLocal(pin == 0 ? LvtEntry.Lint0 : LvtEntry.Lint1);
    }

    public override string ToString() =>
        $"lapic{Id} base={ApicBase:x} svr={_svr:x} tpr={_tpr:x2} ppr={_ppr:x2} irr={VectorSet.From(_irr)} isr={VectorSet.From(_isr)} " +
        $"timer={_lvt[0]:x} count={_initialCount} deadline={(_deadline == ulong.MaxValue ? "-" : _deadline.ToString())} " +
        $"lint0={_lvt[3]:x} lint1={_lvt[4]:x} esr={_esr:x}";

    int HighestDeliverable()
    {
        var vector = VectorSet.Highest(_irr);
        return vector >= 0 && (vector & 0xF0) > (_ppr & 0xF0) && HardwareEnabled ? vector : -1;
    }

    void Request(byte vector, bool level)
    {
        if (vector < 16)
        {
            RaiseError(ErrorReceiveIllegalVector);
            return;
        }

        ref var tmr = ref _tmr[vector >> 6];
        var bit = 1UL << (vector & 63);
        if (level) Interlocked.Or(ref tmr, bit);
        else Interlocked.And(ref tmr, ~bit);
        if ((Interlocked.Or(ref _irr[vector >> 6], bit) & bit) == 0) _core.InterruptRequested();
    }

    void EndOfInterrupt()
    {
        var vector = VectorSet.Highest(_isr);
        if (vector < 0) return;
        var bit = 1UL << (vector & 63);
        _isr[vector >> 6] &= ~bit;
        UpdateProcessorPriority();
        if ((Volatile.Read(ref _tmr[vector >> 6]) & bit) != 0) _bus.EndOfInterrupt((byte)vector);
        SignalIfPending();
    }

    void UpdateProcessorPriority()
    {
        var service = VectorSet.Highest(_isr);
        var serviced = service < 0 ? 0 : service & 0xF0;
        _ppr = (byte)((_tpr & 0xF0) >= serviced ? _tpr : serviced);
    }

    void SignalIfPending()
    {
        if (HighestDeliverable() >= 0) _core.InterruptRequested();
    }
}
