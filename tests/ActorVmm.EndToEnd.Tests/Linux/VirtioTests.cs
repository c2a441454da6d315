using System.Text;
using System.Text.RegularExpressions;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Hypervisor;
using ActorVmm.Testing;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Linux's own drivers against the virtio transport.</summary>
[Collection(LinuxGuests.Name)]
public sealed class VirtioTests(ITestOutputHelper output)
{
    private static readonly GuestImageOptions s_withVirtio = new() { Modules = ["pvpanic-mmio", "virtio_mmio", "virtio-rng"] };

    [Fact]
    public async Task Seventeen_devices_are_found_and_each_gives_entropy()
    {
        await using var guest = await StartAsync(devices: VirtioPlan.MaxDevices);
        await guest.TellAsync(async () =>
        {
            await guest.Shell.LogInAsync();
            Assert.Equal("17", await guest.Shell.RunAsync("ls /sys/bus/virtio/devices | wc -l"));
            // 4: entropy; 0xf: DRIVER_OK.
            Assert.Equal("0x0004 0x0000000f", await guest.Shell.RunAsync(
                "for d in /sys/bus/virtio/devices/*; do echo $(cat $d/device) $(cat $d/status); done | sort -u"));
            Assert.Equal("17 interrupts", await guest.Shell.RunAsync(
                "echo $(grep -c 'virtio[0-9]*$' /proc/interrupts) interrupts"));
            await guest.Shell.RunAsync("cd /sys/class/misc/hw_random");
            Assert.Equal("17", await guest.Shell.RunAsync(
                "for r in $(cat rng_available); do echo $r > rng_current; dd if=/dev/hwrng bs=64 count=1 2>/dev/null | sha256sum; " +
                "done | sort -u | wc -l"));
        });
    }

    [Fact]
    public async Task The_driver_is_unbound_and_bound_again_in_a_running_guest()
    {
        await using var guest = await StartAsync(devices: 1);
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            Assert.Equal("256", await shell.RunAsync("dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c"));
            await shell.RunAsync("cd /sys/bus/virtio/drivers/virtio_rng");
            for (var round = 0; round < 3; round++)
            {
                await shell.RunAsync("echo virtio0 > unbind");
                Assert.Equal("0x00000001", await shell.RunAsync("cat /sys/bus/virtio/devices/virtio0/status")); // reset, and acknowledged
                await shell.RunAsync("echo virtio0 > bind");
                Assert.Equal("256", await shell.RunAsync("dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c"));
            }

            // The transport's driver too: the device is found anew.
            await shell.RunAsync("cd /sys/bus/platform/drivers/virtio-mmio && D=$(ls -d LNRO* 2>/dev/null | head -1) && [ -n \"$D\" ]");
            await shell.RunAsync("echo $D > unbind && [ -z \"$(ls /sys/bus/virtio/devices)\" ] && echo $D > bind");
            Assert.Equal("256", await shell.RunAsync("dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c"));
            Assert.DoesNotContain("virtio", await shell.RunAsync("dmesg | grep -iE 'warn|bug|error|fail' | grep -i virtio; true"),
                StringComparison.OrdinalIgnoreCase);
        });
    }

    [Fact]
    public async Task Under_virtual_time_entropy_is_a_function_of_the_seed()
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), s_withVirtio with
        {
            Files = new Dictionary<string, byte[]>(StringComparer.Ordinal)
            {
                ["init.local"] = Encoding.ASCII.GetBytes(
                    "#!/bin/busybox sh\necho entropy $(dd if=/dev/hwrng bs=64 count=2 2>/dev/null | sha256sum)\npoweroff -f\n"),
            },
        });
        var first = await RunAsync(image, seed: 7);
        var again = await RunAsync(image, seed: 7);
        Assert.Equal(first.Console, again.Console); // the whole boot, to the last byte
        Assert.Equal(first.Retired, again.Retired);
        Assert.Equal(Hash(first.Console), Hash(again.Console));
        if (!Nightly.Wanted) return; // a third boot; that seeds differ is a test of the device as well
        var other = await RunAsync(image, seed: 8);
        Assert.NotEqual(Hash(first.Console), Hash(other.Console));

        static string Hash(string console) =>
            Regex.Match(console, "entropy [0-9a-f]{64}", RegexOptions.None, TimeSpan.FromSeconds(5)) is { Success: true } match
                ? match.Value
                : throw new InvalidOperationException($"the guest said nothing about entropy:\n{console}");
    }

    private async Task<(string Console, ulong Retired)> RunAsync(GuestImage image, ulong seed)
    {
        var spec = RunningGuest.Spec(image) with { Clock = ClockMode.Virtual, Seed = seed, Entropy = [new EntropySpec()] };
        await using var guest = await RunningGuest.StartAsync(spec, output);
        VmOutcome? outcome = null;
        await guest.TellAsync(async () => outcome = await guest.EndAsync(Shell.BootDeadline));
        return (Encoding.Latin1.GetString(guest.Console.Transcript.Bytes), outcome!.RetiredInstructions);
    }

    private async Task<RunningGuest> StartAsync(int devices)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), s_withVirtio);
        return await RunningGuest.StartAsync(
            RunningGuest.Spec(image) with { Entropy = [.. Enumerable.Repeat(new EntropySpec(), devices)] }, output);
    }
}
