using System.Diagnostics;
using System.Globalization;
using System.Numerics;
using System.Text;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Memory;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Faults;

/// <summary>
/// Every kind of fault in a whole VM: the same guest's story with a rule for it and without. With it the trace has the firing and the guest
/// sees what is said here; without it nothing fires and the guest sees what it should.
/// </summary>
public sealed class EveryFaultTests
{
    /// <summary>One kind.</summary>
    /// <param name="Rule">How it is planned.</param>
    /// <param name="Story">What the guest does, and then sees, in words.</param>
    /// <param name="Sees">What it sees where the fault is planned; ends with <c>*</c> where the rest is drawn.</param>
    /// <param name="Else">What it sees otherwise.</param>
    private sealed record Row(FaultRule Rule, Func<FaultVm, Task<string>> Story, string Sees, string Else)
    {
        /// <summary>Rules that are there in both runs.</summary>
        public IReadOnlyList<FaultRule> Always { get; init; } = [];
    }

    private const string Wrote = "write Ok at once, flush Ok, read Ok ab ab; on the disk ab ab, 2 sectors in use";

    private static readonly Row[] s_rows =
    [
        new(On(FaultKind.BlockEio, "blk0") with { Direction = "write", Nth = 1 }, WriteAndReadAsync,
            "write IoError at once, flush Ok, read Ok 00 00; on the disk 00 00, 0 sectors in use", Wrote),
        new(On(FaultKind.BlockEnospc, "blk0"), WriteAndReadAsync,
            "write IoError at once, flush Ok, read Ok 00 00; on the disk 00 00, 0 sectors in use", Wrote),
        new(On(FaultKind.BlockDiskFull, "blk0") with { Nth = 2 }, WriteThreeTimesAsync, "Ok IoError IoError, read Ok", "Ok Ok Ok, read Ok"),
        new(On(FaultKind.BlockLatency, "blk0") with { Direction = "write", Delay = 20 * FaultVm.NanosecondsPerStep }, WriteAndReadAsync,
            Wrote.Replace("at once", "later", StringComparison.Ordinal), Wrote),
        new(On(FaultKind.BlockTornWrite, "blk0") with { Amount = 512 }, WriteAndReadAsync,
            "write Ok at once, flush Ok, read Ok ab 00; on the disk ab 00, 1 sectors in use", Wrote),
        new(On(FaultKind.BlockMisdirectedWrite, "blk0") with { Amount = 100 }, WriteAndReadAsync,
            "write Ok at once, flush Ok, read Ok 00 00; on the disk 00 00, 2 sectors in use", Wrote),
        new(On(FaultKind.BlockDroppedFlush, "blk0"), WriteAndReadAsync,
            "write Ok at once, flush Ok, read Ok ab ab; on the disk 00 00, 0 sectors in use", Wrote)
        {
            Always = [On(FaultKind.BlockVolatileCache, "blk0") with { Name = "cache" }],
        },
        new(On(FaultKind.BlockReadCorruption, "blk0"), ReadBitsAsync, "1 bit wrong, on the disk 0", "0 bit wrong, on the disk 0"),
        new(On(FaultKind.BlockVolatileCache, "blk0"), WriteWithoutFlushAsync, "write Ok, read ab; on the disk 00", "write Ok, read ab; on the disk ab"),
        new(On(FaultKind.BlockHang, "blk0") with { Nth = 1 }, HungBackendAsync, "not answered at once, but Ok after 1 restarts", "Ok"),

        new(On(FaultKind.NetLoss, "net0") with { Nth = 2 }, SendAsync, "at once: 60 62; later: 60 62", Sent),
        new(On(FaultKind.NetDuplicate, "net0") with { Nth = 2 }, SendAsync, "at once: 60 61 61 62; later: 60 61 61 62", Sent),
        new(On(FaultKind.NetReorder, "net0") with { Nth = 1 }, SendAsync, "at once: 61 60 62; later: 61 60 62", Sent),
        new(On(FaultKind.NetDelay, "net0") with { Nth = 1, Delay = 300 * FaultVm.NanosecondsPerStep }, SendAsync, "at once: 61 62; later: 61 62 60", Sent),
        new(On(FaultKind.NetCorruption, "net0") with { Nth = 1 }, SendBitsAsync, "1 bit wrong", "0 bit wrong"),
        // 60 bytes last 400 steps on this line.
        new(On(FaultKind.NetBandwidth, "net0") with { Amount = 150_000 }, SendAsync, "at once:; later: 60 61 62", Sent),
        new(On(FaultKind.NetLinkFlap, "net0") with { From = 200 * FaultVm.NanosecondsPerStep, For = 10_000_000_000 }, LinkAsync, "link down", "link up"),

        new(On(FaultKind.IrqLost, "serial0") with { Nth = 2 }, RaiseAsync, "1: up, up; 2: down, down; 3: up, up; gsi10 rose 0 times", Raised),
        new(On(FaultKind.IrqLate, "serial0") with { Nth = 2, Delay = 20 * FaultVm.NanosecondsPerStep }, RaiseAsync,
            "1: up, up; 2: down, up; 3: up, up; gsi10 rose 0 times", Raised),
        new(On(FaultKind.IrqSpurious, "*") with { Gsi = 10, From = 10 * FaultVm.NanosecondsPerStep, Period = 10 * FaultVm.NanosecondsPerStep, Times = 3 },
            RaiseAsync, "1: up, up; 2: up, up; 3: up, up; gsi10 rose 3 times", Raised),
        new(On(FaultKind.DoorbellLost, "blk0") with { Nth = 1 }, RingTwiceAsync, "first never, then at once", "first at once"),
        new(On(FaultKind.SerialDrop, "serial0") with { Nth = 3 }, PrintAsync, "printed abd", "printed abcd"),
        new(On(FaultKind.SerialCorruption, "serial0") with { Nth = 3 }, PrintBitsAsync, "4 bytes, 1 bit wrong", "4 bytes, 0 bit wrong"),

        new(On(FaultKind.ActorCrash, "serial0") with { Direction = "write", Nth = 3 }, PrintAndCountAsync, "printed abcd, 1 restarts", "printed abcd, 0 restarts"),
        new(On(FaultKind.ActorHang, "serial0") with { Direction = "write", Nth = 3 }, PrintAndCountAsync, "printed abcd, 1 restarts", "printed abcd, 0 restarts"),
        new(On(FaultKind.ActorSlow, "serial0") with { Direction = "write", Nth = 3, Delay = 60_000_000 }, PrintSlowlyAsync(60), "printed abcd and took its time", "printed abcd*"),
        new(On(FaultKind.MailboxStall, "serial0") with { Direction = "write", Nth = 3, For = 60_000_000 }, PrintSlowlyAsync(60), "printed abcd and took its time", "printed abcd*"),

        // Both last in the host's time, of which this guest knows nothing: the trace has them.
        new(On(FaultKind.VcpuPause, "*") with { From = 2 * FaultVm.NanosecondsPerStep, For = 60_000_000 }, PrintAsync, "printed abcd", "printed abcd"),
        new(On(FaultKind.VcpuSlow, "*") with { From = 2 * FaultVm.NanosecondsPerStep, For = 10_000_000_000, Factor = 4 }, PrintAsync,
            "printed abcd", "printed abcd"),
        new(On(FaultKind.ClockJump, "*") with { From = 50 * FaultVm.NanosecondsPerStep, Delay = 1_000_000_000 }, TimeAsync,
            "3000 steps lasted 1003 ms", "3000 steps lasted 3 ms"),
        new(On(FaultKind.ClockDrift, "*") with { From = 50 * FaultVm.NanosecondsPerStep, For = 100_000_000, Factor = 11 }, TimeAsync,
            "3000 steps lasted 23 ms", "3000 steps lasted 3 ms"),
        new(On(FaultKind.EntropyStarvation, "rng0") with { Nth = 1, For = 50 * FaultVm.NanosecondsPerStep }, EntropyAsync, "8 bytes later", "8 bytes at once"),
        new(On(FaultKind.MemoryBitFlip, "*") with { From = 5 * FaultVm.NanosecondsPerStep, First = 0x1000, Last = 0x1FFF }, MemoryAsync,
            "1 bit set", "0 bit set"),
    ];

