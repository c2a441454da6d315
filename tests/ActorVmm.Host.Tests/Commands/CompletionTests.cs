using System.Globalization;
using ActorVmm.Host.Commands;
using ActorVmm.Host.Tests.Terminal;

namespace ActorVmm.Host.Tests.Commands;

/// <summary>Completion as a user has it: an interactive shell on a terminal, Tab, Enter; and what the program was then called with.</summary>
public sealed class CompletionTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    [SkippableTheory]
    [InlineData("bash")]
    [InlineData("zsh")]
    public async Task A_shell_completes_commands_options_values_vms_and_files(string shell)
    {
        var path = (string[])["/bin/" + shell, "/usr/bin/" + shell];
        var program = path.FirstOrDefault(File.Exists);
        Skip.If(program is null, $"{shell} is not installed");
        Skip.IfNot(File.Exists("/usr/bin/setsid"), "setsid (util-linux) is not installed");
        var services = new HostServices(new HypervisorCatalog(("soft", () => new FakeHypervisor("soft"))), new FakeVmHost());
        using var script = new StringWriter(CultureInfo.InvariantCulture);
        Assert.Equal(0, await new CommandLineInterface(services, new ConsoleDescriptors(0, 1, script, _ => { }), script)
            .InvokeAsync(["completion", shell]));
        _here.Write("completion", script.ToString());
        _here.Write("fleet-of-two.conf", "");
        // It stands for the program: it knows three VMs, and notes what it is called with.
        var stub = _here.Write("actorvmm", $"""
            #!/bin/sh
            echo "$@" >>{_here.Path}/calls
            if [ "$1" = ps ]; then printf 'db\nweb-0\nweb-1\n'; fi

            """);
        File.SetUnixFileMode(stub, UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.UserWrite);

        using var terminal = new PseudoTerminal();
        terminal.StartProgram(_here.Path, shell == "bash" ? [program!, "--norc", "--noprofile", "-i"] : [program!, "-f", "-i"]);
        terminal.Type($"PATH={_here.Path}:$PATH\n");
        if (shell == "zsh") terminal.Type($"autoload -Uz compinit && compinit -u -d {_here.Path}/dump\n");
        terminal.Type("source ./completion\n");
        terminal.Type("echo rea''dy\n");
        terminal.WaitFor("ready");
        foreach (var (keys, call) in ((string, string)[])
            [
                ("resu\tweb-1", "resume web-1"), ("stop d\t--dead\t5s we\t0", "stop db --deadline 5s web-0"),
                ("demo --hyper\tso\t", "demo --hypervisor soft"), ("link db net0 do\t", "link db net0 down"),
                ("host --conf\tfleet\t --che\t", "host --config fleet-of-two.conf --check"), ("compl\tz\t", "completion zsh"),
                ("events --vm d\t", "events --vm db"), ("experiment rep\t", "experiment replay"), ("check --set a=1 fleet\t", "check --set a=1 fleet-of-two.conf"),
            ])
        {
            terminal.Type($"actorvmm {keys}\n");
            terminal.WaitUntil(() => Calls().Contains(call), $"a call of '{call}', not {string.Join(" | ", Calls())}");
        }

        // The host that is asked is the one on the line, and the program the one on the line.
        terminal.Type("./actorvmm pause --socket /somewhere/host.sock we\t1\n");
        terminal.WaitUntil(() => Calls().Contains("pause --socket /somewhere/host.sock web-1"), $"pause, not {string.Join(" | ", Calls())}");
        Assert.Contains("ps --names --socket /somewhere/host.sock", Calls());
        Assert.DoesNotContain("rror", terminal.Shown, StringComparison.Ordinal);
        terminal.Type("exit\n");
        terminal.WaitForExit();
    }

    private string[] Calls()
    {
        try { return [.. File.ReadAllLines(Path.Combine(_here.Path, "calls")).Select(line => line.Trim())]; }
        catch (FileNotFoundException) { return []; }
    }
}
