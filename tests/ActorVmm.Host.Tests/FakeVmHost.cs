using System.Collections.Concurrent;
using System.Text;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;
using Akka.Configuration;

namespace ActorVmm.Host.Tests;

/// <summary>
/// A VM host whose guest is an echo: it prints READY, sends back what it is typed, and ends as it is told: q power-off, p panic, r reset,
/// t triple fault, h halt, f failure, Ctrl-D power-off; c crashes the whole process from a thread of its own.
/// </summary>
internal sealed class FakeVmHost : IVmHostFactory, IVmHost
{
    public VmSpec? Started { get; private set; }
    public string Typed => _handle?.Typed ?? "";
    public IHypervisor? Hypervisor { get; private set; }
    public bool Disposed { get; private set; }
    public Exception? StartFailure { get; init; }
    public bool Deaf { get; init; }
    public ConcurrentQueue<(string Vm, string Device, object Change)> Updates { get; } = [];
    private Handle? _handle;

    public IVmHost Create(Config settings, Serilog.ILogger log, bool verbose) => this;

    public Task<IVmHandle> StartAsync(VmSpec spec, IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler = null)
    {
        if (StartFailure is not null)
            return Task.FromException<IVmHandle>(StartFailure);
        (Started, Hypervisor) = (spec, hypervisor);
        _handle = new Handle(spec, console, Deaf, Updates);
        _handle.Begin();
        return Task.FromResult<IVmHandle>(_handle);
    }

    public ValueTask DisposeAsync()
    {
        Disposed = true;
        return ValueTask.CompletedTask;
    }

    private sealed class Handle(VmSpec spec, VmConsole console, bool deaf,
        ConcurrentQueue<(string Vm, string Device, object Change)> updates) : IVmHandle
    {
        private readonly TaskCompletionSource<VmOutcome> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly StringBuilder _typed = new();
        private readonly Lock _gate = new();

        public VmSpec Spec => spec;
        public Task<VmOutcome> Completion => _ended.Task;

        public Task InjectAsync(ActorVmm.Devices.Faults.FaultRule rule) => Task.CompletedTask;

        public void HealFaults() { }

        public string Typed
        {
            get
            {
                lock (_gate)
                    return _typed.ToString();
            }
        }

        public void Begin()
        {
            console.Output.Write("Welcome to ActorVmm\r\nREADY\r\n"u8);
            console.Input.OnAvailable(Pull);
            Pull();
        }

        private void Pull()
        {
            Span<byte> fifo = stackalloc byte[16];
            lock (_gate)
            {
                int count;
                while ((count = console.Input.Take(fifo)) > 0)
                {
                    console.Output.Write(fifo[..count]);
                    foreach (var key in fifo[..count])
                        OnKey(key);
                }
            }
        }

        private void OnKey(byte key)
        {
            _typed.Append((char)key);
            switch ((char)key)
            {
                case 'q' or '\x04': End(StopReason.Poweroff); break;
                case 'p': End(StopReason.GuestPanic); break;
                case 'r': End(StopReason.ResetI8042); break;
                case 't': End(StopReason.TripleFault); break;
                case 'h': End(StopReason.Halted); break;
                case 'f': End(StopReason.Failed); break;
                case 'c': new Thread(() => throw new InvalidOperationException("crash on purpose")).Start(); break;
            }
        }

        private void End(StopReason reason) => _ended.TrySetResult(new(reason, "as typed", RetiredInstructions: 7));

        public void Stop()
        {
            if (!deaf)
                End(StopReason.Requested);
        }

        public Task<InspectNode> InspectAsync() => Task.FromResult(new InspectNode(spec.Name, new Dictionary<string, string>(), [])); // it has no units
        public Task UpdateDeviceAsync(string device, object change)
        {
            updates.Enqueue((spec.Name, device, change));
            return Task.CompletedTask;
        }

        public Task PauseAsync() => Task.CompletedTask;
        public Task ResumeAsync() => Task.CompletedTask;
    }
}

/// <summary>A KVM that nobody runs and that remembers its template.</summary>
internal sealed class FakeKvm(bool usable = true) : FakeHypervisor("kvm", usable), ICpuTemplateHypervisor
{
    public KvmCpuTemplate? Template { get; private init; }
    public IHypervisor With(KvmCpuTemplate template) => new FakeKvm(usable: true) { Template = template };
}

/// <summary>A hypervisor that nobody runs.</summary>
internal class FakeHypervisor(string name, bool usable = true) : IHypervisor
{
    public string Name => name;
    public ProbeReport Probe() => new(name, usable, [], usable ? "works" : "does not work here");
    public IMachine CreateMachine(MachineOptions options) => throw new HypervisorException("nobody runs this");
}
