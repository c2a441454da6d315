using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using Akka.Actor;
using Akka.Configuration;
using ActorVmm.Actors.Host;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Settings;
using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors;

/// <summary>The programmer's door to the actor system: starts VMs under <c>/user/host</c> and waits for them.</summary>
public interface IVmHost : IAsyncDisposable
{
    /// <summary>Builds and starts a VM; faults with the cause where it cannot be built.</summary>
    Task<IVmHandle> StartAsync(VmSpec spec, IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler = null);
}

/// <summary>A started VM.</summary>
public interface IVmHandle
{
    VmSpec Spec { get; }

    /// <summary>Completes when the VM has stopped, whatever way; never faults.</summary>
    Task<VmOutcome> Completion { get; }

    /// <summary>Stops the VM (power loss); <see cref="Completion"/> follows with <see cref="StopReason.Requested"/>.</summary>
    void Stop();

    /// <summary>Stops all vCPUs and the clock; completes when none runs.</summary>
    Task PauseAsync();

    /// <summary>Undoes <see cref="PauseAsync"/>. A device that waits for an operator (policy <c>pause</c>) is tried again.</summary>
    Task ResumeAsync();

    /// <summary>One more fault, at run time; completes when the rule is in force.</summary>
    /// <exception cref="ArgumentException">The rule is not sound; the message names the key.</exception>
    Task InjectAsync(FaultRule rule) => throw new NotSupportedException("this VM takes no faults at run time");

    /// <summary>Ends all faults: nothing fires any more.</summary>
    void HealFaults() => throw new NotSupportedException("this VM takes no faults at run time");

    /// <summary>
    /// Pauses, saves, resets, restores and resumes the VM in place, and gives the time that the guest stood still. A VM that was paused
    /// stays so.
    /// </summary>
    /// <exception cref="InvalidOperationException">The VM has ended, or a unit refused; the message says which.</exception>
    Task<TimeSpan> PulseAsync() => Task.FromException<TimeSpan>(new NotSupportedException("this VM has no pulse"));

    /// <summary>Presses a key that asks the guest to end in order. What it makes of it is its own affair; nothing is answered.</summary>
    void Press(PowerKey key) { }

    /// <summary>The counters as they are now, also after the end. Any thread.</summary>
    VmReadings Readings => VmReadings.None;

    /// <summary>Changes a virtio device while it runs, on its own thread; completes when it is changed.</summary>
    /// <param name="device">Actor name: <c>blk0</c>, ...</param>
    /// <param name="change"><see cref="DiskUpdate"/> for a disk, <see cref="NetUpdate"/> for a network interface.</param>
    /// <exception cref="InvalidOperationException">The device refuses or is not there, or the VM has ended.</exception>
    Task UpdateDeviceAsync(string device, object change) =>
        Task.FromException(new NotSupportedException("the devices of this VM cannot be changed while it runs"));

    /// <summary>What every unit of the VM says about itself, as a tree; one that does not answer in time is shown as unresolved.</summary>
    Task<InspectNode> InspectAsync();
}

/// <summary>VMs in an actor system: <c>/user/host</c> and what is below it.</summary>
public sealed class VmHost : IVmHost
{
    private readonly ActorSystem _system;
    private readonly bool _ownsSystem;
    private readonly IActorRef _host;
    private readonly IGuestLoader _loader;
    private readonly TimeSpan _patience;
    private readonly List<Task> _runs = [];
    private readonly Lock _lock = new();

    private VmHost(ActorSystem system, bool ownsSystem, IGuestLoader? loader)
    {
        var settings = ActorSettings.From(system.Settings.Config);
        system.Settings.InjectTopLevelFallback(ActorSettings.Shipped);
        _system = system;
        _ownsSystem = ownsSystem;
        _loader = loader ?? KernelLoader.Instance;
        _patience = settings.ControlDeadline;
        _host = system.ActorOf(HostActor.Props(settings), "host");
    }

    /// <summary>The actor system below which <c>/user/host</c> is.</summary>
    public ActorSystem System => _system;

    /// <summary>Akka's default logger writes to stdout, which belongs to the guests' consoles.</summary>
    private static Config Silent { get; } = ConfigurationFactory.ParseString("akka.loggers = []\n" + SilentLogger.Hocon);

    /// <summary>
    /// A host with an actor system of its own. It logs only where <c>akka.loggers</c> in <paramref name="config"/> says so.
    /// </summary>
    /// <param name="config">What <c>akka.hocon</c> says; keys that are missing take their shipped value.</param>
    /// <param name="loader">Puts the guest into its machine; the default reads the kernel that the <see cref="VmSpec"/> names.</param>
    /// <exception cref="ConfigurationException">An unknown key or a bad value; the message names it.</exception>
    public static VmHost Create(Config? config = null, IGuestLoader? loader = null) =>
        new(ActorSystem.Create("actorvmm", (config ?? Config.Empty).WithFallback(Silent).WithFallback(ActorSettings.Shipped)),
            ownsSystem: true, loader);

    /// <summary>A host in an existing actor system (one with its own logging, say), which stays when the host is disposed.</summary>
    /// <param name="system">May lack the <c>actorvmm</c> section: missing keys take their shipped value.</param>
    /// <param name="loader">As in <see cref="Create"/>.</param>
    /// <exception cref="ConfigurationException">An unknown key or a bad value; the message names it.</exception>
    public static VmHost Attach(ActorSystem system, IGuestLoader? loader = null)
    {
        ArgumentNullException.ThrowIfNull(system);
        return new VmHost(system, ownsSystem: false, loader);
    }