    private const string Sent = "at once: 60 61 62; later: 60 61 62";
    private const string Raised = "1: up, up; 2: up, up; 3: up, up; gsi10 rose 0 times";

    private static FaultRule On(FaultKind kind, string device) => new() { Kind = kind, Name = FaultKinds.NameOf(kind), Device = device };

    public static TheoryData<FaultKind> Kinds => [.. FaultKinds.All.Where(kind => kind != FaultKind.HostKill)]; // which has a test of its own, below

    [Theory, MemberData(nameof(Kinds))]
    public async Task A_fault_is_seen_where_it_is_planned_and_nowhere_else(FaultKind kind)
    {
        var row = Assert.Single(s_rows, row => row.Rule.Kind == kind); // a kind without a row has no test

        var (without, quiet) = await TellAsync(row, row.Always);
        Assert.Matches(Pattern(row.Else), without);
        Assert.DoesNotContain(quiet, firing => firing.Kind == kind);
        if (row.Always.Count == 0) Assert.Empty(quiet);

        var (with, firings) = await TellAsync(row, [.. row.Always, row.Rule]);
        Assert.Matches(Pattern(row.Sees), with);
        var first = firings.First(firing => firing.Kind == kind);
        Assert.Equal(row.Rule.Name, first.Rule);
        Assert.NotEmpty(first.Outcome);
        if (row.Rule.Device != FaultRule.AnyDevice) Assert.Equal(row.Rule.Device, first.Device);
    }

