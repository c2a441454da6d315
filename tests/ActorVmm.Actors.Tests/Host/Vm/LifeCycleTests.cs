using Akka.Actor;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Actors.Tests.Host.Vm;

/// <summary>The one life-cycle protocol (Start, Stop, Reset, Save, Restore, Inspect), asked of everything that lives in a VM.</summary>
public sealed class LifeCycleTests : IDisposable
{
    private const string Root = "/user/host/vm";

    private readonly string _here = Directory.CreateTempSubdirectory("actorvmm-life-").FullName;

    public void Dispose() => Directory.Delete(_here, recursive: true);

    private static IEnumerator<VcpuExitKind> Computing(ScriptedVcpu cpu) { yield return cpu.ComputeForever(); }

    [Fact]
    public async Task Every_actor_of_a_running_vm_answers_every_question_of_the_protocol()
    {
        await using var fixture = new VmFixture();
        var hypervisor = new ScriptedHypervisor(Computing);
        var vm = await fixture.StartAsync(hypervisor, Everything());
        await vm.PauseAsync().WaitAsync(VmFixture.Patience);
        var (units, supervisors) = await LiveActorsAsync(fixture);
        Assert.Superset(
            (HashSet<string>)["bus", "events", "faults", "0", "1", "serial0", "i8042", "rtc", "power", "reset", "pvpanic", "blk0", "net0", "rng0"],
            units.Select(unit => unit.Path.Name).ToHashSet(StringComparer.Ordinal));

        foreach (var unit in units)
        {
            var name = unit.Path.Name;
            var saved = await AskAsync<UnitProtocol.Saved>(unit, UnitProtocol.Save.Instance);
            Assert.Equal(name, saved.Unit);
            await DoneAsync(unit, UnitProtocol.Stop.Instance);
            await DoneAsync(unit, UnitProtocol.Start.Instance);
            await DoneAsync(unit, UnitProtocol.Reset.Instance);
            await DoneAsync(unit, new UnitProtocol.Restore(saved.State));
            var again = await AskAsync<UnitProtocol.Saved>(unit, UnitProtocol.Save.Instance);
            Assert.Equal(saved.State?.GetType(), again.State?.GetType());
            var node = (await AskAsync<UnitProtocol.Inspected>(unit, UnitProtocol.Inspect.Instance)).Node;
            Assert.Equal(name, node.Name);
            Assert.NotEmpty(node.Values);
        }

        // What a supervisor is told, its children are told, and each of them answers the asker.
        foreach (var supervisor in supervisors)
        {
            var children = supervisor.Children.Select(child => child.Path.Name).ToHashSet(StringComparer.Ordinal);
            Assert.Equal(children, await GatherAsync<UnitProtocol.Saved>(fixture, supervisor, UnitProtocol.Save.Instance, s => s.Unit));
            foreach (var command in (object[])[UnitProtocol.Stop.Instance, UnitProtocol.Start.Instance, UnitProtocol.Reset.Instance])
                Assert.Equal(children, await GatherAsync<UnitProtocol.Done>(fixture, supervisor, command, done => done.Unit));
            var node = (await AskAsync<UnitProtocol.Inspected>(supervisor, UnitProtocol.Inspect.Instance)).Node;
            Assert.Equal(children, node.Children!.Select(child => child.Name).ToHashSet(StringComparer.Ordinal));
        }

        // Nothing of this has hurt: the VM goes on, can be pulsed, and ends as it is told to.
        await vm.ResumeAsync().WaitAsync(VmFixture.Patience);
        await VmFixture.EventuallyAsync(() => hypervisor.Machine!.Scripted.All(vcpu => vcpu.IsInside), "the guest goes on");
        await vm.PulseAsync().WaitAsync(VmFixture.Patience);
        vm.Stop();
        Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(VmFixture.Patience)).Reason);
    }

    [Fact]
    public async Task A_state_of_another_type_is_refused_by_every_device_and_nothing_changes()
    {
        await using var fixture = new VmFixture();
        var vm = await fixture.StartAsync(new ScriptedHypervisor(Computing), Everything());
        await vm.PauseAsync().WaitAsync(VmFixture.Patience);
        var (units, _) = await LiveActorsAsync(fixture);
        var devices = units.Where(unit => string.Equals(unit.Path.Parent.Name, "devices", StringComparison.Ordinal)).ToList();
        Assert.NotEmpty(devices);
        foreach (var device in devices)
        {
            var before = await AskAsync<UnitProtocol.Saved>(device, UnitProtocol.Save.Instance);
            foreach (var foreign in (object?[])["not a state", null])
            {
                var done = await AskAsync<UnitProtocol.Done>(device, new UnitProtocol.Restore(foreign));
                Assert.Equal(device.Path.Name, done.Unit);
                Assert.Contains("state", done.Refusal, StringComparison.Ordinal);
            }

            var after = await AskAsync<UnitProtocol.Saved>(device, UnitProtocol.Save.Instance);
            Assert.Equal($"{before.State}", $"{after.State}");
        }

        var supervisor = fixture.Host.System.ActorSelection($"{Root}/devices");
        Assert.NotNull((await supervisor.Ask<UnitProtocol.Done>(new UnitProtocol.Restore(null), VmFixture.Patience)).Refusal);
        var nobody = await supervisor.Ask<UnitProtocol.Done>(new DevicesProtocol.RestoreDevice("nobody", null), VmFixture.Patience);
        Assert.Equal("there is no such device", nobody.Refusal);
    }

    /// <summary>Two vCPUs and one of each device that a VM may have.</summary>
    private VmSpec Everything() => VmFixture.Spec(vcpus: 2) with
    {
        Disks = [new DiskSpec { Id = "disk", Path = DiskImages.Raw(_here, "disk.img", 1) }],
        Nets = [new NetSpec { Id = "net", Backend = new NetBackend.Own(static () => new ScriptedPackets()) }],
        Entropy = [new EntropySpec()],
    };

    private static async Task<(List<ActorRefWithCell> Units, List<ActorRefWithCell> Supervisors)> LiveActorsAsync(VmFixture fixture)
    {
        var (units, supervisors) = (new List<ActorRefWithCell>(), new List<ActorRefWithCell>());
        var vm = (ActorRefWithCell)await fixture.Host.System.ActorSelection(Root).ResolveOne(VmFixture.Patience);
        var waiting = new Queue<ActorRefWithCell>(vm.Children.Cast<ActorRefWithCell>());
        while (waiting.TryDequeue(out var actor))
        {
            (actor.Children.Any() ? supervisors : units).Add(actor);
            foreach (var child in actor.Children) waiting.Enqueue((ActorRefWithCell)child);
        }

        Assert.Equal(["devices", "vcpus"], supervisors.Select(actor => actor.Path.Name).Order(StringComparer.Ordinal));
        return (units, supervisors);
    }

    private static Task<T> AskAsync<T>(ICanTell unit, object question) => unit.Ask<T>(question, VmFixture.Patience);

    private static async Task DoneAsync(ActorRefWithCell unit, object command)
    {
        var done = await AskAsync<UnitProtocol.Done>(unit, command);
        Assert.Equal(unit.Path.Name, done.Unit);
        Assert.Null(done.Refusal);
    }

    /// <summary>As many answers as the supervisor has children.</summary>
    private static async Task<HashSet<string>> GatherAsync<T>(
        VmFixture fixture, ActorRefWithCell supervisor, object command, Func<T, string> nameOf)
    {
        using var inbox = Inbox.Create(fixture.Host.System);
        inbox.Send(supervisor, command);
        var names = new HashSet<string>(StringComparer.Ordinal);
        while (names.Count < supervisor.Children.Count())
            if (await inbox.ReceiveAsync(VmFixture.Patience) is T answer) Assert.True(names.Add(nameOf(answer)));
        return names;
    }
}
