using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using System.Threading.Channels;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Testing.Guests;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>The daemon as a service manager sees it: its messages, its signals, what outlives it.</summary>
public sealed class DaemonTests : IDisposable
{
    private readonly DirectoryInfo _here = Directory.CreateTempSubdirectory("actorvmm-daemon-");
    private readonly string _kernel;

    public DaemonTests()
    {
        _kernel = Path.Combine(_here.FullName, "tiny");
        File.WriteAllBytes(_kernel, HaltingKernel.Elf());
    }

    public void Dispose() => _here.Delete(recursive: true);

    private string Tiny(string vms, string host = "") => $$"""
        host { {{host}} }
        templates { tiny { kernel.path = "{{_kernel}}", memory.size-mib = 2, hypervisor = soft, stop.deadline = 100ms } }
        vms { {{vms}} }
        """;

    /// <summary>sd_notify(3) over a real socket, in the file system and with an abstract name, through a whole life.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_service_manager_hears_ready_watchdog_reloading_and_stopping(bool isAbstract)
    {
        var name = isAbstract ? $"@actorvmm-test-{Guid.NewGuid():N}" : Path.Combine(_here.FullName, "notify");
        using var manager = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        manager.Bind(new UnixDomainSocketEndPoint(isAbstract ? "\0" + name[1..] : name));
        var heard = Channel.CreateUnbounded<string>();
        var listening = ListenAsync(manager, heard.Writer);

        await using var host = HostProcess.Start(Tiny("a { template = tiny }, b { template = tiny }"),
            new Dictionary<string, string>(StringComparer.Ordinal) { ["NOTIFY_SOCKET"] = name, ["WATCHDOG_USEC"] = "400000" });
        var early = await ExpectAsync(heard.Reader, host, "READY=1");
        Assert.Contains(early, text => text.Contains("2 of 2 VMs started", StringComparison.Ordinal)
            && text.Contains("EXTEND_TIMEOUT_USEC=", StringComparison.Ordinal));
        Assert.EndsWith("STATUS=2 VMs", early[^1], StringComparison.Ordinal);
        await ExpectAsync(heard.Reader, host, "WATCHDOG=1");
        await ExpectAsync(heard.Reader, host, "WATCHDOG=1");

        // What is new starts, what is gone goes, what has changed says so, and what only another host can change says that.
        await File.WriteAllTextAsync(host.Config,
            Tiny("a { template = tiny, memory.size-mib = 3 }, c { template = tiny }", "max-vms = 7, stop-deadline = 9s"));
        var before = Microseconds();
        host.Signal("HUP");
        var reloading = (await ExpectAsync(heard.Reader, host, "RELOADING=1"))[^1];
        var stamp = long.Parse(reloading[(reloading.IndexOf("MONOTONIC_USEC=", StringComparison.Ordinal) + 15)..], CultureInfo.InvariantCulture);
        Assert.InRange(stamp, before, Microseconds()); // CLOCK_MONOTONIC, which is this process's as well
        await ExpectAsync(heard.Reader, host, "READY=1\nSTATUS=reloaded");
        using (var http = host.Http())
        {
            using var vms = JsonDocument.Parse(await http.GetStringAsync("/vms"));
            Assert.Equal([("a", "running", true), ("c", "running", false)], vms.RootElement.EnumerateArray().Select(vm =>
                (vm.GetProperty("name").GetString(), vm.GetProperty("state").GetString(), vm.GetProperty("needsRestart").GetBoolean())));
        }

        // What it prints comes on another way than what it notifies.
        await HostProcess.EventuallyAsync(() => Task.FromResult(Regex.IsMatch(host.Errors,
            "(?s)added    c.*removed  b.*changed  a: takes effect with its next start.*changed  host: max-vms: takes effect when the host is started again")),
            () => "a report of the reload; it says: " + host.Errors);

        // A description with an error changes nothing, and the service is ready again.
        await File.WriteAllTextAsync(host.Config, "vms {");
        host.Signal("HUP");
        await ExpectAsync(heard.Reader, host, "RELOADING=1");
        await ExpectAsync(heard.Reader, host, "READY=1");
        using (var http = host.Http()) Assert.Contains("reload-failed", await http.GetStringAsync("/events"), StringComparison.Ordinal);

        host.Signal("TERM");
        await ExpectAsync(heard.Reader, host, "STOPPING=1");
        Assert.Equal(0, await host.EndAsync());
        Assert.False(File.Exists(host.Socket));
        manager.Dispose();
        await listening;
    }