    public static TheoryData<string> Points => [.. FaultPoints.All];

    [Theory, MemberData(nameof(Points))]
    public async Task A_disk_crashes_at_each_named_point_and_the_guest_notices_none_of_the_first(string point)
    {
        const string Again = "resubmitting";
        var crash = On(FaultKind.ActorCrash, "blk0") with { Name = "crash", Point = point, Times = 1, AfterConsole = "!" };
        // A request is only taken up again where the device failed after it was taken.
        FaultRule[] rules = point == Again ? [crash with { Name = "before", Point = "request-taken", Times = 1 }, crash] : [crash];
        await using var vm = await FaultVm.StartAsync(rules);
        var saw = await Task.Run(() => WriteAfterAsync(vm));
        // The same request twice: it is given up with an error, as the table of verdicts has it.
        Assert.Equal(point == Again ? "write IoError, read Ok 00 00" : "write Ok, read Ok ab ab", saw);
        Assert.Equal(point, Assert.Single(vm.Firings, firing => firing.Rule == "crash").Happening.Point);
        Assert.Equal(rules.Length, vm.Restarts("blk0"));
    }

    /// <summary>Crashes begin when the driver is there: before that no request passes.</summary>
    private static Task<string> WriteAfterAsync(FaultVm vm)
    {
        var disk = vm.StartDisk();
        vm.Guest.OutNow(Data, (byte)'!');
        var write = Do(vm, disk, disk.AddOut(BlockRequestType.Out, 8, Sectors(2)));
        var read = disk.AddIn(BlockRequestType.In, 8, 1024);
        var status = Do(vm, disk, read);
        var data = disk.Driver.Bytes(read.Data);
        return Task.FromResult($"write {write}, read {status} {data[0]:x2} {data[512]:x2}");
    }

