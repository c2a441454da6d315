using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Backends.Disks;
using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>
/// The real devices in a whole VM, driven by a guest's own few instructions: the same bytes on the disk, packets out and in, and answers
/// under each hypervisor, also while the device's actor crashes again and again.
/// </summary>
public abstract class DeviceConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    // Writes of the guest to a device's registers while it is initialized (VirtioCode.InitializeVirtio).
    private const int Setup = 7, SetupOfQueue = 6, SetupOfFeatures = 2;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(Nightly.Count(60, 900));
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("actorvmm-test-");

    /// <summary>True where notifications end in an event file descriptor.</summary>
    protected abstract bool HasDoorbells { get; }

    [SkippableTheory]
    [InlineData(IoEngine.Sync), InlineData(IoEngine.Async)]
    public async Task A_disk_that_a_guest_writes_and_reads_back_has_its_bytes_on_the_host(IoEngine engine)
    {
        Needs();
        var rounds = (int)Nightly.Count(200, 20_000);
        await using var vm = await RunBlockAsync(Subject.Hypervisor, rounds, engine, FaultPlan.None);
        Assert.Equal([], WrongRounds(vm));
        Assert.Equal((ulong)rounds, vm.Reports[0]);
        Assert.InRange(vm.Reports[1], (ulong)rounds, (ulong)(rounds * BlockGuest.Requests));
        AssertNotified(vm, "blk0", Setup + SetupOfFeatures + SetupOfQueue, notifications: rounds, queues: 1);
        await AssertImageAsync(rounds);
    }

    [SkippableFact]
    public async Task A_network_interface_sends_what_the_guest_sends_and_brings_the_answers()
    {
        Needs();
        var rounds = (int)Nightly.Count(200, 20_000);
        using var packets = new AnsweringPackets();
        var spec = TinyVm.Spec with { Nets = [new NetSpec { Id = "net", Mac = NetGuest.Mac, Backend = new NetBackend.Own(() => packets) }] };
        await using var vm = await RunAsync(Subject.Hypervisor, spec, (guest, place) => NetGuest.Load(guest, place.Window, place.Gsi, rounds));
        Assert.Equal((ulong)rounds, vm.Reports[0]);
        Assert.InRange(vm.Reports[1], (ulong)rounds, (ulong)(rounds * 2));
        Assert.Equal(rounds, packets.Sent.Count);
        for (var round = 1; round <= rounds; round++) Assert.Equal(NetGuest.Frame(round), packets.Sent[round - 1]);
        AssertNotified(vm, "net0", Setup + (2 * SetupOfQueue), notifications: rounds * 2, queues: 3); // with the control queue
    }

    [SkippableFact]
    public async Task An_entropy_device_gives_what_it_is_asked_for_and_never_the_same_twice()
    {
        Needs();
        var rounds = (int)Nightly.Count(200, 20_000);
        var spec = TinyVm.Spec with { Entropy = [new EntropySpec()] };
        await using var vm = await RunAsync(Subject.Hypervisor, spec, (guest, place) => EntropyGuest.Load(guest, place.Window, place.Gsi, rounds));
        Assert.Equal([(ulong)rounds, (ulong)rounds], vm.Reports);
        AssertNotified(vm, "rng0", Setup + SetupOfQueue, notifications: rounds, queues: 1);
    }

    [SkippableTheory]
    [InlineData(IoEngine.Sync), InlineData(IoEngine.Async)]
    public async Task A_guest_does_not_notice_that_its_disk_crashes_again_and_again_at_every_place(IoEngine engine)
    {
        Needs();
        // A round passes about forty places in the device. The one left out is that of a second try, which is not repeated: the request
        // is then answered with an error.
        string[] points = [.. FaultPoints.All.Where(static point => point != "resubmitting").Order(StringComparer.Ordinal)];
        var rounds = (int)Nightly.Count(600, 20_000);
        var least = (int)Nightly.Count(300, 10_000);
        var plan = new FaultPlan(1, [.. points.Select(point => new FaultRule
        {
            Kind = FaultKind.ActorCrash, Name = point, Device = "blk0", Point = point, Every = 53, SpareRetry = true,
        })]);
        await using var vm = await RunBlockAsync(Subject.Hypervisor, rounds, engine, plan);
        Assert.Equal([], WrongRounds(vm));
        Assert.Equal((ulong)rounds, vm.Reports[0]);
        Assert.True(vm.Firings.Count >= least, $"{vm.Firings.Count} crashes");
        Assert.Equal(points, vm.Firings.Select(firing => firing.Rule).Distinct().Order(StringComparer.Ordinal));
        Assert.Equal(vm.Firings.Count, vm.Number("blk0", "restarts"));
        await AssertImageAsync(rounds);
    }

    [SkippableFact]
    public async Task A_plan_fires_at_the_same_requests_in_every_run_and_under_every_hypervisor()
    {
        Needs();
        const int rounds = 160;
        FaultRule Rule(FaultKind kind, string name) => new() { Kind = kind, Name = name, Device = "blk0" };
        var plan = new FaultPlan(42,
        [
            Rule(FaultKind.BlockEio, "seventh") with { Nth = 7 },
            Rule(FaultKind.BlockEio, "writes") with { Direction = "write", Nth = 20, Every = 31, Times = 3 },
            Rule(FaultKind.BlockEio, "sectors") with { Direction = "read", First = 101, Last = 120 },
            Rule(FaultKind.BlockReadCorruption, "by-chance") with { Probability = 0.2 },
            Rule(FaultKind.ActorCrash, "crash") with { Point = "request-taken", Nth = 40, Every = 40, SpareRetry = true },
        ]);
        var reference = await FiringsAsync(new SoftHypervisor());
        foreach (var rule in plan.Rules) Assert.Contains(reference.Firings, firing => firing.Contains($" {rule.Name} ", StringComparison.Ordinal));
        for (var run = 0; run < 3; run++)
        {
            var (firings, guest) = await FiringsAsync(Subject.Hypervisor);
            Assert.Equal(reference.Firings, firings);
            Assert.Equal(reference.Guest, guest); // which rounds were wrong, and each request's status in them
        }

        async Task<(string[] Firings, ulong[] Guest)> FiringsAsync(IHypervisor hypervisor)
        {
            await using var vm = await RunBlockAsync(hypervisor, rounds, IoEngine.Sync, plan);
            string Line(FaultFiring f) =>
                string.Create(CultureInfo.InvariantCulture, $"{f.Number}: {f.Rule} {f.Kind} request {f.Request} {f.Happening} {f.Outcome}");
            return ([.. vm.Firings.Select(Line)], [.. vm.Reports.SkipLast(1)]);
        }
    }

    private async Task<TinyVm> RunBlockAsync(IHypervisor hypervisor, int rounds, IoEngine engine, FaultPlan plan)
    {
        await File.WriteAllBytesAsync(Image, BlockGuest.Before());
        var spec = TinyVm.Spec with { Faults = plan, Disks = [new DiskSpec { Id = "disk", Path = Image, Writeback = true, Engine = engine }] };
        return await RunAsync(hypervisor, spec, (guest, place) => BlockGuest.Load(guest, place.Window, place.Gsi, rounds));
    }

    private static Task<TinyVm> RunAsync(IHypervisor hypervisor, VmSpec spec, Action<TinyGuest, (ulong Window, int Gsi)> program)
    {
        var place = Assert.Single(VirtioPlan.Of(spec)).Slot;
        return TinyVm.RunAsync(hypervisor, spec, guest => program(guest, (place.Address.Value, place.Gsi)), s_patience);
    }

    private static IEnumerable<string> WrongRounds(TinyVm vm) =>
        vm.Reports.SkipLast(2).Select(report => string.Create(CultureInfo.InvariantCulture, $"0x{report:x16}"));

    private string Image => Path.Combine(_directory.FullName, "disk");

    private async Task AssertImageAsync(int rounds) => Assert.Equal(BlockGuest.After(rounds), await File.ReadAllBytesAsync(Image));

    /// <summary>What left the guest as a write: setup, one acknowledgement per interrupt, and doorbells only where there are none.</summary>
    private void AssertNotified(TinyVm vm, string device, int setup, int notifications, int queues)
    {
        var line = vm.Tree.Split('\n').Single(line => line.Contains($"{device} reads", StringComparison.Ordinal));
        var writes = int.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture);
        var expected = setup + (int)vm.Reports[1] + (HasDoorbells ? 0 : notifications);
        Assert.InRange(writes, expected, expected + 1); // one interrupt may come after the guest has said how many came
        Assert.Equal(HasDoorbells ? queues : 0, vm.Number(device, "doorbells"));
    }

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        _directory.Delete(recursive: true);
    }
}
