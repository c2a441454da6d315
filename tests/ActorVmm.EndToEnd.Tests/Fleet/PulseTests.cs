using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Backends.Disks;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>
/// A pulse takes everything but RAM apart and puts it together again: vCPUs, interrupt controllers, timers, devices with requests under way.
/// The guest's own work must come out right, and its kernel must have nothing to say.
/// </summary>
[Collection(LinuxGuests.Name)]
public sealed class PulseTests : IDisposable
{
    private readonly GuestFiles _files;
    private readonly ITestOutputHelper _output;
    private readonly string _here;

    public PulseTests(GuestFiles files, ITestOutputHelper output)
    {
        (_files, _output) = (files, output);
        _here = Directory.CreateTempSubdirectory("actorvmm-pulse-").FullName;
    }

    public void Dispose() => Directory.Delete(_here, recursive: true);

    [SkippableFact]
    public async Task Fio_verifies_what_it_wrote_through_pulses_every_second()
    {
        var rounds = (int)Nightly.Count(always: 8, nightly: 300);
        var raw = DiskImages.Raw(_here, "raw.img", 32);
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks);
        var spec = RunningGuest.Spec(image, vcpus: 2) with
        {
            Disks =
            [
                new DiskSpec { Id = "raw", Path = raw, Engine = IoEngine.Async, Writeback = true, Queues = 2 },
                new DiskSpec { Id = "tools", Path = DiskImages.Tools(_here), ReadOnly = true },
            ],
        };
        await using var guest = await RunningGuest.StartAsync(spec, _output);
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            await shell.RunAsync("mkdir /tools && mount -t ext4 -o ro /dev/vdb /tools && mount -t tmpfs tmpfs /tools/tmp "
                + "&& mount -o bind /dev /tools/dev && mount -t proc proc /tools/proc");
            // Each pass writes other data (its seed is its number), and reads all of it back in between and at the end.
            const string fio = "chroot /tools /usr/bin/fio --name=mix --filename=/dev/vda --rw=randrw --bs=4k --ioengine=libaio --direct=1 "
                + "--iodepth=32 --size=8M --fsync=64 --verify=crc32c --verify_fatal=1 --verify_backlog=512 --verify_state_save=0 --minimal";
            await shell.RunAsync("(n=0; while [ ! -e /stop ] && " + fio + " --randseed=$n > /out 2>&1; do n=$((n + 1)); echo $n > /passes; done; "
                + "[ -e /stop ] && grep -q '^3;fio' /out && echo right > /verdict || echo wrong > /verdict) > /dev/null 2>&1 & true");
            await shell.RunAsync("until [ -s /sys/block/vda/stat ] && [ $(awk '{print $5}' /sys/block/vda/stat) -gt 0 ]; do :; done");

            var pauses = new List<double>();
            using var beat = new PeriodicTimer(TimeSpan.FromSeconds(1));
            while (pauses.Count < rounds && await beat.WaitForNextTickAsync())
                pauses.Add((await guest.Vm.PulseAsync().WaitAsync(Shell.CommandDeadline)).TotalMilliseconds);

            await shell.RunAsync("touch /stop; until [ -s /verdict ]; do usleep 50000; done", TimeSpan.FromMinutes(5));
            var passes = await shell.RunAsync("cat /passes");
            Assert.True("right" == await shell.RunAsync("cat /verdict"), await shell.RunAsync("cat /out; dmesg | tail"));
            Assert.NotEqual("0", passes);
            pauses.Sort();
            _output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{rounds} pulses in {passes} passes of fio --verify: median {pauses[rounds / 2]:F1} ms, longest {pauses[^1]:F1} ms"));
            Assert.Equal("", await shell.RunAsync("dmesg -r | sed -n 's/^<[0-3]>//p'"));
        });
    }

    [SkippableFact]
    public async Task A_guest_computes_on_through_pulses_as_if_nothing_had_been()
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        const int rounds = 300;
        await using var guest = await RunningGuest.StartAsync(RunningGuest.Spec(_files.Image, vcpus: 2, memoryMib: 128), _output);
        await guest.TellAsync(async () =>
        {
            await guest.Shell.LogInAsync();
            const string Sum = "head -c 4000000 /dev/zero | sha256sum";
            var right = await guest.Shell.RunAsync(Sum);
            var pauses = new List<double>();
            for (var round = 0; round < rounds; round++)
            {
                var sum = guest.Shell.RunAsync(Sum);
                pauses.Add((await guest.Vm.PulseAsync().WaitAsync(Shell.CommandDeadline)).TotalMilliseconds);
                Assert.Equal(right, await sum);
            }

            pauses.Sort();
            _output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{rounds} pulses: median {pauses[rounds / 2]:F1} ms, longest {pauses[^1]:F1} ms"));
            Assert.Equal("", await guest.Shell.RunAsync("dmesg -r | sed -n 's/^<[0-3]>//p'"));
        });
    }
}
