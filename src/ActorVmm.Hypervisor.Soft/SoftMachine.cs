using System.Runtime.InteropServices;
using ActorVmm.Devices;
using ActorVmm.Devices.Chipset;
using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Memory;

namespace ActorVmm.Hypervisor.Soft;

/// <summary>A machine on the software CPU: cores, local APICs, I/O APIC, 8259 pair and 8254.</summary>
internal sealed class SoftMachine : IMachine, IGuestWriteObserver
{
    /// <summary>Ticks of the TSC per second of machine time: one per nanosecond.</summary>
    public const ulong TscFrequencyHz = 1_000_000_000;

    private readonly Lock _chipLock = new();
    private readonly SoftVcpu[] _vcpus;
    private readonly ApicBus _bus;
    private readonly IoApic _ioApic;
    private readonly DualPic _pic;
    private readonly Pit8254 _pit;
    private readonly TurnOrder? _turns;
    private ulong _chipDeadline = ulong.MaxValue;

    public SoftMachine(MachineOptions options, SoftOptions? settings = null)
    {
        Options = options;
        settings ??= new SoftOptions();
        CompileThreshold = options.CompileThreshold ?? settings.CompileThreshold;
        HostArchitecture = settings.Host;
        CodeBytes = options.CodeCacheMib is { } mib ? (long)mib << 20 : settings.CodeBytes;
        Memory = options.Memory;
        Ram = new GuestRam(options.Memory);
        Clock = new SoftClock(options);
        _bus = new ApicBus(_chipLock);
        _ioApic = new IoApic(_bus);
        _bus.Attach(_ioApic);
        _pic = new DualPic(new PicOutput(this));
        _pit = new Pit8254(new PitOutput(this), Clock);
        _vcpus = new SoftVcpu[options.VcpuCount];
        Apics = new LocalApic[options.VcpuCount];
        for (var id = 0; id < _vcpus.Length; id++)
        {
            _vcpus[id] = new SoftVcpu(this, id);
            Apics[id] = new LocalApic((uint)id, _bus, _vcpus[id], Clock, TscFrequencyHz, bootProcessor: id == 0);
            _bus.Attach(Apics[id]);
            _vcpus[id].Bind(Apics[id]);
            (_vcpus[id].Cpu.ApicId, _vcpus[id].Cpu.CpuCount, _vcpus[id].Cpu.TscKhz) = ((uint)id, (uint)_vcpus.Length, (uint)(TscFrequencyHz / 1000));
        }
        Clock.Bind(_vcpus[0].Cpu);
        if (options.Clock == ClockMode.Virtual && _vcpus.Length > 1)
        {
            _turns = new TurnOrder(this, [.. _vcpus.Select(vcpu => vcpu.Cpu)]);
            foreach (var vcpu in _vcpus) vcpu.Cpu.JoinTurns(_turns);
        }
        Memory.WriteObserver = this;
        Reset();
    }

    public MachineOptions Options { get; }

    /// <summary>See <see cref="SoftOptions.CompileThreshold"/>; 0 where the host offers no executable memory.</summary>
    public int CompileThreshold { get; private set; }

    /// <summary>See <see cref="SoftOptions.CodeBytes"/>.</summary>
    public long CodeBytes { get; }

    /// <summary>See <see cref="SoftOptions.Host"/>.</summary>
    public Architecture HostArchitecture { get; }

    /// <summary>What pauses are measured with; no guest sees it.</summary>
    public TimeProvider Host { get; } = TimeProvider.System;

    public IReadOnlyList<string> Notes => NoCompiler is { } why ? [$"code is interpreted only, at a tenth of the speed: {why}"] : [];

    /// <summary>Why hot code is not compiled, or null where it is or was not asked for.</summary>
    public string? NoCompiler { get; private set; }

    /// <summary>The host offers no executable memory: said once, then tier 0 runs everything.</summary>
    public void NoteNoCompiler(string reason) => (CompileThreshold, NoCompiler) = (0, reason);

    public GuestMemory Memory { get; }

    public GuestRam Ram { get; }

    public LocalApic[] Apics { get; }

    public SoftClock Clock { get; }

    IMachineClock IMachine.Clock => Clock;

    public IReadOnlyList<IVcpu> Vcpus => _vcpus;

