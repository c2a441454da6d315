using System.Text.Json;
using ActorVmm.EndToEnd.Tests.Harness;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>Each way in which a guest can end: the program ends with it, says which way it was, and gives the right exit code.</summary>
[Collection(LinuxGuests.Name)]
public sealed class EndingTests(GuestFiles files)
{
    private static readonly TimeSpan EndDeadline = TimeSpan.FromSeconds(90);

    [Theory]
    [InlineData("reboot=k", "reboot -f", "guest reset (i8042)", 0)]
    [InlineData("reboot=p", "reboot -f", "guest reset (port 0xcf9)", 0)]
    [InlineData("reboot=t", "reboot -f", "triple fault", 0)]
    [InlineData("reboot=k", "poweroff -f", "poweroff", 0)]
    [InlineData("reboot=k", "halt -f", "halted", 0)]
    [InlineData("reboot=k", "echo c > /proc/sysrq-trigger", "guest panic", 34)]
    public async Task The_guests_end_is_the_programs_end(string reboot, string command, string closing, int exitCode)
    {
        await using var program = ActorVmmProcess.Start("run", Describe(reboot), "--hypervisor", "soft");
        await program.Shell.LogInAsync();
        program.Shell.Type(command);
        var (code, line) = await program.EndAsync(EndDeadline);
        Assert.Equal(($"stopped: {closing}", exitCode), (line, code));
    }

    /// <summary>A Firecracker description of the stock guest.</summary>
    private string Describe(string reboot)
    {
        var path = Path.Combine(files.Directory, $"{reboot.Replace('=', '-')}.json");
        File.WriteAllText(path, JsonSerializer.Serialize(new Dictionary<string, object>(StringComparer.Ordinal)
        {
            ["boot-source"] = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["kernel_image_path"] = files.Image.KernelPath,
                ["initrd_path"] = files.Image.InitramfsPath,
                ["boot_args"] = $"{RunningGuest.CommandLine} {reboot}",
            },
            ["drives"] = Array.Empty<object>(),
            ["machine-config"] = new Dictionary<string, int>(StringComparer.Ordinal) { ["vcpu_count"] = 1, ["mem_size_mib"] = 256 },
        }));
        return path;
    }
}
