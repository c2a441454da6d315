using System.Text.Json;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Host.Commands;

namespace ActorVmm.Host.Tests.Fleet;

/// <summary>The commands against a daemon, right and wrong uses, with guests that echo what they are typed.</summary>
public sealed class HostCommandTests
{
    private const string Two = """
        templates { t { kernel.path = vmlinuz, memory.size-mib = 16, hypervisor = soft, stop.deadline = 50ms } }
        vms { a { template = t }, b { template = t, start = manual } }
        """;

    [Fact]
    public async Task Vms_are_listed_started_stopped_paused_and_removed()
    {
        await using var host = await new HostFixture().StartAsync(Two);

        var (status, output, errors) = await host.CommandAsync("ps");
        Assert.Equal((0, ""), (status, errors));
        Assert.Matches(@"(?s)^NAME +STATE +UPTIME +RESTARTS +CPU +MEMORY +LAST CAUSE\na +running +\d+s +0 .*\nb +stopped +- ", output);
        Assert.Equal((0, "b: running\n", ""), await host.CommandAsync("start b"));
        Assert.Equal((0, "a: paused\nb: paused\n", ""), await host.CommandAsync("pause a b"));
        Assert.Equal((0, "a: running\n", ""), await host.CommandAsync("resume a"));
        Assert.Equal((0, "a: stopped\n", ""), await host.CommandAsync("stop a"));
        Assert.Equal((0, "b: stopped\n", ""), await host.CommandAsync("kill b"));
        Assert.Equal((0, "b: running\n", ""), await host.CommandAsync("restart b --deadline 0s"));
        Assert.Equal((33, "", "actorvmm: b is running: stop it first, or remove it by force\n"), await host.CommandAsync("rm b"));
        Assert.Equal((0, "a: removed\nb: removed\n", ""), await host.CommandAsync("rm -f a b"));
        Assert.Equal((0, "[]\n", ""), await host.CommandAsync("ps --json"));
    }

