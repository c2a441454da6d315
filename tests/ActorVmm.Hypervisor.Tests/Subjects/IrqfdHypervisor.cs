using ActorVmm.Backends.Polling;
using ActorVmm.Devices;
using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Memory;

namespace ActorVmm.Hypervisor.Tests.Subjects;

/// <summary>
/// KVM, except that the interrupt lines of a VM's virtio devices are not set by a call but by eventfds with resample. Whatever of the VM
/// drives a line does not notice.
/// </summary>
internal sealed class IrqfdHypervisor : IHypervisor
{
    private readonly KvmHypervisor _kvm = new();

    public string Name => _kvm.Name;

    public ProbeReport Probe() => _kvm.Probe();

    public IMachine CreateMachine(MachineOptions options) => new Machine(_kvm.Create(options));

    private sealed class Machine : IMachine
    {
        // Not the lines of the PC's own devices: those are edges.
        private static readonly int[] s_levels = [5, 6, 7, 10, 11];

        private readonly KvmMachine _machine;
        private readonly EventPoller _poller = new(static loop => new Thread(() => loop()) { IsBackground = true, Name = "irqfd" }.Start());
        private readonly Dictionary<int, IrqfdLine> _lines;

        public Machine(KvmMachine machine)
        {
            _machine = machine;
            _lines = s_levels.ToDictionary(gsi => gsi, gsi => new IrqfdLine(machine.CreateInterruptEvent(gsi, resample: true), _poller));
        }

        public GuestMemory Memory => _machine.Memory;
        public IReadOnlyList<IVcpu> Vcpus => _machine.Vcpus;
        public IMachineClock Clock => _machine.Clock;

        public void SetInterruptLine(int gsi, bool level)
        {
            if (_lines.TryGetValue(gsi, out var line)) line.Drive(level);
            else _machine.SetInterruptLine(gsi, level);
        }

        public void SendMsi(ulong address, uint data) => _machine.SendMsi(address, data);
        public void SendNmi(int vcpu) => _machine.SendNmi(vcpu);
        public IDoorbell? TryCreateDoorbell(DoorbellAddress address) => _machine.TryCreateDoorbell(address);
        public void PauseClock() => _machine.PauseClock();
        public void ResumeClock() => _machine.ResumeClock();
        public MachineState Save() => _machine.Save();
        public void Restore(MachineState state) => _machine.Restore(state);
        public void Reset() => _machine.Reset();

        public void Dispose()
        {
            foreach (var line in _lines.Values) line.Dispose();
            _poller.Dispose();
            _machine.Dispose();
        }
    }
}

/// <summary>A level-triggered input behind an eventfd (KVM_IRQFD_FLAG_RESAMPLE): it falls when the guest ends the interrupt, and rises again
/// where the device still wants service.</summary>
internal sealed class IrqfdLine : IInterruptLine, IDisposable
{
    private readonly Lock _lock = new();
    private readonly KvmInterruptEvent _interrupt;
    private readonly IDisposable _watch;
    private bool _level;
    private bool _over;

    public IrqfdLine(KvmInterruptEvent interrupt, EventPoller poller)
    {
        _interrupt = interrupt;
        _watch = poller.Watch(interrupt.ResampleDescriptor, OnEnded);
    }

    public void Drive(bool level)
    {
        lock (_lock)
        {
            if (level && !_level && !_over) _interrupt.Raise();
            _level = level; // the fall is the guest's: the kernel lowers the input at the end of interrupt
        }
    }

    public void Dispose()
    {
        lock (_lock) _over = true;
        _watch.Dispose();
        _interrupt.Dispose();
    }

    private void OnEnded()
    {
        lock (_lock)
        {
            if (_over) return;
            _interrupt.TakeEnded();
            if (_level) _interrupt.Raise();
        }
    }
}
