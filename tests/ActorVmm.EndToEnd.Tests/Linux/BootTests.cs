using System.Globalization;
using System.Text.RegularExpressions;
using ActorVmm.Actors;
using ActorVmm.EndToEnd.Tests.Harness;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>The stock Debian kernel, with every number of processors and every size of memory that has a border in it.</summary>
[Collection(LinuxGuests.Name)]
public sealed class BootTests(GuestFiles files, ITestOutputHelper output)
{
    // 3328 MiB ends exactly where the gap for devices begins; one MiB more makes a second region above 4 GiB.
    public static TheoryData<int, int> Machines => new() { { 1, 128 }, { 2, 512 }, { 4, 3327 }, { 1, 3328 }, { 2, 3329 }, { 4, 8192 } };

    [Theory]
    [MemberData(nameof(Machines))]
    public async Task Linux_boots_to_a_shell_that_counts_and_computes_right(int vcpus, int memoryMib)
    {
        await using var guest = await RunningGuest.StartAsync(RunningGuest.Spec(files.Image, vcpus, memoryMib), output);
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            Assert.Equal(files.Image.KernelRelease, await shell.RunAsync("uname -r"));
            Assert.Equal($"{vcpus}", await shell.RunAsync("nproc"));
            Assert.Equal($"{vcpus}", await shell.RunAsync("grep -c ^processor /proc/cpuinfo"));
            await CheckMemoryAsync(shell, memoryMib);
            await CheckToolsAsync(shell);

            shell.Type("reboot -f");
            var outcome = await guest.EndAsync(TimeSpan.FromSeconds(90));
            Assert.Equal((StopReason.ResetI8042, 0), (outcome.Reason, outcome.ExitCode));
            Assert.True(outcome.RetiredInstructions > 100_000_000);
        });
    }

    private static async Task CheckMemoryAsync(Shell shell, int memoryMib)
    {
        var usable = E820Usable(await shell.RunAsync("dmesg | grep 'BIOS-e820.*usable'"));
        Assert.InRange(usable, (memoryMib - 1L) << 20, (long)memoryMib << 20);

        // The kernel gives up the first page and what lies below 1 MiB in pieces; the line counts the rest.
        var line = Regex.Match(await shell.RunAsync("dmesg | grep 'Memory:'"), @"Memory: (\d+)K/(\d+)K available \(.* (\d+)K reserved");
        Assert.True(line.Success);
        AssertWithinOneInThousand(usable, Kib(line.Groups[2]));

        // MemTotal is what is left after the kernel's own image and tables, some of which it frees at the end of its start.
        var total = Regex.Match(await shell.RunAsync("grep MemTotal /proc/meminfo"), @"(\d+) kB");
        Assert.InRange(Kib(total.Groups[1]), Kib(line.Groups[1]), usable);
    }

    /// <summary>Sum of the usable ranges of the boot log's map, in bytes.</summary>
    private static long E820Usable(string log) => Regex.Matches(log, @"\[mem 0x([0-9a-f]{16})-0x([0-9a-f]{16})\] usable")
        .Sum(range => Hex(range.Groups[2]) - Hex(range.Groups[1]) + 1);

    private static void AssertWithinOneInThousand(long expected, long actual) =>
        Assert.True(Math.Abs(actual - expected) * 1000 <= expected, $"{actual} bytes, but e820 leaves {expected}");

    private static long Kib(Group digits) => long.Parse(digits.Value, CultureInfo.InvariantCulture) << 10;

    private static long Hex(Group digits) => long.Parse(digits.Value, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static async Task CheckToolsAsync(Shell shell)
    {
        // FIPS 180-2: one million times 'a'.
        Assert.StartsWith(
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            await shell.RunAsync("head -c 1000000 /dev/zero | tr '\\0' a | sha256sum"), StringComparison.Ordinal);
        Assert.Equal("841.666667 5050 0.30000000000000004", await shell.RunAsync(
            "awk 'BEGIN { for (i = 1; i <= 100; i++) { s += i; h += i / 2 }; printf \"%.6f %d %.17g\\n\", h / 3, s, 0.1 + 0.2 }'"));
        Assert.Equal("1267650600228229401496703205376", await shell.RunAsync("echo '2^100' | bc"));
    }
}
