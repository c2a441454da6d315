using System.Text;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Queue;

/// <summary>A device that fails between any two steps of a request: nothing is lost, nothing answered twice, and the order holds.</summary>
public sealed class CrashTests
{
    private readonly List<(string Text, int Attempt)> _executed = [];

    public static TheoryData<CrashPoint, int, ulong> EveryPoint()
    {
        var all = new TheoryData<CrashPoint, int, ulong>();
        foreach (var point in Enum.GetValues<CrashPoint>())
            foreach (var after in (int[])[0, 1, 2])
                foreach (var features in (ulong[])[0, VirtioFeatures.EventIndex, VirtioFeatures.InOrder | VirtioFeatures.EventIndex])
                    all.Add(point, after, features);
        return all;
    }

    [Theory]
    [MemberData(nameof(EveryPoint))]
    public void Each_request_is_answered_once_wherever_the_device_fails(CrashPoint point, int after, ulong features)
    {
        using var rig = new VirtioRig<EchoDevice>(Make);
        rig.Driver.Start(features);
        var crash = new CrashAt(point, after);
        // A resubmission only happens after a failure: the first crash makes one.
        rig.Ledger.CrashHook = point == CrashPoint.Resubmitting ? new Both(new CrashAt(CrashPoint.RequestTaken), crash) : crash;

        // Publication happens once per message: three rounds pass each point three times.
        for (var round = 0; round < 3; round++)
        {
            var requests = Submit(rig, 3, $"r{round}");
            Assert.True(rig.Line.Asserted || rig.Driver.Rings[0].UsedIndex == rig.Driver.Rings[0].LastUsed);
            Expect(rig, requests);
        }

        Assert.True(crash.Crashes == 1 || point == CrashPoint.Resubmitting && after > 0, $"{point} was not reached {after + 1} times");
        Assert.Equal(0, rig.Mmio.Queue(0).InFlight);
        Assert.Equal(DeviceStatusOk, (uint)rig.Driver.Status);
    }

    [Theory]
    [MemberData(nameof(EveryPoint))]
    public void Completions_by_the_backend_survive_as_well(CrashPoint point, int after, ulong features)
    {
        using var rig = new VirtioRig<EchoDevice>(() => Make(hold: true));
        rig.Driver.Start(features);
        var crash = new CrashAt(point, after);
        rig.Ledger.CrashHook = crash;
        var requests = Submit(rig, 3, "h");
        for (var i = 0; i < 4 && rig.Mmio.Queue(0).InFlight > 0; i++) rig.Backend();
        rig.Ledger.CrashHook = null;
        Expect(rig, requests);
        Assert.Equal(0, rig.Mmio.Queue(0).InFlight);
    }

    [Fact]
    public void A_request_on_which_the_device_fails_twice_is_marked_as_suspect()
    {
        using var rig = new VirtioRig<EchoDevice>(Make);
        rig.Driver.Start();
        rig.Ledger.CrashHook = new CrashAt(CrashPoint.RequestDone, times: 2);
        Submit(rig, 1, "poison");
        Assert.Equal([1, 2, 3], _executed.Select(done => done.Attempt));
        Assert.Equal(2, rig.Restarts);
        Assert.Single(rig.Driver.Rings[0].Collect());
    }

    [Fact]
    public void The_answer_of_a_backend_to_the_failed_instance_is_dropped()
    {
        using var rig = new VirtioRig<EchoDevice>(() => Make(hold: true));
        rig.Driver.Start();
        Submit(rig, 2, "x");
        var stale = rig.Device.Held.ToArray();
        rig.Restart();
        rig.Mmio.Resume();
        Assert.Equal(2, rig.Device.Held.Count);
        Assert.Equal(stale.Select(id => id.Head), rig.Device.Held.Select(id => id.Head));
        Assert.All(stale, id => Assert.False(rig.Mmio.Queue(0).Complete(id, 1)));
        Assert.All(stale, id => Assert.False(rig.Mmio.Queue(0).TryFind(id, out _)));
        Assert.Equal(2, rig.Mmio.Queue(0).InFlight);
        rig.Backend();
        Assert.Equal(2, rig.Driver.Rings[0].Collect().Count);
    }

    [Fact]
    public void Requests_in_flight_come_again_in_their_order_and_before_new_ones()
    {
        using var rig = new VirtioRig<EchoDevice>(() => Make(hold: true));
        rig.Driver.Start();
        Submit(rig, 4, "a");
        var second = rig.Device.Held[1];
        rig.Device.Finish(second);
        Submit(rig, 1, "b");
        rig.Restart();
        Submit(rig, 1, "c");
        _executed.Clear();
        rig.Backend();
        Assert.Equal(["a0", "a2", "a3", "b0", "c0"], _executed.Select(done => done.Text));
        Assert.Equal([2, 2, 2, 2, 1], _executed.Select(done => done.Attempt));
    }

