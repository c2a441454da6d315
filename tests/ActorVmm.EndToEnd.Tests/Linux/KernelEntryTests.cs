using ActorVmm.Actors;
using ActorVmm.EndToEnd.Tests.Harness;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Every way into the same kernel ends at the same shell.</summary>
[Collection(LinuxGuests.Name)]
public sealed class KernelEntryTests(GuestFiles files, ITestOutputHelper output)
{
    [Theory]
    [InlineData(KernelEntry.Payload, false)]
    [InlineData(KernelEntry.BzImage, false)]
    [InlineData(KernelEntry.Elf64, true)]
    [InlineData(KernelEntry.Pvh, true)]
    public async Task The_kernel_starts_through(KernelEntry entry, bool elf)
    {
        var spec = RunningGuest.Spec(files.Image, memoryMib: 512);
        spec = spec with { Kernel = spec.Kernel with { Entry = entry, Path = elf ? files.VmlinuxPath : files.Image.KernelPath } };
        await using var guest = await RunningGuest.StartAsync(spec, output);
        await guest.TellAsync(async () =>
        {
            await guest.Shell.LogInAsync();
            Assert.Equal(files.Image.KernelRelease, await guest.Shell.RunAsync("uname -r"));
            guest.Shell.Type("reboot -f");
            Assert.Equal(StopReason.ResetI8042, (await guest.EndAsync(TimeSpan.FromSeconds(90))).Reason);
        });
    }
}
