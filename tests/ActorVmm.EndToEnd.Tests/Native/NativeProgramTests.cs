using System.Globalization;
using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using ActorVmm.EndToEnd.Tests.Fleet;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Guests;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Native;

/// <summary>The program compiled ahead of time does what the other does: no runtime beside it, and no compiler of .NET in it.</summary>
[Collection(LinuxGuests.Name)]
public sealed class NativeProgramTests(NativeProgram native, ITestOutputHelper output) : IClassFixture<NativeProgram>, IDisposable
{
    private static readonly TimeSpan s_short = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan s_long = TimeSpan.FromMinutes(15);
    private readonly DirectoryInfo _here = Directory.CreateTempSubdirectory("actorvmm-native-test-");

    public void Dispose() => _here.Delete(recursive: true);

    [SkippableTheory]
    [InlineData(0, "^0\\.1\\.0", "--version")]
    [InlineData(0, "Examples:", "demo", "--help")]
    [InlineData(153, "'pss'", "pss")]
    [InlineData(152, "nowhere", "check", "/nowhere.conf")]
    [InlineData(33, "no host answers", "ps", "--socket", "/nowhere.sock")]
    public async Task It_ends_with_the_exit_codes_of_the_program(int expected, string pattern, params string[] arguments)
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        var (code, said) = await NativeProgram.RunAsync(native.Path, s_short, arguments);
        Assert.Equal(expected, code);
        Assert.Matches(pattern, said);
    }

    [SkippableFact]
    public async Task The_doctor_finds_the_software_cpu_usable()
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        var (code, said) = await NativeProgram.RunAsync(native.Path, s_short, "doctor", "--json");
        Assert.Equal(0, code);
        using var report = JsonDocument.Parse(said);
        Assert.Contains(report.RootElement.GetProperty("hypervisors").EnumerateArray(),
            static one => one.GetProperty("hypervisor").GetString() == "soft" && one.GetProperty("usable").GetBoolean());
        Assert.NotEmpty(report.RootElement.GetProperty("host").EnumerateArray());
    }

    /// <summary>The whole script: host, ps, inspect, tree, events, console, create, faults, TCP with a token, stop, wrong uses.</summary>
    [SkippableFact]
    public async Task Every_command_does_as_a_new_user_expects()
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        await CommandScriptTests.RunAsync(native.Path, output);
    }

    [SkippableFact]
    public async Task Linux_boots_to_a_shell_on_compiled_code_and_has_a_disk_and_a_network()
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        await using var server = new FileServer();
        var conf = await DescribeAsync($$"""
            net = [ { id = eth0, user {} } ]
            block = [ { id = data, path = "{{DiskImages.Raw(_here.FullName, "data.img", 16)}}" } ]
            """, "actorvmm.net=dhcp");
        await using var program = ActorVmmProcess.StartProgram(native.Path, "run", conf, "--hypervisor", "soft");
        var shell = program.Shell;
        await shell.LogInAsync();
        Assert.Contains("Linux", await shell.RunAsync("uname -a"), StringComparison.Ordinal);
        // FIPS 180-2: one million times 'a'.
        Assert.StartsWith("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            await shell.RunAsync("head -c 1000000 /dev/zero | tr '\\0' a | sha256sum"), StringComparison.Ordinal);
        await shell.RunAsync("dd if=/dev/urandom of=/tmp/some bs=64k count=64 && dd if=/tmp/some of=/dev/vda bs=64k conv=fsync");
        Assert.Equal(await shell.RunAsync("sha256sum < /tmp/some"), await shell.RunAsync("head -c 4194304 /dev/vda | sha256sum"));
        const int Length = 8_000_000;
        Assert.Equal(FileServer.Sha256(FileServer.Content(Length)) + "  -", await shell.RunAsync(
            $"wget -q -O - http://10.0.2.2:{server.Port}/{Length} | sha256sum"));
        shell.Type("poweroff -f");
        Assert.Equal((0, "stopped: poweroff"), await program.EndAsync(s_short));
    }

    [SkippableFact]
    public async Task A_host_answers_on_every_path_of_its_api_and_says_that_code_is_compiled()
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        var conf = await File.ReadAllTextAsync(await DescribeAsync("", ""));
        await using var host = HostProcess.Start($"vms {{ linux {{ {conf}, hypervisor = soft }} }}", program: native.Path);
        await host.UntilAsync("running", 1);
        using var http = host.Http();
        await HostProcess.EventuallyAsync(
            async () => (await http.GetStringAsync("/vms/linux/logs")).Contains(GuestImage.Greeting, StringComparison.Ordinal),
            () => "the shell's greeting");
        var vcpu = await http.GetStringAsync("/inspect?path=linux/vcpus/0");
        Assert.Matches("[1-9][0-9]{3,} compiled", vcpu);

        using var document = JsonDocument.Parse(await http.GetStringAsync("/openapi/v1.json"));
        Assert.True(document.RootElement.GetProperty("paths").EnumerateObject().Count() > 15);
        Assert.Contains("<!doctype html>", await http.GetStringAsync("/"), StringComparison.OrdinalIgnoreCase);
        Assert.Contains("actorvmm_", await http.GetStringAsync("/metrics"), StringComparison.Ordinal);
        Assert.Contains("\"uptimeSeconds\"", await http.GetStringAsync("/host"), StringComparison.Ordinal);
        Assert.Contains("started", await http.GetStringAsync("/events"), StringComparison.Ordinal);
        using var wrong = await http.GetAsync(new Uri("/vms/linux/logs?tail=all", UriKind.Relative));
        Assert.Equal(HttpStatusCode.BadRequest, wrong.StatusCode);
        Assert.Contains("\"error\":{\"code\"", await wrong.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        using var pulse = await http.PostAsync(new Uri("/vms/linux/pulse", UriKind.Relative), null);
        Assert.Equal(HttpStatusCode.OK, pulse.StatusCode);
        host.Signal("TERM");
        Assert.Equal(0, await host.EndAsync());
    }

    [SkippableFact]
    public async Task Actors_that_crash_are_restarted_and_the_guest_sees_nothing()
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        var (code, said) = await NativeProgram.RunAsync(native.Path, s_long, "demo", "--crash", "--crashes", "20", "--hypervisor", "soft");
        Assert.True(code == 0, said);
        Assert.Contains("errors seen by the guest 0; 20 restarts; the guest ended by poweroff", said, StringComparison.Ordinal);
    }

    /// <summary>
    /// One run per build, in which the plan kills the process that the guest runs in: the console, the trace and the instructions are the
    /// same whichever compiler made the program.
    /// </summary>
    [SkippableFact]
    public async Task An_experiment_is_the_same_run_in_both_builds()
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        var file = Path.Combine(NativeProgram.Root, "config/experiments/ext4-torn-writes.conf");
        var dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } path ? path : "dotnet";
        string[] run = ["experiment", "run", file, "--seeds", "1", "--json", "--output"];
        // One seed need not show what is true in some runs only.
        var (code, said) = await NativeProgram.RunAsync(native.Path, s_long, [.. run, Path.Combine(_here.FullName, "native")]);
        var (other, alsoSaid) = await NativeProgram.RunAsync(
            dotnet, s_long, [Path.Combine(AppContext.BaseDirectory, "actorvmm.dll"), .. run, Path.Combine(_here.FullName, "other")]);
        Assert.True(code == other, said + alsoSaid);
        Assert.Equal(Fingerprint("other"), Fingerprint("native"));
        Assert.Contains("\"exit\": \"killed\"", said, StringComparison.Ordinal);

        string Fingerprint(string folder)
        {
            using var result = JsonDocument.Parse(File.ReadAllText(
                Directory.GetFiles(Path.Combine(_here.FullName, folder), "run.json", SearchOption.AllDirectories).Single()));
            return result.RootElement.GetProperty("fingerprint").GetString()!;
        }
    }

    [SkippableFact]
    public async Task Where_executable_memory_is_refused_it_says_so_once_and_interprets()
    {
        Skip.If(native.WhyNot is not null, native.WhyNot);
        var refuse = await BuildRefusalAsync();
        var kernel = Path.Combine(_here.FullName, "tiny");
        await File.WriteAllBytesAsync(kernel, HaltingKernel.Elf());
        var conf = Path.Combine(_here.FullName, "tiny.conf");
        await File.WriteAllTextAsync(conf, $"kernel.path = \"{kernel}\", memory.size-mib = 2, hypervisor = soft, vcpus.count = 2");
        await using var program = ActorVmmProcess.StartProgram(refuse, native.Path, "run", conf, "--verbose");
        await program.Transcript.ExpectAsync("!", s_short);
        program.Signal("TERM");
        var (code, errors) = await program.EndWithErrorsAsync(s_short);
        Assert.Equal(143, code);
        Assert.Single(Regex.Matches(errors, "code is interpreted only, at a tenth of the speed: memfd_create was refused",
            RegexOptions.None, TimeSpan.FromSeconds(5)));
    }

    /// <summary>A program that runs another without memfd_create, as a service manager's filter of system calls would.</summary>
    private async Task<string> BuildRefusalAsync()
    {
        var (source, program) = (Path.Combine(_here.FullName, "refuse.c"), Path.Combine(_here.FullName, "refuse"));
        await File.WriteAllTextAsync(source, """
            #include <errno.h>
            #include <linux/filter.h>
            #include <linux/seccomp.h>
            #include <stddef.h>
            #include <sys/prctl.h>
            #include <sys/syscall.h>
            #include <unistd.h>
            int main(int argc, char **argv) {
              struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
              };
              struct sock_fprog filter = { sizeof code / sizeof *code, code };
              if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) return 1;
              execv(argv[1], argv + 1);
              return 1;
            }
            """);
        var (code, said) = await NativeProgram.RunAsync(NativeProgram.Linker()!, s_short, "-o", program, source);
        Assert.True(code == 0, said);
        return program;
    }

    private async Task<string> DescribeAsync(string more, string commandLine)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(),
            new GuestImageOptions { Modules = ["pvpanic-mmio", "virtio_mmio", "virtio_net", "virtio_blk"] });
        var conf = Path.Combine(_here.FullName, "linux.conf");
        await File.WriteAllTextAsync(conf, string.Create(CultureInfo.InvariantCulture, $"""
            kernel.path = "{image.KernelPath}"
            kernel.initrd = "{image.InitramfsPath}"
            kernel.cmdline = "{RunningGuest.CommandLine} reboot=k {commandLine}"
            memory.size-mib = 256
            {more}
            """));
        return conf;
    }
}
