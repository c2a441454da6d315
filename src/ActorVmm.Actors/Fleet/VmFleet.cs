using System.Collections.Concurrent;
using System.Globalization;
using Akka.Actor;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Devices.Faults;

namespace ActorVmm.Actors.Fleet;

/// <summary>
/// The programmer's door to a fleet: VMs by name that are kept as their definitions say. Every method may be called at any time and from
/// any
/// thread; commands to the same VM are carried out one after the other.
/// </summary>
public sealed class VmFleet
{
    private readonly ConcurrentDictionary<string, ManagedVm> _board = new(StringComparer.Ordinal);
    private readonly IActorRef _fleet;
    private readonly ActorSystem _system;

    /// <param name="system">Where <c>/user/fleet</c> is made.</param>
    /// <param name="host">Runs the VMs; stays with its owner.</param>
    /// <param name="limits">Of the host; null for the default.</param>
    /// <param name="time">The clock of statuses and events; null for the system's.</param>
    public VmFleet(ActorSystem system, IVmHost host, FleetLimits? limits = null, TimeProvider? time = null)
    {
        ArgumentNullException.ThrowIfNull(system);
        ArgumentNullException.ThrowIfNull(host);
        _system = system;
        Limits = limits ?? new FleetLimits();
        Journal = new FleetJournal(time ?? TimeProvider.System);
        _fleet = system.ActorOf(FleetActor.Props(new FleetParts(host, _board, Journal, Limits, time ?? TimeProvider.System)), "fleet");
    }

    /// <summary>What has happened.</summary>
    public FleetJournal Journal { get; }

    /// <summary>Of the host.</summary>
    public FleetLimits Limits { get; }

    /// <summary>All VMs, by name.</summary>
    public IReadOnlyList<ManagedVm> All => [.. _board.Values.OrderBy(vm => vm.Name, StringComparer.Ordinal)];

    /// <summary>The VM of that name, or null.</summary>
    public ManagedVm? Find(string name) => _board.GetValueOrDefault(name);

    /// <summary>The VM of that name.</summary>
    /// <exception cref="FleetException">There is none.</exception>
    public ManagedVm Get(string name) =>
        Find(name) ?? throw new FleetException(FleetFault.NotFound, $"there is no VM named {name}");

    /// <summary>Adds a VM; it is stopped.</summary>
    /// <param name="definition">What it is.</param>
    /// <param name="replace">One of that name gets the definition instead; it takes effect with its next start.</param>
    /// <exception cref="FleetException">The name is taken, or a limit of the host is reached.</exception>
    public async Task<VmStatus> DefineAsync(VmDefinition definition, bool replace = false)
    {
        ArgumentNullException.ThrowIfNull(definition);
        var known = replace ? Find(definition.Spec.Name) : null;
        var done = Promise();
        _fleet.Tell(new FleetProtocol.Define(definition, replace, done));
        // One that is removed in the meantime answers nobody.
        if (known is not null && await Task.WhenAny(done.Task, known.Removed).ConfigureAwait(false) == known.Removed)
            done.TrySetException(new FleetException(FleetFault.NotFound, $"{definition.Spec.Name} has been removed"));
        return await done.Task.ConfigureAwait(false);
    }

    /// <summary>Forgets a VM.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="force">One that runs is killed first.</param>
    /// <exception cref="FleetException">There is none, or it runs.</exception>
    public async Task<VmStatus> RemoveAsync(string name, bool force = false)
    {
        var vm = Get(name);
        var done = Promise();
        _fleet.Tell(new FleetProtocol.Remove(name, force, done));
        // Two at the same time: the one that comes second may find a keeper that answers nobody any more. What it wanted is done.
        if (await Task.WhenAny(done.Task, vm.Removed).ConfigureAwait(false) == vm.Removed) done.TrySetResult(vm.Status);
        return await done.Task.ConfigureAwait(false);
    }

    /// <summary>Starts a VM; completes when its guest runs. One that runs already is left alone.</summary>
    /// <exception cref="FleetException">There is none, or it cannot be built; the message says why.</exception>
    public Task<VmStatus> StartAsync(string name) => Tell(name, static done => new FleetProtocol.Start(done));

    /// <summary>Asks the guest to end in order, and cuts its power at the deadline; completes when it has ended.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="deadline">Instead of its definition's; zero cuts the power at once.</param>
    public Task<VmStatus> StopAsync(string name, TimeSpan? deadline = null) => Tell(name, done => new FleetProtocol.Stop(deadline, done));

    /// <summary>Power loss; completes when it has ended.</summary>
    public Task<VmStatus> KillAsync(string name) => Tell(name, static done => new FleetProtocol.Kill(done));

    /// <summary>Stops and starts a VM; completes when its guest runs again.</summary>
    public Task<VmStatus> RestartAsync(string name, TimeSpan? deadline = null) =>
        Tell(name, done => new FleetProtocol.Restart(deadline, done));

    /// <summary>Stops vCPUs and clock.</summary>
    /// <exception cref="FleetException">It does not run.</exception>
    public Task<VmStatus> PauseAsync(string name) => Tell(name, static done => new FleetProtocol.Pause(done));

    /// <summary>Undoes <see cref="PauseAsync"/>.</summary>
    /// <exception cref="FleetException">It is not paused.</exception>
    public Task<VmStatus> ResumeAsync(string name) => Tell(name, static done => new FleetProtocol.Resume(done));

