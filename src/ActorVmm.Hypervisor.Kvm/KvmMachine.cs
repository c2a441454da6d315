using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Memory;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>One VM of the kernel with its memory slots, interrupt controllers, timer and vCPUs.</summary>
public sealed partial class KvmMachine : IMachine
{
    // Three pages just below the BIOS ROM for the TSS of real mode on Intel, one before them for its identity page table (kvm/api.rst
    // §4.36, §4.41).
    private const ulong TssAddress = 0xFFFB_D000;
    private const ulong IdentityMapAddress = 0xFFFB_C000;
    private static readonly TimeSpan HaltWatchPeriod = TimeSpan.FromMilliseconds(250);

    private readonly KvmFile _vm;
    private readonly KvmVcpu[] _vcpus;
    private readonly Timer _haltWatch;
    private readonly long[] _lastRuns;
    private readonly MachineState _powerOn;
    private readonly Lock _lock = new();
    private readonly HashSet<IDisposable> _attached = []; // doorbells and interrupt events still registered
    private bool _disposed;

    internal KvmMachine(KvmSystem system, MachineOptions options, KvmCpuTemplate template, KickMethod method)
    {
        Memory = options.Memory;
        XsaveSize = Math.Max(4096, system.Check(KvmCap.XSAVE2));
        Msrs = KvmMsrs.Of(system);
        _vm = system.CreateVm();
        _vcpus = new KvmVcpu[options.VcpuCount];
        _lastRuns = new long[options.VcpuCount];
        ClockImplementation = new KvmClock(OnAlarm);
        try
        {
            CreateChips();
            MapMemory(system);
            var cpuid = KvmCpuid.ForMachine(system, options.VcpuCount, template);
            for (var id = 0; id < _vcpus.Length; id++) _vcpus[id] = CreateVcpu(system, id, cpuid.ForVcpu(id), template, method);
            _powerOn = Save();
        }
        catch
        {
            Dispose();
            throw;
        }
        _haltWatch = new Timer(static self => ((KvmMachine)self!).WatchHalts(), this, HaltWatchPeriod, HaltWatchPeriod);
    }

    /// <inheritdoc/>
    public GuestMemory Memory { get; }

    /// <inheritdoc/>
    public IReadOnlyList<IVcpu> Vcpus => _vcpus;

    /// <inheritdoc/>
    public IMachineClock Clock => ClockImplementation;

    internal KvmClock ClockImplementation { get; }

    internal KvmMsrs Msrs { get; }

    /// <summary>Bytes of a vCPU's XSAVE area: 4096, or more where the host has larger state (KVM_CAP_XSAVE2).</summary>
    internal int XsaveSize { get; }

    internal KvmFile File => _vm;

    /// <inheritdoc/>
    public void SetInterruptLine(int gsi, bool level)
    {
        var line = new KvmIrqLevel { Irq = (uint)gsi, Level = level ? 1u : 0u };
        _vm.Call(KvmApi.KVM_IRQ_LINE, ref line, nameof(KvmApi.KVM_IRQ_LINE));
    }

    /// <inheritdoc/>
    public void SendMsi(ulong address, uint data)
    {
        var msi = new KvmMsi { AddressLow = (uint)address, AddressHigh = (uint)(address >> 32), Data = data };
        _vm.Call(KvmApi.KVM_SIGNAL_MSI, ref msi, nameof(KvmApi.KVM_SIGNAL_MSI));
    }