    /// <inheritdoc/>
    public Task<IVmHandle> StartAsync(VmSpec spec, IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler = null) =>
        StartAsync(spec, hypervisor, console, exitHandler, devices: []);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        _host.Tell(HostProtocol.StopAll.Instance);
        Task[] runs;
        lock (_lock) runs = [.. _runs];
        await Task.WhenAll(runs).ConfigureAwait(false);
        try
        {
            if (_ownsSystem) await _system.Terminate().WaitAsync(_patience).ConfigureAwait(false);
            else await _host.GracefulStop(_patience).ConfigureAwait(false);
        }
        catch (Exception late) when (late is TimeoutException or TaskCanceledException)
        {
            // Every VM has ended; a thread that is lost inside a hung device keeps its actor, and nobody waits for that.
        }
    }

    internal Task<IVmHandle> StartAsync(
        VmSpec spec, IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler, IReadOnlyList<DeviceFactory> devices)
    {
        ArgumentNullException.ThrowIfNull(spec);
        ArgumentNullException.ThrowIfNull(hypervisor);
        ArgumentNullException.ThrowIfNull(console);
        var run = new VmRun(spec, hypervisor, console, exitHandler, _loader, devices);
        lock (_lock)
        {
            _runs.RemoveAll(static done => done.IsCompleted);
            _runs.Add(run.Completion);
        }

        _host.Tell(new HostProtocol.StartVm(run));
        return run.Started.Task;
    }
}

/// <summary>A started VM, by messages to its actor.</summary>
internal sealed class VmHandle(VmRun run, IActorRef vm) : IVmHandle
{
    public VmSpec Spec => run.Spec;

    public Task<VmOutcome> Completion => run.Completion;

    public void Stop() => vm.Tell(VmProtocol.Stop.Instance);

    public Task PauseAsync() => AskAsync(static done => new VmProtocol.Pause(done));

    public Task ResumeAsync() => AskAsync(static done => new VmProtocol.Resume(done));

    public Task InjectAsync(FaultRule rule)
    {
        ArgumentNullException.ThrowIfNull(rule);
        if (rule.Problem() is var (key, reason)) throw new ArgumentException($"{key}: {reason}", nameof(rule));
        return AskAsync(done => new VmProtocol.Inject(rule, done));
    }

    public void HealFaults() => vm.Tell(VmProtocol.Heal.Instance);

    public void Press(PowerKey key) => vm.Tell(new VmProtocol.Press(key));

    public VmReadings Readings => run.Gauges?.Read() ?? VmReadings.None;

    public async Task<TimeSpan> PulseAsync()
    {
        var done = new TaskCompletionSource<TimeSpan>(TaskCreationOptions.RunContinuationsAsynchronously);
        vm.Tell(new VmProtocol.Pulse(done));
        if (await Task.WhenAny(done.Task, Completion).ConfigureAwait(false) == Completion)
            done.TrySetException(new InvalidOperationException($"{Spec.Name} has ended: {(await Completion.ConfigureAwait(false)).Text}"));
        return await done.Task.ConfigureAwait(false);
    }

    public async Task UpdateDeviceAsync(string device, object change)
    {
        ArgumentException.ThrowIfNullOrEmpty(device);
        if (Completion.IsCompleted)
            throw new InvalidOperationException($"{Spec.Name} has ended: {(await Completion.ConfigureAwait(false)).Text}");
        DeviceUpdated answer;
        try
        {
            answer = await new ActorSelection(vm, $"devices/{device}").Ask<DeviceUpdated>(new DeviceUpdate(change), TimeSpan.FromSeconds(30))
                .ConfigureAwait(false);
        }
        catch (AskTimeoutException late)
        {
            throw new InvalidOperationException($"{Spec.Name} has no {device} that answers", late);
        }
        if (answer.Refusal is { } refusal) throw new InvalidOperationException($"{device}: {refusal}");
    }

    public async Task<InspectNode> InspectAsync()
    {
        if (Completion.IsCompleted) return InspectNode.Unresolved(Spec.Name);
        using var over = new CancellationTokenSource();
        var answer = vm.Ask<UnitProtocol.Inspected>(UnitProtocol.Inspect.Instance, TimeSpan.FromSeconds(30), over.Token);
        // A VM that ends in the meantime answers nobody.
        if (await Task.WhenAny(answer, Completion).ConfigureAwait(false) == answer || answer.IsCompletedSuccessfully)
            return (await answer.ConfigureAwait(false)).Node;
        await over.CancelAsync().ConfigureAwait(false);
        return InspectNode.Unresolved(Spec.Name);
    }

    private async Task AskAsync(Func<TaskCompletionSource, object> command)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        vm.Tell(command(done));
        // A VM that ends in the meantime answers nobody.
        if (await Task.WhenAny(done.Task, Completion).ConfigureAwait(false) == Completion)
            done.TrySetException(new InvalidOperationException($"{Spec.Name} has ended: {(await Completion.ConfigureAwait(false)).Text}"));
        await done.Task.ConfigureAwait(false);
    }
}
