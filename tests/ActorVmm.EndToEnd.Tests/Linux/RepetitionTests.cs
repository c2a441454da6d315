using ActorVmm.Actors;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Hypervisor;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Virtual time: the run is a function of its input.</summary>
[Collection(LinuxGuests.Name)]
public sealed class RepetitionTests(GuestFiles files, ITestOutputHelper output)
{
    // Time, interrupt counts, the kernel's random layout of itself and of a process: whatever leaks from the host shows in one of them.
    private const string Script =
        "uname -a\ndate\ncat /proc/interrupts\nhead -n 2 /proc/kallsyms\ncat /proc/self/maps\ncat /proc/uptime /proc/stat\n" +
        "dmesg | tail -n 5\nreboot -f\n";

    /// <summary>The second run interprets only, compiles each block at once, or when it has been entered an odd number of times.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(307)]
    public async Task Two_runs_under_virtual_time_print_the_same_bytes_and_retire_the_same_instructions(int compileThreshold)
    {
        var (firstBytes, first) = await RunAsync(null);
        var (secondBytes, second) = await RunAsync(compileThreshold);
        Assert.Equal(StopReason.ResetI8042, first.Reason);
        Assert.True(first.RetiredInstructions > 100_000_000);

        var same = firstBytes.AsSpan().CommonPrefixLength(secondBytes);
        if (same < firstBytes.Length || same < secondBytes.Length)
        {
            output.WriteLine($"the first differing byte is {same}; the first run goes on with: {Text(firstBytes, same)}");
            output.WriteLine($"the second with: {Text(secondBytes, same)}");
        }
        Assert.Equal(firstBytes.Length, same);
        Assert.Equal(firstBytes.Length, secondBytes.Length);
        Assert.Equal(first.RetiredInstructions, second.RetiredInstructions);
    }

    private static string Text(byte[] bytes, int from) =>
        System.Text.Encoding.Latin1.GetString(bytes.AsSpan(Math.Max(0, from - 60), Math.Min(160, bytes.Length - Math.Max(0, from - 60))));

    private async Task<(byte[] Console, VmOutcome Outcome)> RunAsync(int? compileThreshold)
    {
        var spec = RunningGuest.Spec(files.Image) with { Clock = ClockMode.Virtual, Seed = 7, CompileThreshold = compileThreshold };
        var console = new GuestConsole(Script, releaseOn: GuestImage.Greeting);
        await using var guest = await RunningGuest.StartAsync(spec, output, console);
        VmOutcome? outcome = null;
        await guest.TellAsync(async () => outcome = await guest.EndAsync(Shell.BootDeadline));
        return (console.Transcript.Bytes, outcome!);
    }
}