    /// <summary>The 8259 pair's INTR output.</summary>
    public bool PicRequests
    {
        get
        {
            lock (_chipLock) return _pic.InterruptRequested;
        }
    }

    /// <summary>The interrupt-acknowledge cycle of the 8259 pair.</summary>
    public byte AcknowledgePic()
    {
        lock (_chipLock) return _pic.Acknowledge();
    }

    public void SetInterruptLine(int gsi, bool level)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)gsi, (uint)IoApic.Pins - 1);
        if (gsi == 2) return; // the cascade of the 8259s: no line of its own
        lock (_chipLock)
        {
            if (gsi < 16) _pic.SetLine(gsi, level);
            // The 8254 is wired to pin 2, as on every PC (and as the MADT says).
            _ioApic.SetLine(gsi == 0 ? 2 : gsi, level);
        }
    }

    public void SendMsi(ulong address, uint data) => _bus.DeliverMsi(address, data);

    public void SendNmi(int vcpu) => _vcpus[vcpu].NmiRequested();

    /// <summary>A doorbell here is a plain exit: there is no kernel to take it.</summary>
    public IDoorbell? TryCreateDoorbell(DoorbellAddress address) => null;

    public void PauseClock() => Clock.Pause();

    public void ResumeClock() => Clock.Resume();

    // --- chips on the vCPUs' own threads ---

    /// <summary>When the 8254 has to act next.</summary>
    public ulong ChipDeadline => Volatile.Read(ref _chipDeadline);

    /// <summary>Lets the 8254 act; gives its next deadline.</summary>
    public ulong AdvanceChips(ulong now)
    {
        if (now < Volatile.Read(ref _chipDeadline)) return _chipDeadline;
        lock (_chipLock)
        {
            _pit.Advance(now);
            return NoteDeadline();
        }
    }

    private ulong NoteDeadline()
    {
        var deadline = _pit.Deadline ?? ulong.MaxValue;
        Volatile.Write(ref _chipDeadline, deadline);
        return deadline;
    }

    public bool TryReadPort(ushort port, int size, out ulong value)
    {
        value = 0;
        if (!DualPic.Claims(port) && !Pit8254.Claims(port)) return false;
        lock (_chipLock)
        {
            for (var i = 0; i < size; i++) value |= (ulong)ReadPort((ushort)(port + i)) << (8 * i);
            NoteDeadline();
        }
        return true;
    }

    private byte ReadPort(ushort port) => DualPic.Claims(port) ? _pic.ReadPort(port) : Pit8254.Claims(port) ? _pit.ReadPort(port) : (byte)0xFF;

    public bool TryWritePort(ushort port, int size, ulong value)
    {
        if (!DualPic.Claims(port) && !Pit8254.Claims(port)) return false;
        lock (_chipLock)
        {
            for (var i = 0; i < size; i++)
            {
                var at = (ushort)(port + i);
                if (DualPic.Claims(at)) _pic.WritePort(at, (byte)(value >> (8 * i)));
                else if (Pit8254.Claims(at)) _pit.WritePort(at, (byte)(value >> (8 * i)));
            }
            NoteDeadline();
        }
        _vcpus[0].Cpu.TimeChanged();
        return true;
    }

    public bool TryReadChip(SoftCpu cpu, ulong physical, int size, out ulong value)
    {
        var apic = Apics[cpu.Id];
        if (apic.MmioEnabled && physical - apic.MmioBase < LocalApic.PageSize)
        {
            value = apic.ReadMmio(physical - apic.MmioBase, size);
            return true;
        }
        value = 0;
        if (physical - IoApic.DefaultBase >= IoApic.PageSize) return false;
        lock (_chipLock) value = _ioApic.Read(physical - IoApic.DefaultBase, size);
        return true;
    }

    public bool TryWriteChip(SoftCpu cpu, ulong physical, int size, ulong value)
    {
        var apic = Apics[cpu.Id];
        if (apic.MmioEnabled && physical - apic.MmioBase < LocalApic.PageSize)
        {
            apic.WriteMmio(physical - apic.MmioBase, size, value);
            return true;
        }
        if (physical - IoApic.DefaultBase >= IoApic.PageSize) return false;
        lock (_chipLock) _ioApic.Write(physical - IoApic.DefaultBase, size, value);
        return true;
    }

    // --- translated code ---

    /// <summary>A device wrote to RAM.</summary>
    public void OnWritten(GuestAddress start, ulong length) => InvalidateCode(start.Value, length, except: null);

    /// <summary>Has every vCPU (but one that did it itself) drop its blocks of a written range.</summary>
    public void InvalidateCode(ulong physical, ulong length, SoftCpu? except)
    {
        for (var at = physical; at < physical + length;)
        {
            var part = Math.Min(physical + length - at, 0x1000 - (at & 0xFFF));
            if (Ram.HasCode(at))
                foreach (var vcpu in _vcpus)
                    if (vcpu.Cpu != except) vcpu.Cpu.PostInvalidate(at, (int)part);
            at += part;
        }
    }

    /// <summary>A vCPU stored into a page with code; its own blocks are dropped already.</summary>
    public void AfterCodeWrite(SoftCpu writer, ulong physical, int size)
    {
        if (_vcpus.Length > 1) InvalidateCode(physical, (ulong)size, writer);
    }

    /// <summary>A vCPU has translated its first block of a page: from now on nobody may write there without notice.</summary>
    public void CodeAdded(SoftCpu holder, ulong page)
    {
        holder.FlushWrites(page);
        foreach (var vcpu in _vcpus)
            if (vcpu.Cpu != holder) vcpu.Cpu.PostFlushWrites(page, holder);
    }

    // --- life cycle ---

    public void Reset()
    {
        lock (_chipLock)
        {
            _ioApic.Reset();
            _pic.Reset();
            _pit.Reset();
            NoteDeadline();
        }
        foreach (var apic in Apics) apic.Reset();
        Apics[0].EnterVirtualWireMode();
        foreach (var vcpu in _vcpus) vcpu.Cpu.PowerOn();
        _turns?.Reset();
    }

    public MachineState Save()
    {
        lock (_chipLock)
        {
            var chips = new Dictionary<string, byte[]>(StringComparer.Ordinal)
            {
                ["ioapic"] = ChipState.Save(_ioApic.State),
                ["pic0"] = ChipState.Save(_pic.State.Master),
                ["pic1"] = ChipState.Save(_pic.State.Slave),
                ["pit"] = ChipState.Save(_pit.State),
            };
            for (var id = 0; id < Apics.Length; id++) chips[$"apic{id}"] = ChipState.Save(Apics[id].State);
            return new MachineState("soft", Clock.Nanoseconds, chips, [.. _vcpus.Select(vcpu => vcpu.GetState())]);
        }
    }

    public void Restore(MachineState state)
    {
        if (state.Hypervisor != "soft") throw new HypervisorException($"the state was saved by '{state.Hypervisor}', this machine is 'soft'");
        if (state.Vcpus.Count != _vcpus.Length)
            throw new HypervisorException($"the state has {state.Vcpus.Count} vCPUs, this machine has {_vcpus.Length}");
        var known = Apics.Select((_, id) => $"apic{id}").Concat(["ioapic", "pic0", "pic1", "pit"]);
        if (state.Chips.Keys.Except(known, StringComparer.Ordinal).FirstOrDefault() is { } unknown)
            throw new HypervisorException($"the state has a chip '{unknown}' that this machine does not have");
        Clock.Restore(state.ClockNanoseconds);
        lock (_chipLock)
        {
            _ioApic.State = ChipState.Load<IoApicState>(state, "ioapic");
            _pic.State = new DualPicState(ChipState.Load<Pic8259State>(state, "pic0"), ChipState.Load<Pic8259State>(state, "pic1"));
            _pit.State = ChipState.Load<PitState>(state, "pit");
            NoteDeadline();
        }
        for (var id = 0; id < _vcpus.Length; id++)
        {
            _vcpus[id].SetState(state.Vcpus[id]);
            Apics[id].State = ChipState.Load<LocalApicState>(state, $"apic{id}");
        }
    }

    public void Dispose()
    {
        if (Memory.WriteObserver == this) Memory.WriteObserver = null;
        foreach (var vcpu in _vcpus) vcpu.Cpu.Dispose();
        Ram.Dispose();
    }

    private sealed class PitOutput(SoftMachine machine) : IInterruptLine
    {
        public void Drive(bool level) => machine.SetInterruptLine(0, level);
    }

    private sealed class PicOutput(SoftMachine machine) : IInterruptLine
    {
        public void Drive(bool level)
        {
            if (level) machine._vcpus[0].InterruptRequested();
        }
    }
}