    [Fact]
    public void State_of_the_device_type_reaches_the_fresh_instance()
    {
        using var rig = new VirtioRig<EchoDevice>(Make);
        rig.Driver.Start();
        rig.Write(0x100, 1, 0x5A);
        rig.Restart();
        Assert.Equal(0x5AUL, rig.Read(0x100, 1));
    }

    [Fact]
    public void Plain_registers_answer_although_the_device_cannot_take_up_its_work()
    {
        using var rig = new VirtioRig<EchoDevice>(Make);
        rig.Driver.Start();
        rig.Ledger.CrashHook = new CrashAt(CrashPoint.RequestTaken, times: 2);
        rig.Driver.Rings[0].Add(rig.Driver.Readable("x"u8), rig.Driver.Writable(1));
        rig.Driver.Kick(0);
        rig.Ledger.CrashHook = new CrashAt(CrashPoint.Resubmitting, times: int.MaxValue);
        rig.Restart();
        Assert.Equal(DeviceStatusOk, (uint)rig.Driver.Status);
        rig.Driver.Write(MmioRegister.QueueSel, 0);
        Assert.Equal(1u, rig.Driver.Read(MmioRegister.QueueReady));
        rig.Driver.HandleInterrupt();
        Assert.Equal(2u, rig.Driver.Read(MmioRegister.Version));
        // The driver may still reset it: its requests are then forgotten.
        rig.Driver.Start();
        Assert.Equal(0, rig.Mmio.Queue(0).InFlight);
    }

    [Fact]
    public void A_driver_that_has_seen_answers_the_ledger_does_not_know_of_is_not_taken_for_a_hostile_one()
    {
        using var rig = new VirtioRig<EchoDevice>(Make);
        rig.Driver.Start(0);
        rig.Ledger.CrashHook = new CrashAt(CrashPoint.IndexPublished, times: 3);
        Submit(rig, 8, "a"); // published, and the device fails each time before it has written that down
        Assert.Equal(0UL, rig.Ledger.Queues[0].Published);
        rig.Ledger.CrashHook = null;
        Assert.Equal(8, rig.Driver.Rings[0].Collect().Count);
        var more = Submit(rig, 8, "b"); // a full ring of new requests
        Assert.Equal(QueueFault.None, rig.Mmio.Queue(0).Fault);
        Expect(rig, more);
    }

    [Fact]
    public void Nothing_is_allocated_per_request()
    {
        using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(64));
        var (mmio, driver) = (rig.Mmio, new VirtioDriver(rig.Mmio, rig.Memory, room: 0x80_0000));
        driver.Start();
        GuestBuffer[] request = [driver.Readable(new byte[16]), driver.Writable(16)];
        long Requests(int rounds)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var round = 0; round < rounds; round++)
            {
                for (var i = 0; i < 8; i++) driver.Rings[0].Add(request);
                driver.Kick(0);
                driver.HandleInterrupt();
                while (driver.Rings[0].TryCollect(out _)) { }
            }

            return GC.GetAllocatedBytesForCurrentThread() - before;
        }

        Requests(200); // each head's chain is made once
        Assert.Equal(0, Requests(2_000));
        Assert.Equal(8UL * 2_200, mmio.Queue(0).Ledger.Published);
    }

    private const uint DeviceStatusOk = 0xF;

    private EchoDevice Make() => Make(hold: false);

    private EchoDevice Make(bool hold) =>
        new(32) { Features = VirtioFeatures.InOrder, Executed = _executed, Hold = hold };

    private static List<(int Head, string Text, GuestBuffer Answer)> Submit(VirtioRig<EchoDevice> rig, int count, string name)
    {
        var requests = new List<(int, string, GuestBuffer)>();
        for (var i = 0; i < count; i++)
        {
            var text = $"{name}{i}";
            var answer = rig.Driver.Writable((uint)text.Length);
            requests.Add((rig.Driver.Rings[0].Add(rig.Driver.Readable(Encoding.ASCII.GetBytes(text)), answer), text, answer));
        }

        rig.Driver.Kick(0);
        return requests;
    }

    private static void Expect(VirtioRig<EchoDevice> rig, List<(int Head, string Text, GuestBuffer Answer)> requests)
    {
        rig.Driver.HandleInterrupt();
        var used = rig.Driver.Rings[0].Collect(); // throws for a head that was not in flight
        Assert.Equal(requests.Select(request => (uint)request.Head), used.Select(element => element.Head));
        foreach (var ((_, text, answer), element) in requests.Zip(used))
        {
            Assert.Equal((uint)text.Length, element.Written);
            Assert.Equal(text, Encoding.ASCII.GetString(rig.Driver.Bytes(answer)));
        }
    }

    private sealed class Both(ICrashHook first, ICrashHook second) : ICrashHook
    {
        public void Reached(CrashPoint point, int queue, ushort head)
        {
            first.Reached(point, queue, head);
            second.Reached(point, queue, head);
        }
    }
}
