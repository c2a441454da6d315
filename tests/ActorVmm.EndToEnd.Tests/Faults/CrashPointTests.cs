using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Faults;

/// <summary>
/// Each device of a whole VM crashes once at each of its crash points. A point that nothing reaches, a device that is not attached to the
/// plan, and a device that nobody has thought of here fail.
/// </summary>
public sealed class CrashPointTests
{
    private const string Again = "resubmitting";
    private const string Taken = "request-taken";

    /// <summary>What the guest does with a device.</summary>
    /// <param name="Begin">Starts its driver; the result does one piece of work and says what the guest has seen.</param>
    /// <param name="GivenUp">What it sees of a request on which the device has failed twice; null for devices without queues.</param>
    private sealed record Work(Func<FaultVm, Func<string>> Begin, string? GivenUp = null);

    private static readonly Dictionary<string, Work> s_works = new(StringComparer.Ordinal)
    {
        ["serial0"] = new(vm => () => Print(vm)),
        ["i8042"] = new(vm => () => $"{vm.Guest.In(0x64):x}"),
        ["rtc"] = new(vm => () => $"{Rtc(vm, 0x0D):x}"),
        ["power"] = new(vm => () => $"{vm.Guest.In(0x600, 2):x}"),
        ["reset"] = new(vm => () => $"{vm.Guest.In(0xCF9):x}"),
        ["pvpanic"] = new(vm => () => $"{vm.Guest.Read(0xFED4_0000, 1):x}"),
        ["blk0"] = new(Disk, GivenUp: "IoError, another content"),
        ["net0"] = new(Net, GivenUp: "answered once, not sent"),
        ["rng0"] = new(Entropy, GivenUp: "0 bytes, once"),
    };

    public static TheoryData<string> Devices => [.. s_works.Keys];

    [Theory, MemberData(nameof(Devices))]
    public async Task A_device_crashes_at_every_point_and_the_guest_sees_what_it_saw_before(string device)
    {
        var work = s_works[device];
        var points = FaultPoints.All.Take(work.GivenUp is null ? 4 : FaultPoints.All.Count).ToArray();
        var rules = points.Select((point, number) => Crash(point, point, number, device)).ToList();
        // A request is only taken up again where the device failed after it was taken.
        var again = Array.IndexOf(points, Again);
        if (again >= 0) rules.Add(Crash("before", Taken, again, device));

        await using var vm = await FaultVm.StartAsync(rules);
        Assert.Equal(s_works.Keys.Order(StringComparer.Ordinal), vm.Devices.Order(StringComparer.Ordinal));
        await Task.Run(() => // the guest's accesses are waited for
        {
            var does = work.Begin(vm);
            var usual = does();
            for (var number = 0; number < points.Length; number++)
            {
                foreach (var letter in Marker(number)) vm.Guest.OutNow(0x3F8, (byte)letter);
                Assert.Equal(number == again ? $"{points[number]}: {work.GivenUp}" : $"{points[number]}: {usual}", $"{points[number]}: {does()}");
            }

            Assert.Equal(usual, does()); // and the last one is over
        });

        Assert.Equal(rules.Select(static rule => (rule.Name, rule.Point)).Order(),
            vm.Firings.Select(static firing => (firing.Rule, firing.Happening.Point)).Order());
        Assert.Equal(rules.Count, vm.Restarts(device));
    }

    [Fact]
    public void Every_point_of_the_queue_has_its_name_in_plans()
    {
        static string Kebab(string name) => string.Concat(name.Select((letter, at) => char.IsUpper(letter) && at > 0 ? $"-{letter}" : $"{letter}"));
        var names = Enum.GetNames<CrashPoint>().Select(static name => Kebab(name).ToLowerInvariant());
        Assert.Equal([FaultPoints.Entered, FaultPoints.Handled, FaultPoints.Stored, FaultPoints.EffectsOut, .. names], FaultPoints.All);
    }

    /// <summary>Each begins to wait when the guest comes to its piece of work.</summary>
    private static FaultRule Crash(string name, string point, int number, string device) => new()
    {
        Kind = FaultKind.ActorCrash, Name = name, Device = device, Point = point, Times = 1, AfterConsole = Marker(number),
    };

    private static string Marker(int number) => $"<{(char)('a' + number)}>";

    private static string Print(FaultVm vm)
    {
        var before = vm.Console.Output;
        foreach (var letter in "xyz") vm.Guest.OutNow(0x3F8, (byte)letter);
        return vm.Console.Output[before.Length..];
    }

    private static ulong Rtc(FaultVm vm, byte register)
    {
        vm.Guest.OutNow(0x70, register);
        return vm.Guest.In(0x71);
    }

    private static Func<string> Disk(FaultVm vm)
    {
        var disk = vm.StartDisk();
        byte content = 0;
        return () =>
        {
            var bytes = new byte[1024];
            Array.Fill(bytes, ++content);
            var write = disk.AddOut(BlockRequestType.Out, 8, bytes);
            Answer(vm, disk.Driver, 0);
            var read = disk.AddIn(BlockRequestType.In, 8, 1024);
            Answer(vm, disk.Driver, 0);
            Assert.Equal(BlockStatus.Ok, disk.Status(read));
            return $"{disk.Status(write)}, {(disk.Driver.Bytes(read.Data).SequenceEqual(bytes) ? "the same content" : "another content")}";
        };
    }

    private static Func<string> Net(FaultVm vm)
    {
        const int Transmit = 1;
        var net = vm.StartNet();
        var length = 60;
        return () =>
        {
            length++;
            net.Rings[Transmit].Add(net.Readable(new byte[PacketHeader.Length + length]));
            Answer(vm, net, Transmit);
            // A packet that was on its way when the device failed goes out once more, as networks may do; its buffer comes back once.
            return $"answered once, {(vm.Packets.Sent.Exists(packet => packet.Bytes.Length == PacketHeader.Length + length) ? "sent" : "not sent")}";
        };
    }

    private static Func<string> Entropy(FaultVm vm)
    {
        var entropy = vm.StartEntropy();
        return () =>
        {
            entropy.Rings[0].Add(entropy.Writable(8));
            return $"{Answer(vm, entropy, 0)} bytes, once";
        };
    }

    /// <summary>Rings, waits for the answer, and sees that it is the only one.</summary>
    /// <returns>Bytes written.</returns>
    private static uint Answer(FaultVm vm, VirtioDriver driver, int queue)
    {
        driver.Rings[queue].Publish();
        driver.Ring(queue); // in any case: a crash at the doorbell is a point too
        UsedBuffer used = default;
        Assert.NotEqual("never", vm.When(() => driver.Rings[queue].TryCollect(out used), most: 500));
        driver.HandleInterrupt();
        Assert.False(driver.Rings[queue].TryCollect(out _));
        return used.Written;
    }
}