    /// <summary>Pauses, saves, resets, restores and resumes a VM in place; gives the time that its guest stood still.</summary>
    public async Task<TimeSpan> PulseAsync(string name)
    {
        var vm = Get(name);
        if (vm.Status.State is not (VmState.Running or VmState.Paused) || vm.Handle is not { } handle)
            throw new FleetException(FleetFault.Conflict, $"{name} is {Word(vm.Status.State)}: a pulse needs one that runs");
        try
        {
            var pause = await handle.PulseAsync().ConfigureAwait(false);
            Journal.Append(name, "pulse", $"stood still for {pause.TotalMilliseconds:0.###} ms");
            return pause;
        }
        catch (InvalidOperationException refused)
        {
            throw new FleetException(FleetFault.Failed, refused.Message, refused);
        }
    }

    /// <summary>Puts the cable of a network interface in, or pulls it; completes when its device has been told.</summary>
    /// <param name="name">Name of the VM.</param>
    /// <param name="device">Actor name of the interface: <c>net0</c>, ...</param>
    /// <param name="up">False pulls it. It stays so until it is changed, or the VM is started anew.</param>
    /// <exception cref="FleetException">There is no such VM or interface, or it does not run.</exception>
    public async Task SetLinkAsync(string name, string device, bool up)
    {
        var vm = Get(name);
        if (vm.Status.State is not (VmState.Running or VmState.Paused) || vm.Handle is not { } handle)
            throw new FleetException(FleetFault.Conflict, $"{name} is {Word(vm.Status.State)}: only one that runs has cables");
        string[] nets = [.. handle.Spec.Nets.Select(static (_, index) => string.Create(CultureInfo.InvariantCulture, $"net{index}"))];
        if (!nets.Contains(device, StringComparer.Ordinal))
            throw new FleetException(FleetFault.NotFound,
                $"{name} has no network interface {device}; it has {(nets.Length == 0 ? "none" : string.Join(", ", nets))}");
        try
        {
            await handle.UpdateDeviceAsync(device, new NetUpdate(Plugged: up)).ConfigureAwait(false);
        }
        catch (InvalidOperationException refused)
        {
            throw new FleetException(FleetFault.Failed, refused.Message, refused);
        }

        Journal.Append(name, "link", $"{device} {(up ? "up" : "down")}");
    }

    /// <summary>One more fault in a VM that runs.</summary>
    /// <exception cref="FleetException">It does not run.</exception>
    public async Task InjectAsync(string name, FaultRule rule)
    {
        ArgumentNullException.ThrowIfNull(rule);
        var vm = Get(name);
        if (vm.Status.State is not (VmState.Running or VmState.Paused) || vm.Handle is not { } handle)
            throw new FleetException(FleetFault.Conflict, $"{name} is {Word(vm.Status.State)}: a fault needs a VM that runs");
        try
        {
            await handle.InjectAsync(rule).ConfigureAwait(false);
            Journal.Append(name, "fault", $"injected: {rule}");
        }
        catch (InvalidOperationException refused)
        {
            throw new FleetException(FleetFault.Failed, refused.Message, refused);
        }
    }

    /// <summary>Ends all faults of a VM that runs.</summary>
    /// <exception cref="FleetException">It does not run.</exception>
    public void Heal(string name)
    {
        var vm = Get(name);
        if (vm.Status.State is not (VmState.Running or VmState.Paused) || vm.Handle is not { } handle)
            throw new FleetException(FleetFault.Conflict, $"{name} is {Word(vm.Status.State)}: there is nothing to heal");
        handle.HealFaults();
        Journal.Append(name, "fault", "all faults end");
    }

    /// <summary>The tree of a VM that runs, or what is known of one that does not.</summary>
    public async Task<InspectNode> InspectAsync(string name)
    {
        var vm = Get(name);
        return vm.Handle is { Completion.IsCompleted: false } handle
            ? await handle.InspectAsync().ConfigureAwait(false)
            : KeeperActor.Describe(vm);
    }

    /// <summary>Every actor of this process that answers, from <c>/user</c> down.</summary>
    public async Task<InspectNode> InspectAllAsync(TimeSpan deadline)
    {
        var units = await Task.WhenAll(
            AskAsync(_fleet, "fleet", deadline),
            AskAsync(_system.ActorSelection("/user/host"), "host", deadline)).ConfigureAwait(false);
        return new InspectNode("user", new SortedDictionary<string, string>(StringComparer.Ordinal), units);
    }

    /// <summary>True where the fleet's actor answers in time: what a watchdog wants to know.</summary>
    public async Task<bool> AnswersAsync(TimeSpan deadline) =>
        (await AskAsync(_fleet, "fleet", deadline).ConfigureAwait(false)).Values.ContainsKey("vms");

    /// <summary>A state as people and programs read it.</summary>
    public static string Word(VmState state) => KeeperActor.Word(state);

    private static async Task<InspectNode> AskAsync(ICanTell unit, string name, TimeSpan deadline)
    {
        try
        {
            return (await unit.Ask<UnitProtocol.Inspected>(UnitProtocol.Inspect.Instance, deadline).ConfigureAwait(false)).Node;
        }
        catch (Exception late) when (late is AskTimeoutException or OperationCanceledException or TimeoutException)
        {
            return InspectNode.Unresolved(name);
        }
    }

    private async Task<VmStatus> Tell(string name, Func<TaskCompletionSource<VmStatus>, object> command)
    {
        var vm = Get(name);
        var done = Promise();
        vm.Keeper.Tell(command(done));
        // A VM that is removed in the meantime answers nobody.
        if (await Task.WhenAny(done.Task, vm.Removed).ConfigureAwait(false) == vm.Removed)
            done.TrySetException(new FleetException(FleetFault.NotFound, $"{name} has been removed"));
        return await done.Task.ConfigureAwait(false);
    }

    private static TaskCompletionSource<VmStatus> Promise() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