    [Theory]
    [InlineData("start nix", 33, "there is no VM named nix")]
    [InlineData("logs nix", 33, "there is no VM named nix")]
    [InlineData("console nix", 33, "there is no VM named nix")]
    [InlineData("inspect nix", 33, "there is no VM named nix")]
    [InlineData("inspect a/b/c", 33, "a is stopped, so it has no b")]
    [InlineData("pause b", 33, "b is stopped and cannot be paused")]
    [InlineData("link nix net0 up", 33, "there is no VM named nix")]
    [InlineData("link a net0 up", 33, "a is stopped: only one that runs has cables")]
    [InlineData("link a net0", 153, "Required argument 'STATE' missing")]
    [InlineData("link a net0 sideways", 153, "sideways")]
    [InlineData("stop a --deadline soon", 152, "allowed is a time")]
    [InlineData("logs a --tail -1", 153, "--tail -1: allowed is 0 or more")]
    [InlineData("logs a --tail soon", 153, "soon")]
    [InlineData("console a --replay -5", 153, "--replay -5: allowed is 0 or more")]
    [InlineData("top -n -3", 153, "--iterations -3: allowed is 0 or more")]
    [InlineData("top -n 1 -d -1", 153, "--period -1: allowed is more than 0 and up to 3600 seconds")]
    [InlineData("top -n 1 -d nan", 153, "--period nan: allowed is more than 0")]
    [InlineData("top -n 1 -d soon", 153, "soon")]
    [InlineData("host --tcp-port 99999 --token-file tok", 153, "--tcp-port 99999: allowed is 0 to 65535")]
    [InlineData("start a/b", 153, "'a/b' is no VM's name")]
    [InlineData("rm ..", 153, "'..' is no VM's name")]
    [InlineData("create nix.json", 152, "cannot be read")]
    [InlineData("inject a kind=block-eoi", 152, "did you mean block-eio?")]
    [InlineData("inject b kind=block-eio", 33, "b is stopped: a fault needs a VM that runs")]
    [InlineData("inject a", 153, "give a rule, or --heal")]
    [InlineData("start", 153, "Required argument 'VM' missing")]
    [InlineData("ps a b", 153, "Unrecognized command or argument")]
    [InlineData("frobnicate", 153, "Unrecognized command or argument 'frobnicate'")]
    public async Task Wrong_uses_are_told_what_is_wrong(string line, int status, string words)
    {
        await using var host =
            await new HostFixture()
                .StartAsync(Two.Replace("a { template = t }", "a { template = t, start = manual }", StringComparison.Ordinal));
        var answer = await host.CommandAsync(line);
        Assert.Equal((status, ""), (answer.Status, answer.Output));
        Assert.Contains(words, answer.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_cable_of_a_network_interface_is_pulled_and_put_in()
    {
        var fake = new FakeVmHost();
        await using var host = await new HostFixture(fake).StartAsync(
            "vms { a { kernel.path = vmlinuz, memory.size-mib = 16, hypervisor = soft, stop.deadline = 50ms, "
            + "net = [{ user {} }, { user {} }] } }");

        Assert.Equal((0, "a: net1 down\n", ""), await host.CommandAsync("link a net1 down"));
        Assert.Equal((0, "{\"vm\":\"a\",\"device\":\"net0\",\"state\":\"up\"}\n", ""), await host.CommandAsync("link a net0 up --json"));
        Assert.Equal((33, "", "actorvmm: a has no network interface net2; it has net0, net1\n"), await host.CommandAsync("link a net2 up"));
        Assert.Equal([("a", "net1", new NetUpdate(Plugged: false)), ("a", "net0", new NetUpdate(Plugged: true))], fake.Updates);
        var events = (await host.CommandAsync("events --vm a")).Output;
        Assert.Matches("(?s)a +link +net1 down.*a +link +net0 up", events);
    }

    [Fact]
    public async Task A_fault_is_injected_and_healed()
    {
        await using var host = await new HostFixture().StartAsync(Two);
        Assert.Equal((0, "", ""), await host.CommandAsync("inject a kind=actor-crash,device=serial0,times=3"));
        Assert.Contains("injected: actor-crash (actor-crash on serial0)", (await host.CommandAsync("events")).Output, StringComparison.Ordinal);
        Assert.Equal((0, "", ""), await host.CommandAsync("inject a --heal"));
        Assert.Equal((0, "{\"vm\":\"a\",\"rule\":\"kind=actor-crash,device=serial0\",\"healed\":false}\n", ""),
            await host.CommandAsync("inject a kind=actor-crash,device=serial0 --json"));
        Assert.Equal((0, "{\"vm\":\"a\",\"rule\":null,\"healed\":true}\n", ""), await host.CommandAsync("inject a --heal --json"));
        Assert.Contains("all faults end", (await host.CommandAsync("events")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Top_tells_machines_what_its_table_shows()
    {
        await using var host = await new HostFixture().StartAsync(Two);
        using var top = JsonDocument.Parse((await host.CommandAsync("top -n 1 -d 0.05 --json")).Output);
        Assert.Equal(2, top.RootElement.GetArrayLength());
        foreach (var vm in top.RootElement.EnumerateArray())
            Assert.True(vm.GetProperty("cpuPercent").GetDouble() >= 0 && vm.GetProperty("exitsPerSecond").GetDouble() >= 0
                && vm.GetProperty("memoryMib").GetInt32() == 16, vm.GetRawText());
    }

    [Fact]
    public async Task Without_a_host_every_command_says_how_to_start_one()
    {
        await using var host = new HostFixture();
        var answer = await host.CommandAsync("ps");
        Assert.Equal(33, answer.Status);
        Assert.Contains("start one with \"actorvmm host --config FILE\"", answer.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_console_replays_takes_keys_and_lets_go_without_stopping()
    {
        await using var host = await new HostFixture().StartAsync(Two);

        var first = await host.CommandAsync("console a", "xyz");
        Assert.Equal((0, "Welcome to ActorVmm\r\nREADY\r\nxyz"), (first.Status, first.Output));
        var second = await host.CommandAsync("console a --replay 3", "!");
        Assert.Equal((0, "xyz!"), (second.Status, second.Output));
        Assert.Equal((0, "Welcome to ActorVmm\r\nREADY\r\nxyz!", ""), await host.CommandAsync("logs a"));
        Assert.Equal((0, "xyz!", ""), await host.CommandAsync("logs a --tail 1"));
        Assert.Equal((0, "READY\r\nxyz!", ""), await host.CommandAsync("logs -n 2 a"));
        Assert.Equal((0, "", ""), await host.CommandAsync("logs a --tail 0"));
        Assert.Equal((0, "Welcome to ActorVmm\r\nREADY\r\nxyz!", ""), await host.CommandAsync("logs a --tail 99"));
        Assert.Equal((0, "\"Welcome to ActorVmm\"\n\"READY\"\n\"xyz!\"\n", ""), await host.CommandAsync("logs a --json"));
        using (var http = host.Http()) Assert.Equal("yz!", await http.GetStringAsync("/vms/a/logs?tail=3"));
        Assert.Contains("running", (await host.CommandAsync("ps")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_guest_that_ends_by_itself_is_seen_with_its_cause_and_its_logs_go_on_after_a_restart()
    {
        await using var host = await new HostFixture().StartAsync(Two);
        await host.CommandAsync("console a", "p");
        await host.EventuallyAsync(async () => (await host.CommandAsync("ps")).Output.Contains("failed", StringComparison.Ordinal),
            "the panic is seen");
        using var vms = JsonDocument.Parse((await host.CommandAsync("ps --json")).Output);
        Assert.Equal(("guest panic", 34),
            (vms.RootElement[0].GetProperty("lastCause").GetString(), vms.RootElement[0].GetProperty("lastExitCode").GetInt32()));
        await host.CommandAsync("start a");
        Assert.EndsWith("pWelcome to ActorVmm\r\nREADY\r\n", (await host.CommandAsync("logs a")).Output, StringComparison.Ordinal);
        var events = (await host.CommandAsync("events --vm a")).Output;
        Assert.Matches("(?s)a +defined.*a +starting.*a +started.*a +failed +guest panic.*a +started +run 2", events);
    }

    [Fact]
    public async Task A_reload_starts_what_is_new_stops_what_is_gone_and_says_what_needs_a_restart()
    {
        await using var host = await new HostFixture().StartAsync(Two);
        host.Here.Write("fleet.conf",
            Two.Replace("a {", "c {", StringComparison.Ordinal).Replace("memory.size-mib = 16", "memory.size-mib = 17",
                StringComparison.Ordinal));
        await host.CommandAsync("start b");

        Assert.Equal((0, "added    c\nremoved  a\nchanged  b: takes effect with actorvmm restart b\n", ""),
            await host.CommandAsync("reload"));
        Assert.Contains("running (needs restart)", (await host.CommandAsync("ps")).Output, StringComparison.Ordinal);
        await host.CommandAsync("restart b");
        Assert.Contains("0/17 MiB", (await host.CommandAsync("ps")).Output, StringComparison.Ordinal);

        // What was removed by hand is in the description still; and some keys of the host only another host can take.
        await host.CommandAsync("rm -f c");
        host.Here.Write("fleet.conf", "host { max-vms = 9, stop-deadline = 9s }\n" + File.ReadAllText(host.ConfigPath));
        Assert.Equal((0, "added    c\nchanged  host: max-vms: takes effect when the host is started again\n", ""),
            await host.CommandAsync("reload"));
        using (var report = JsonDocument.Parse((await host.CommandAsync("reload --json")).Output))
            Assert.Equal("max-vms", Assert.Single(report.RootElement.GetProperty("host").EnumerateArray()).GetString());

        host.Here.Write("fleet.conf", "vms { b { kernel.path = nix } }");
        var wrong = await host.CommandAsync("reload");
        Assert.Equal(152, wrong.Status);
        Assert.Contains("no such file", wrong.Errors, StringComparison.Ordinal);
        Assert.Equal("b\nc\n", (await host.CommandAsync("ps --names")).Output);
    }

    [Fact]
    public async Task The_daemon_ends_its_guests_gives_its_socket_back_and_refuses_a_second_one_on_it()
    {
        await using var host = await new HostFixture().StartAsync(Two);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(host.Socket));
        var second = new StringWriter(System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(33, await new ActorVmm.Host.Fleet.HostDaemon(host.Services, new ConsoleDescriptors(0, 1, second, _ => { }))
            .RunAsync(new(null, host.Socket, null, null, Verbose: false)).WaitAsync(HostFixture.Patience));
        Assert.Contains("another process listens", second.ToString(), StringComparison.Ordinal);
        Assert.Equal((0, "a\nb\n", ""), await host.CommandAsync("ps --names")); // the first one is reached as before

        Assert.Equal(0, await host.EndAsync());
        Assert.False(File.Exists(host.Socket));
        Assert.EndsWith("stopped: requested\n", host.DaemonErrors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("host"), InlineData("ps")]
    public async Task A_socket_whose_path_is_too_long_is_refused(string command)
    {
        await using var host = new HostFixture();
        var errors = new StringWriter(System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(153, await new CommandLineInterface(host.Services, new ConsoleDescriptors(0, 1, errors, _ => { }), TextWriter.Null)
            .InvokeAsync([command, "--socket", "/tmp/" + new string('x', 115)]).WaitAsync(HostFixture.Patience));
        Assert.Contains("the whole path has 120 bytes; allowed are 107", errors.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_file_that_is_no_socket_is_never_deleted_for_one()
    {
        await using var host = new HostFixture();
        var path = host.Here.Write("notes.txt", "precious");
        foreach (var line in (string[])[$"host --socket {path}", $"run --api-sock {path}"])
        {
            var errors = new StringWriter(System.Globalization.CultureInfo.InvariantCulture);
            var status = await new CommandLineInterface(host.Services, new ConsoleDescriptors(0, 1, errors, _ => { }), TextWriter.Null)
                .InvokeAsync(line.Split(' ')).WaitAsync(HostFixture.Patience);
            Assert.True(status == 33 && errors.ToString().Contains("exists and is no socket", StringComparison.Ordinal),
                $"{line}: {status} {errors}");
            Assert.Equal("precious", await File.ReadAllTextAsync(path));
        }
    }

    [Fact]
    public async Task Every_command_has_help_with_examples_and_both_shells_complete_it()
    {
        await using var host = new HostFixture();
        var bash = (await host.CommandAsync("completion bash")).Output;
        var zsh = (await host.CommandAsync("completion zsh")).Output;
        foreach (var command in (string[])["demo", "run", "check", "doctor", "host", "ps", "start", "stop", "pause", "resume", "kill",
            "restart", "rm",
            "logs", "console", "top", "tree", "inspect", "events", "pulse", "link", "inject", "reload", "create", "completion", "experiment"])
        {
            var help = await host.CommandAsync($"{command} --help");
            Assert.True(help.Status == 0 && help.Output.Contains("Examples:", StringComparison.Ordinal), $"{command}: {help.Output}");
            Assert.Contains($"    {command})\n", bash, StringComparison.Ordinal);
            Assert.Contains($"    {command})\n", zsh, StringComparison.Ordinal);
            Assert.Contains($"      '{command}:", zsh, StringComparison.Ordinal);
        }

        foreach (var part in (string[])["run", "replay", "diff"])
            Assert.Contains("Examples:", (await host.CommandAsync($"experiment {part} --help")).Output, StringComparison.Ordinal);
    }
}