    [Fact]
    public async Task A_host_is_killed_where_that_is_planned_and_nowhere_else()
    {
        var folder = Directory.CreateTempSubdirectory("actorvmm-kill-").FullName;
        try
        {
            // Prints, lets a millisecond pass under virtual time, and resets.
            byte[] code = [0x66, 0xBA, 0xF8, 0x03, 0xB0, (byte)'!', 0xEE, 0xB9, 0x40, 0x42, 0x0F, 0x00, 0xFF, 0xC9, 0x75, 0xFC, 0xB0, 0xFE, 0xE6, 0x64, 0xF4];
            await File.WriteAllBytesAsync(Path.Combine(folder, "kernel"), TinyElf.Of(code));
            async Task<int> RunAsync(string faults)
            {
                var file = Path.Combine(folder, "vm.conf");
                await File.WriteAllTextAsync(file, $"kernel.path = kernel\nhypervisor = soft\nmemory.size-mib = 64\n{faults}\n");
                await using var program = ActorVmmProcess.Start("run", file, "--clock", "virtual");
                program.EndInput();
                return (await program.EndAsync(TimeSpan.FromMinutes(5))).ExitCode;
            }

            Assert.Equal(0, await RunAsync(""));
            const int Killed = 128 + 9; // SIGKILL
            Assert.Equal(Killed, await RunAsync("faults.rules = [ { kind = host-kill, from = 100us } ]"));
            Assert.Equal(0, await RunAsync("faults.rules = [ { kind = host-kill, from = 60m } ]"));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Pattern(string text) =>
        text.EndsWith('*') ? "^" + System.Text.RegularExpressions.Regex.Escape(text[..^1]) : $"^{System.Text.RegularExpressions.Regex.Escape(text)}$";

    private static async Task<(string Saw, IReadOnlyList<FaultFiring> Firings)> TellAsync(Row row, IReadOnlyList<FaultRule> rules)
    {
        await using var vm = await FaultVm.StartAsync(rules);
        // The guest's accesses are waited for: not on a thread that somebody else waits for.
        var saw = await Task.Run(() => row.Story(vm));
        return (saw, vm.Firings);
    }

    // ---- The disk.

    private static byte[] Sectors(int count, byte value = 0xAB)
    {
        var bytes = new byte[512 * count];
        Array.Fill(bytes, value);
        return bytes;
    }

    /// <summary>Rings, and waits for the answer.</summary>
    private static string Answer(FaultVm vm, BlockDriver disk, BlockJob job, bool ring = true)
    {
        if (ring) disk.Driver.Kick(job.Queue);
        var when = vm.When(() => disk.Driver.Rings[job.Queue].TryCollect(out _), most: 500);
        if (when != "never") disk.Driver.HandleInterrupt();
        return when;
    }

    private static BlockStatus Do(FaultVm vm, BlockDriver disk, BlockJob job)
    {
        Assert.NotEqual("never", Answer(vm, disk, job));
        return disk.Status(job);
    }

    private static async Task<string> WriteAndReadAsync(FaultVm vm)
    {
        var disk = vm.StartDisk();
        var write = disk.AddOut(BlockRequestType.Out, 8, Sectors(2));
        var when = Answer(vm, disk, write);
        var flush = Do(vm, disk, disk.AddOut(BlockRequestType.Flush, 0, []));
        var read = disk.AddIn(BlockRequestType.In, 8, 1024);
        var status = Do(vm, disk, read);
        var data = disk.Driver.Bytes(read.Data);
        var text = $"write {disk.Status(write)} {when}, flush {flush}, read {status} {data[0]:x2} {data[512]:x2}";
        await vm.EndAsync();
        var file = await File.ReadAllBytesAsync(vm.DiskPath);
        return $"{text}; on the disk {file[8 * 512]:x2} {file[9 * 512]:x2}, {file.Chunk(512).Count(sector => sector.Any(value => value != 0))} sectors in use";
    }

    private static Task<string> WriteThreeTimesAsync(FaultVm vm)
    {
        var disk = vm.StartDisk();
        var writes = Enumerable.Range(0, 3).Select(n => Do(vm, disk, disk.AddOut(BlockRequestType.Out, (ulong)n, Sectors(1)))).ToArray();
        return Task.FromResult($"{string.Join(' ', writes)}, read {Do(vm, disk, disk.AddIn(BlockRequestType.In, 0, 512))}");
    }

    private static async Task<string> ReadBitsAsync(FaultVm vm)
    {
        var disk = vm.StartDisk();
        var read = disk.AddIn(BlockRequestType.In, 8, 1024);
        Assert.Equal(BlockStatus.Ok, Do(vm, disk, read));
        var wrong = disk.Driver.Bytes(read.Data).Sum(value => BitOperations.PopCount(value));
        await vm.EndAsync();
        return $"{wrong} bit wrong, on the disk {(await File.ReadAllBytesAsync(vm.DiskPath)).Sum(value => BitOperations.PopCount(value))}";
    }

    private static async Task<string> WriteWithoutFlushAsync(FaultVm vm)
    {
        var disk = vm.StartDisk();
        var write = Do(vm, disk, disk.AddOut(BlockRequestType.Out, 8, Sectors(1)));
        var read = disk.AddIn(BlockRequestType.In, 8, 512);
        Do(vm, disk, read);
        var text = $"write {write}, read {disk.Driver.Bytes(read.Data)[0]:x2}";
        await vm.EndAsync();
        return $"{text}; on the disk {(await File.ReadAllBytesAsync(vm.DiskPath))[8 * 512]:x2}";
    }

    /// <summary>Nobody answers; the watchdog has the device restarted, which begins the request again.</summary>
    private static async Task<string> HungBackendAsync(FaultVm vm)
    {
        var disk = vm.StartDisk();
        var write = disk.AddOut(BlockRequestType.Out, 8, Sectors(1));
        disk.Driver.Kick(0);
        if (disk.Driver.Rings[0].TryCollect(out _)) return $"{disk.Status(write)}";
        var patience = Stopwatch.StartNew();
        while (vm.When(() => disk.Driver.Rings[0].TryCollect(out _), most: 1) == "never" && patience.Elapsed < TimeSpan.FromSeconds(60)) await Task.Delay(1);
        return $"not answered at once, but {disk.Status(write)} after {vm.Restarts("blk0")} restarts";
    }

    private static Task<string> RingTwiceAsync(FaultVm vm)
    {
        var disk = vm.StartDisk();
        var write = disk.AddOut(BlockRequestType.Out, 8, Sectors(1));
        var first = Answer(vm, disk, write);
        if (first != "never") return Task.FromResult($"first {first}");
        disk.Driver.Ring(0);
        return Task.FromResult($"first never, then {Answer(vm, disk, write, ring: false)}");
    }

    // ---- The network.

    private static VirtioDriver SendThree(FaultVm vm)
    {
        var net = vm.StartNet();
        foreach (var length in (int[])[60, 61, 62])
        {
            net.Rings[1].Add(net.Readable(new byte[PacketHeader.Length + length]));
            net.Rings[1].Publish();
            net.Ring(1);
        }

        return net;
    }

    private static Task<string> SendAsync(FaultVm vm)
    {
        string Lengths() => string.Concat(vm.Packets.Sent.ToArray().Select(packet => $" {packet.Bytes.Length - PacketHeader.Length}"));
        SendThree(vm);
        var now = Lengths();
        vm.Steps(2000);
        return Task.FromResult($"at once:{now}; later:{Lengths()}");
    }

    private static Task<string> SendBitsAsync(FaultVm vm)
    {
        SendThree(vm);
        var wrong = vm.Packets.Sent.Sum(packet => packet.Bytes[PacketHeader.Length..].Sum(value => BitOperations.PopCount(value)));
        return Task.FromResult($"{wrong} bit wrong");
    }

    private static Task<string> LinkAsync(FaultVm vm)
    {
        var net = vm.StartNet();
        vm.Steps(300);
        const int Status = 6; // after the address (virtio 1.2 §5.1.4)
        return Task.FromResult((net.ReadConfig(Status, 1)[0] & 1) != 0 ? "link up" : "link down");
    }

    // ---- The serial port and its interrupt.

    private const ushort Data = 0x3F8, InterruptEnable = 0x3F9, InterruptId = 0x3FA;
    private const int SerialGsi = 4;

    private static Task<string> RaiseAsync(FaultVm vm)
    {
        string Level() => vm.Machine.Lines.LastOrDefault(line => line.Gsi == SerialGsi).Level ? "up" : "down";
        var text = new StringBuilder();
        vm.Guest.OutNow(InterruptEnable, 0x02); // the transmitter is empty: the line rises
        for (var n = 1; n <= 3; n++)
        {
            var at = Level();
            vm.Steps(50);
            text.Append(CultureInfo.InvariantCulture, $"{n}: {at}, {Level()}; ");
            vm.Guest.In(InterruptId); // and falls
            if (n < 3) vm.Guest.OutNow(Data, (byte)'x');
        }

        return Task.FromResult($"{text}gsi10 rose {vm.Machine.Lines.Count(line => line == (10, true))} times");
    }

    private static void Print(FaultVm vm)
    {
        foreach (var letter in "abcd") vm.Guest.OutNow(Data, (byte)letter);
    }

    private static Task<string> PrintAsync(FaultVm vm)
    {
        Print(vm);
        return Task.FromResult($"printed {vm.Console.Output}");
    }

    private static Task<string> PrintBitsAsync(FaultVm vm)
    {
        Print(vm);
        var wrong = vm.Console.Output.Zip("abcd", (left, right) => BitOperations.PopCount((uint)(left ^ right))).Sum();
        return Task.FromResult($"{vm.Console.Output.Length} bytes, {wrong} bit wrong");
    }

    private static Task<string> PrintAndCountAsync(FaultVm vm)
    {
        Print(vm);
        return Task.FromResult($"printed {vm.Console.Output}, {vm.Restarts("serial0")} restarts");
    }

    private static Func<FaultVm, Task<string>> PrintSlowlyAsync(int milliseconds) => vm =>
    {
        var time = Stopwatch.StartNew();
        Print(vm);
        var late = time.Elapsed >= TimeSpan.FromMilliseconds(milliseconds) ? " and took its time" : "";
        return Task.FromResult($"printed {vm.Console.Output}{late}");
    };

    // ---- The machine.

    private static Task<string> TimeAsync(FaultVm vm)
    {
        const ushort Timer = 0x608; // ACPI's, of 24 bits
        var begin = vm.Guest.In(Timer, 4);
        vm.Steps(2999);
        var ticks = (vm.Guest.In(Timer, 4) - begin) & 0xFF_FFFF;
        return Task.FromResult($"3000 steps lasted {Math.Round(ticks * 1000.0 / 3_579_545)} ms");
    }

    private static Task<string> EntropyAsync(FaultVm vm)
    {
        var entropy = vm.StartEntropy();
        entropy.Rings[0].Add(entropy.Writable(8));
        entropy.Rings[0].Publish();
        entropy.Ring(0);
        return Task.FromResult($"8 bytes {vm.When(() => entropy.Rings[0].TryCollect(out _))}");
    }

    private static Task<string> MemoryAsync(FaultVm vm)
    {
        vm.Steps(20);
        var bytes = new byte[0x1000];
        Assert.True(vm.Machine.Memory.TryRead(new GuestAddress(0x1000), bytes));
        return Task.FromResult($"{bytes.Sum(value => BitOperations.PopCount(value))} bit set");
    }
}
