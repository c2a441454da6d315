using System.Text.RegularExpressions;
using ActorVmm.Actors;
using ActorVmm.EndToEnd.Tests.Harness;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>vmm-reference's own end-to-end tests, under their names.</summary>
[Collection(LinuxGuests.Name)]
public sealed class VmmReferenceTests(GuestFiles files, ITestOutputHelper output)
{
    // vmm-reference gives it three seconds; that would time the machine that the test runs on.
    private static readonly TimeSpan RebootDeadline = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData("elf")]
    [InlineData("bzimage")]
    public Task test_reference_vmm(string kernel) => BootAndReboot(kernel, "reboot=t", StopReason.TripleFault);

    [Theory]
    [InlineData("elf")]
    [InlineData("bzimage")]
    public Task test_reference_vmm_with_default_cmdline(string kernel) => BootAndReboot(kernel, "", StopReason.ResetI8042);

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public async Task test_reference_vmm_num_vcpus(int vcpus)
    {
        await using var guest = await RunningGuest.StartAsync(RunningGuest.Spec(files.Image, vcpus), output);
        await guest.TellAsync(async () =>
        {
            await guest.Shell.LogInAsync();
            var processors = Regex.Count(await guest.Shell.RunAsync("cat /proc/cpuinfo"), @"^processor\s*:", RegexOptions.Multiline);
            Assert.Equal(vcpus, processors);
        });
    }

    [Theory]
    [InlineData(512)]
    [InlineData(3327)]
    [InlineData(3328)]
    [InlineData(3329)]
    [InlineData(8192)]
    public async Task test_reference_vmm_mem(int memoryMib)
    {
        await using var guest = await RunningGuest.StartAsync(RunningGuest.Spec(files.Image, memoryMib: memoryMib), output);
        await guest.TellAsync(async () =>
        {
            var pattern = new Regex(@"Memory: \d+K/(?<total>\d+)K available", RegexOptions.None, TimeSpan.FromSeconds(5));
            var (_, line) = await guest.Console.Transcript.ExpectAsync(pattern, Shell.BootDeadline);
            var total = long.Parse(line.Groups["total"].Value, System.Globalization.CultureInfo.InvariantCulture);
            var given = memoryMib * 1024L;
            Assert.InRange(total, given - given / 1000, given);
        });
    }

    [Fact]
    public async Task test_expect_string_timeout()
    {
        var console = new GuestConsole();
        console.Write("some output\r\n"u8);
        await console.Transcript.ExpectAsync("some", TimeSpan.FromSeconds(1));
        var late = await Assert.ThrowsAsync<TimeoutException>(() =>
            console.Transcript.ExpectAsync("a text that never comes", TimeSpan.FromMilliseconds(50)));
        Assert.Contains("some output", late.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("elf")]
    [InlineData("bzimage")]
    public async Task test_dummy_vmm(string kernel)
    {
        var spec = RunningGuest.Spec(files.Halting, memoryMib: 1024);
        spec = spec with { Kernel = spec.Kernel with { Path = KernelPath(kernel) } };
        await using var guest = await RunningGuest.StartAsync(spec, output);
        await guest.TellAsync(async () =>
        {
            var outcome = await guest.EndAsync(Shell.BootDeadline);
            Assert.Equal((StopReason.Halted, 0), (outcome.Reason, outcome.ExitCode));
        });
    }

    private async Task BootAndReboot(string kernel, string more, StopReason expected)
    {
        var spec = RunningGuest.Spec(files.Image, memoryMib: 1024, more: more);
        spec = spec with { Kernel = spec.Kernel with { Path = KernelPath(kernel) } };
        await using var guest = await RunningGuest.StartAsync(spec, output);
        await guest.TellAsync(async () =>
        {
            await guest.Shell.LogInAsync();
            Assert.False(guest.Vm.Completion.IsCompleted);
            guest.Shell.Type("reboot -f");
            Assert.Equal(expected, (await guest.EndAsync(RebootDeadline)).Reason);
        });
    }

    private string KernelPath(string kernel) =>
        string.Equals(kernel, "elf", StringComparison.Ordinal) ? files.VmlinuxPath : files.Image.KernelPath;
}
