using Akka.Event;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>Makes one more device for a VM, beside the standard ones.</summary>
internal delegate DeviceUnit DeviceFactory(DeviceParts parts);

/// <summary>
/// One VM's run as its starter sees it: what was asked, and the two promises. It outlives the VM actor, whatever way that ends.
/// </summary>
internal sealed class VmRun(
    VmSpec spec, IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler, IGuestLoader loader,
    IReadOnlyList<DeviceFactory> devices)
{
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<VmOutcome> _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private VmParts? _unclaimed;
    private bool _closed;

    public VmSpec Spec { get; } = spec;
    public IHypervisor Hypervisor { get; } = hypervisor;
    public VmConsole Console { get; } = console;
    public IExitHandler? ExitHandler { get; } = exitHandler;
    public IGuestLoader Loader { get; } = loader;
    public IReadOnlyList<DeviceFactory> Devices { get; } = devices;

    /// <summary>The counters, once the machine is built. Any thread.</summary>
    public VmGauges? Gauges
    {
        get => Volatile.Read(ref field);
        set => Volatile.Write(ref field, value);
    }

    /// <summary>Completes when the guest runs; faults with the cause where it cannot be built.</summary>
    public TaskCompletionSource<IVmHandle> Started { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when nothing of the VM is left. Never faults.</summary>
    public Task<VmOutcome> Completion => _completion.Task;

    /// <summary>How it ended; the first word counts.</summary>
    public VmOutcome? Outcome
    {
        get;
        set => field ??= value;
    }

    /// <summary>Builds the machine on a pool thread. A machine that comes too late, after its VM has gone, is taken down here.</summary>
    public VmParts Build()
    {
        var parts = VmParts.Build(Spec, Hypervisor, Loader);
        lock (_lock)
        {
            if (!_closed) return _unclaimed = parts;
        }

        parts.Dispose();
        throw new OperationCanceledException("the VM was stopped while it was built");
    }

    /// <summary>The VM actor takes the machine over.</summary>
    public void Claim()
    {
        lock (_lock) _unclaimed = null;
    }

    /// <summary>The VM actor is gone, and its name is free again: keeps both promises.</summary>
    public void Finish(ILoggingAdapter log)
    {
        lock (_lock)
        {
            _closed = true;
            _unclaimed?.Dispose();
            _unclaimed = null;
        }

        Outcome = new VmOutcome(StopReason.Failed, "the VM's actor ended without a word", 0);
        var outcome = Outcome!;
        Started.TrySetException(new HypervisorException(outcome.Detail));
        if (_completion.Task.IsCompleted) return;
        // Told first: whoever waits for the completion may rely on the handler having heard.
        try { ExitHandler?.OnStopped(outcome); }
        catch (Exception cause) { log.Error(cause, "the exit handler of {0} failed in OnStopped", Spec.Name); }
        _completion.TrySetResult(outcome);
    }
}