    [Fact]
    public async Task What_consoles_printed_outlives_the_host_even_one_that_is_killed()
    {
        var description = Tiny("a { template = tiny }", "console-directory = consoles, console-kib = 8");
        var here = Directory.CreateDirectory(Path.Combine(_here.FullName, "state")).FullName;
        await using (var first = HostProcess.Start(description, here: here))
        {
            await first.UntilAsync("running", 1);
            await HostProcess.EventuallyAsync(() => Task.FromResult(Printed(here) == 1), () => "the file follows");
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path.Combine(here, "consoles/a.console")));
            first.Signal("KILL");
            Assert.NotEqual(0, await first.EndAsync());
        }

        // The second one finds the socket that the first has left, and what its VM had printed.
        await using (var second = HostProcess.Start(description, here: here))
        {
            await second.UntilAsync("running", 1);
            using var http = second.Http();
            await HostProcess.EventuallyAsync(async () => await http.GetStringAsync("/vms/a/logs") == "!!", () => "both runs are seen");
            second.Signal("TERM");
            Assert.Equal(0, await second.EndAsync());
        }

        await using (var third = HostProcess.Start(description, here: here))
        {
            await third.UntilAsync("running", 1);
            using var http = third.Http();
            await HostProcess.EventuallyAsync(async () => await http.GetStringAsync("/vms/a/logs") == "!!!", () => "all runs are seen");
            using var removed = await http.DeleteAsync("/vms/a?force=true");
            await HostProcess.EventuallyAsync(() => Task.FromResult(!File.Exists(Path.Combine(here, "consoles/a.console"))),
                () => "the file goes with the VM");
        }
    }

    [SkippableFact]
    public async Task The_unit_file_is_one_that_systemd_understands()
    {
        const string Tool = "/usr/bin/systemd-analyze";
        var unit = await File.ReadAllTextAsync(Path.Combine(Root(), "config/actorvmm.service"));
        foreach (var line in (string[])["Type=notify", "WatchdogSec=30", "ExecReload=/bin/kill -HUP $MAINPID", "NotifyAccess=main"])
            Assert.Contains(line + "\n", unit, StringComparison.Ordinal);
        Skip.IfNot(File.Exists(Tool), $"{Tool} is not installed");
        // The program is not in /opt here; everything else is as it is.
        var copy = Path.Combine(_here.FullName, "actorvmm.service");
        await File.WriteAllTextAsync(copy, unit.Replace("/opt/actorvmm/actorvmm", "/bin/true", StringComparison.Ordinal));
        var start = new ProcessStartInfo(Tool) { RedirectStandardError = true, RedirectStandardOutput = true };
        foreach (var word in (string[])["verify", "--man=no", copy]) start.ArgumentList.Add(word);
        using var process = Process.Start(start)!;
        var said = process.StandardError.ReadToEndAsync();
        var more = process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync().WaitAsync(HostProcess.Patience);
        var complaints = (await said + await more).Split('\n').Where(line => line.Contains("actorvmm", StringComparison.Ordinal));
        Assert.Empty(complaints);
        Assert.Equal(0, process.ExitCode);
    }

    private static string Root()
    {
        for (var at = new DirectoryInfo(AppContext.BaseDirectory); at is not null; at = at.Parent)
            if (File.Exists(Path.Combine(at.FullName, "config/actorvmm.service"))) return at.FullName;
        throw new InvalidOperationException("the tests run from a checkout of the project");
    }

    /// <summary>How much the file says was printed. Read by another program: this runtime would respect the host's lock.</summary>
    private static long Printed(string here)
    {
        var path = Path.Combine(here, "consoles/a.console");
        if (!File.Exists(path)) return 0;
        using var od = Process.Start(new ProcessStartInfo("od", ["-An", "-td8", "-j16", "-N8", path])
        {
            RedirectStandardOutput = true, RedirectStandardError = true,
        })!;
        var text = od.StandardOutput.ReadToEnd();
        od.WaitForExit();
        return long.TryParse(text.Trim(), CultureInfo.InvariantCulture, out var count) ? count : 0;
    }

    private static long Microseconds() => Stopwatch.GetTimestamp() / (Stopwatch.Frequency / 1_000_000);

    private static async Task ListenAsync(Socket manager, ChannelWriter<string> heard)
    {
        var buffer = new byte[4096];
        try
        {
            while (true)
            {
                var got = await manager.ReceiveAsync(buffer);
                heard.TryWrite(Encoding.UTF8.GetString(buffer, 0, got));
            }
        }
        catch (Exception over) when (over is SocketException or ObjectDisposedException) { /* the test is over */ }
    }

    /// <summary>Waits for a message that begins so; with those before it.</summary>
    private static async Task<List<string>> ExpectAsync(ChannelReader<string> heard, HostProcess host, string start)
    {
        var seen = new List<string>();
        using var late = new CancellationTokenSource(HostProcess.Patience);
        try
        {
            do seen.Add(await heard.ReadAsync(late.Token));
            while (!seen[^1].StartsWith(start, StringComparison.Ordinal));
            return seen;
        }
        catch (OperationCanceledException cause)
        {
            throw new TimeoutException($"no {start}; heard {string.Join(" | ", seen)}; it says: {host.Errors}", cause);
        }
    }
}