    /// <inheritdoc/>
    /// <remarks>As a message with delivery mode NMI (SDM Vol. 3 §11.11): KVM_NMI would wait for the end of KVM_RUN.</remarks>
    public void SendNmi(int vcpu)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)vcpu, (uint)_vcpus.Length);
        SendMsi(0xFEE0_0000 | ((ulong)vcpu << 12), 4 << 8);
    }

    /// <inheritdoc/>
    public IDoorbell? TryCreateDoorbell(DoorbellAddress address)
    {
        var doorbell = KvmDoorbell.Create(_vm, address, Forget);
        lock (_lock) _attached.Add(doorbell);
        return doorbell;
    }

    /// <summary>
    /// An eventfd whose write raises input <paramref name="gsi"/> (irqfd). Level-triggered with <paramref name="resample"/>: the line stays
    /// up until the guest ends the interrupt, then <see cref="KvmInterruptEvent.ResampleDescriptor"/> is signalled.
    /// </summary>
    public KvmInterruptEvent CreateInterruptEvent(int gsi, bool resample = false)
    {
        var interrupt = KvmInterruptEvent.Create(_vm, gsi, resample, Forget);
        lock (_lock) _attached.Add(interrupt);
        return interrupt;
    }

    /// <summary>
    /// Replaces the interrupt routes: the standard ones (GSI 0 to 15 to the 8259s and the IOAPIC, 16 to 23 to the IOAPIC; the 8254's GSI 0 to
    /// IOAPIC pin 2) and these messages, each under its own GSI from 24 on.
    /// </summary>
    public void SetMessageRoutes(params ReadOnlySpan<KvmMessageRoute> routes) => KvmRouting.Set(_vm, routes);

    /// <inheritdoc/>
    public void Dispose()
    {
        IDisposable[] attached;
        lock (_lock)
        {
            if (_disposed) return;
            _disposed = true;
            attached = [.. _attached];
        }
        _haltWatch?.Dispose();
        ClockImplementation.Dispose();
        foreach (var vcpu in _vcpus) vcpu?.Dispose();
        // The end of the VM takes its doorbells and interrupt events down, so that a VM whose handle is dead has nothing left to refuse.
        _vm.Dispose();
        foreach (var one in attached) one.Dispose();
    }

    private void Forget(IDisposable attached)
    {
        lock (_lock) _attached.Remove(attached);
    }

    private void CreateChips()
    {
        _vm.Call(KvmApi.KVM_SET_TSS_ADDR, unchecked((nuint)TssAddress), nameof(KvmApi.KVM_SET_TSS_ADDR));
        var identity = IdentityMapAddress;
        _vm.Call(KvmApi.KVM_SET_IDENTITY_MAP_ADDR, ref identity, nameof(KvmApi.KVM_SET_IDENTITY_MAP_ADDR));
        _vm.Call(KvmApi.KVM_CREATE_IRQCHIP, 0, nameof(KvmApi.KVM_CREATE_IRQCHIP));
        KvmRouting.Set(_vm, []);
        var pit = new KvmPitConfig { Flags = KvmPitConfig.SpeakerDummy };
        _vm.Call(KvmApi.KVM_CREATE_PIT2, ref pit, nameof(KvmApi.KVM_CREATE_PIT2));
    }

    internal static void DemandSlots(int regions, int slots)
    {
        if (regions > slots) throw new HypervisorException($"guest memory has {regions} regions, this host's KVM has {slots} memory slots");
    }

    private void MapMemory(KvmSystem system)
    {
        DemandSlots(Memory.Regions.Count, system.Check(KvmCap.NR_MEMSLOTS));
        uint slot = 0;
        foreach (var region in Memory.Regions)
        {
            var mapping = new KvmMemoryRegion
            {
                Slot = slot++, GuestAddress = region.Start.Value, Size = region.Size, HostAddress = (ulong)region.HostAddress,
            };
            _vm.Call(KvmApi.KVM_SET_USER_MEMORY_REGION, ref mapping, nameof(KvmApi.KVM_SET_USER_MEMORY_REGION));
        }
    }

    private KvmVcpu CreateVcpu(KvmSystem system, int id, Span<byte> cpuid, KvmCpuTemplate template, KickMethod method)
    {
        var file = new KvmFile(_vm.Call(KvmApi.KVM_CREATE_VCPU, (nuint)id, nameof(KvmApi.KVM_CREATE_VCPU)));
        KvmVcpu? vcpu = null;
        try
        {
            vcpu = new KvmVcpu(this, id, file, KvmRunMapping.Map(file, system.RunPageSize), method);
            file.Call(KvmApi.KVM_SET_CPUID2, cpuid, nameof(KvmApi.KVM_SET_CPUID2));
            if (id == 0) Msrs.KeepReadable(file);
            Msrs.Set(file, KvmMsrs.Boot);
            template.ApplyMsrs(Msrs, file);
            KvmLapic.WireLocalInterrupts(file);
            return vcpu;
        }
        catch
        {
            // The mapping too: while it lives, the kernel keeps the whole VM.
            vcpu?.Dispose();
            file.Dispose();
            throw;
        }
    }

    private void OnAlarm() => _vcpus[0].Poke();

    /// <summary>
    /// A vCPU that has not left KVM_RUN since the last look may be halted for good; it looks itself. Costs a running guest four short exits
    /// a second, and only while it makes none of its own.
    /// </summary>
    private void WatchHalts()
    {
        foreach (var vcpu in _vcpus)
        {
            var (runs, inside) = vcpu.Progress;
            if (inside && runs == _lastRuns[vcpu.Id]) vcpu.Poke();
            _lastRuns[vcpu.Id] = vcpu.Progress.Runs;
        }
    }
}
