using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Hypervisor;
using ActorVmm.Testing;
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

    /// <summary>
    /// The second run interprets only, compiles each block at once, or when it has been entered as often as chance says this time.
    /// </summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(null)]
    public async Task Two_runs_under_virtual_time_print_the_same_bytes_and_retire_the_same_instructions(int? compileThreshold)
    {
        var (firstBytes, first) = await RunAsync(null);
        var (secondBytes, second) = await RunAsync(compileThreshold ?? Threshold());
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

    /// <summary>Several vCPUs take turns, and the tiers still make no difference: time, interrupts, the scheduler's choices come out alike.</summary>
    [Theory]
    [InlineData(2, 1)]
    [InlineData(4, null)]
    public async Task Runs_with_several_vcpus_repeat_under_virtual_time(int vcpus, int? compileThreshold)
    {
        var (firstBytes, first) = await RunAsync(null, vcpus);
        var (secondBytes, second) = await RunAsync(compileThreshold ?? Threshold(), vcpus);
        Assert.Equal(StopReason.ResetI8042, first.Reason);
        Assert.Contains($"cpu{vcpus - 1} ", Text(firstBytes, 60, int.MaxValue), StringComparison.Ordinal); // /proc/stat counts its time
        Assert.Equal(firstBytes, secondBytes);
        Assert.Equal(first.RetiredInstructions, second.RetiredInstructions);
    }

    /// <summary>Every compiled block is also interpreted, from power-on to reset; the mode changes nothing that the guest can see.</summary>
    [SkippableFact]
    public async Task A_whole_boot_in_lock_step_shows_no_difference_between_the_tiers()
    {
        Skip.IfNot(Nightly.Wanted, Nightly.Reason);
        var (_, outcome) = await RunAsync(1, lockStep: true);
        output.WriteLine($"{outcome.RetiredInstructions} instructions");
        Assert.True(outcome.Reason == StopReason.ResetI8042, outcome.ToString());
    }

    /// <summary>The same as far as the kernel's first lines on its console: the decompressed kernel's early code, page tables, memory set-up.</summary>
    [Fact]
    public async Task The_begin_of_a_boot_in_lock_step_shows_no_difference_between_the_tiers()
    {
        var spec = RunningGuest.Spec(files.Image, more: "reboot=k earlyprintk=ttyS0 keep_bootcon");
        await using var guest = await RunningGuest.StartAsync(
            spec with { Clock = ClockMode.Virtual, Seed = 7, CompileThreshold = 1, LockStep = true }, output);
        await guest.TellAsync(async () =>
        {
            _ = await guest.Console.Transcript.ExpectAsync("Linux version", Shell.BootDeadline);
            Assert.Contains("blocks with", (await guest.Vm.InspectAsync()).ToString(), StringComparison.Ordinal);
            Assert.False(guest.Vm.Completion.IsCompleted);
        });
    }

    /// <summary>Entries until a block is compiled: another number each time, small ones more often.</summary>
    private int Threshold()
    {
        var random = Environment.GetEnvironmentVariable("ACTORVMM_SEED") is { Length: > 0 } given
            ? new Random(int.Parse(given, CultureInfo.InvariantCulture)) : new Random();
        var threshold = random.Next(2, 2 << random.Next(1, 12));
        output.WriteLine($"compiled after {threshold} entries");
        return threshold;
    }

    private static string Text(byte[] bytes, int from, int count = 160) =>
        System.Text.Encoding.Latin1.GetString(bytes.AsSpan(Math.Max(0, from - 60), Math.Min(count, bytes.Length - Math.Max(0, from - 60))));

    private async Task<(byte[] Console, VmOutcome Outcome)> RunAsync(int? compileThreshold, int vcpus = 1, bool lockStep = false)
    {
        var spec = RunningGuest.Spec(files.Image, vcpus) with
        {
            Clock = ClockMode.Virtual, Seed = 7, CompileThreshold = compileThreshold, LockStep = lockStep,
        };
        var console = new GuestConsole(Script, releaseOn: GuestImage.Greeting);
        await using var guest = await RunningGuest.StartAsync(spec, output, console);
        VmOutcome? outcome = null;
        await guest.TellAsync(async () => outcome = await guest.EndAsync(lockStep ? TimeSpan.FromMinutes(60) : Shell.BootDeadline));
        return (console.Transcript.Bytes, outcome!);
    }
}
