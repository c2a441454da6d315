using ActorVmm.Devices.Faults;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Experiments;

namespace ActorVmm.Host.Tests.Experiments;

/// <summary>What an experiment's file says, and how runs are judged and compared. Whole runs are in the end-to-end tests.</summary>
public sealed class ExperimentTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private const string Least = "name = x\nsafety { script = [\"poweroff -f\"] }\n";

    private static RunEvidence Run(
        ulong seed, string console = "", string quiet = "", string exit = "poweroff", string? quietExit = null, bool check = true, int firings = 0) =>
        new(new RunResult
        {
            Experiment = "x", Seed = seed, Version = "1", Guest = "g", Fingerprint = "f",
            Safety = new BootResult(exit, "", 1, 2, null, new Dictionary<string, int>(StringComparer.Ordinal) { ["rule"] = firings }),
            Quiet = quietExit is null ? null : new BootResult(quietExit, "", 1, 2, null, new Dictionary<string, int>(StringComparer.Ordinal)),
            Checks = new Dictionary<string, bool>(StringComparer.Ordinal) { ["fsck"] = check },
        }, console, quiet);

    private static PropertyVerdict Judged(PropertyKind kind, PropertySubject subject, string value, params RunEvidence[] runs) =>
        Judge.Of(new Experiment { Name = "x", Properties = [new("p", kind, subject, value)] }, runs)[0];

    [Theory]
    [InlineData("never-flushes.conf")]
    [InlineData("ext4-torn-writes.conf")]
    public void The_ready_experiments_are_sound(string file)
    {
        var experiment = ExperimentReader.ReadFile(Path.Combine(Repository.Root, "config", "experiments", file));
        Assert.Equal(Path.GetFileNameWithoutExtension(file), experiment.Name);
        Assert.NotEmpty(experiment.Explains);
        Assert.NotEmpty(experiment.Plan.Rules);
        Assert.Contains(experiment.Properties, property => property.Kind == PropertyKind.Always);
        Assert.Contains(experiment.Properties, property => property.Kind == PropertyKind.Sometimes);
    }

    [Fact]
    public void A_file_says_what_it_says()
    {
        var experiment = ExperimentReader.Read("""
            name = all, explains = "why", seeds { first = 7, count = 3 }, vm { memory-mib = 512, vcpus = 2, clock = host }, limit = 90s
            disks = [ { name = a, size-mib = 8 }, { name = b, size-mib = 16, format = ext4 } ]
            safety { script = [one, "two three"], faults { rules = [ { kind = block-eio, name = bad } ], heal-at = 1s } }
            quiet { script = [four] }
            checks = [ { name = fsck, disk = b, run = [e2fsck, -fn] } ]
            properties = [ { name = p, is = sometimes, fault = bad }, { name = q, is = always, check = fsck } ]
            """, "x.conf");
        Assert.Equal((7UL, 3, 512, 2, TimeSpan.FromSeconds(90)),
            (experiment.FirstSeed, experiment.Seeds, experiment.MemoryMib, experiment.Vcpus, experiment.Limit));
        Assert.Equal([new ExperimentDisk("a", 8, false), new ExperimentDisk("b", 16, true)], experiment.Disks);
        Assert.Equal(["one", "two three"], experiment.Script);
        Assert.Equal(["four"], experiment.QuietScript);
        Assert.Equal(FaultKind.BlockEio, Assert.Single(experiment.Plan.Rules).Kind);
        Assert.Equal(1_000_000_000UL, experiment.Plan.HealAt);
        Assert.Equal(["e2fsck", "-fn"], Assert.Single(experiment.Checks).Program);
    }

    [Theory]
    [InlineData("properties = []", "shows nothing")]
    [InlineData("properties = [ { name = p, is = always } ]", "says nothing")]
    [InlineData("properties = [ { name = p, is = never, console = x } ]", "one of always, sometimes, reachable")]
    [InlineData("properties = [ { name = p, is = always, console = \"(\" } ]", "no regular expression")]
    [InlineData("properties = [ { name = p, is = always, exit = gone } ]", "one of poweroff")]
    [InlineData("properties = [ { name = p, is = always, check = fsck } ]", "no check of this name")]
    [InlineData("properties = [ { name = p, is = always, fault = f } ]", "no rule of this name")]
    [InlineData("properties = [ { name = p, is = always, console = a, exit = poweroff } ]", "about one thing")]
    [InlineData("limit = long, properties = [ { name = p, is = always, console = a } ]", "a host time such as")]
    public void A_file_that_makes_no_sense_is_refused(string text, string expected) =>
        Assert.Contains(expected, Assert.Throws<DescriptionException>(() => ExperimentReader.Read(Least + text, "x.conf")).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("", null)]
    [InlineData("network = none", null)]
    [InlineData("network = inside", null)]
    [InlineData("network = outside", "network = outside")]
    [InlineData("vm.clock = host", "vm.clock = host")]
    public async Task What_cannot_repeat_is_not_replayed_and_said_so(string more, string? why)
    {
        var text = Least + more + "\nproperties = [ { name = p, is = always, exit = poweroff } ]\n";
        Assert.Equal(why is null, ExperimentReader.Read(text, "x.conf").Unrepeatable is null);
        if (why is null) return;
        _here.Write("run/experiment.conf", text);
        _here.Write("run/run.json", RunJson);
        await using var errors = new StringWriter();
        var command = new ExperimentCommand(TextWriter.Null, errors, terminal: false);
        Assert.Equal(ExitCodes.Failure, await command.ReplayAsync(Path.Combine(_here.Path, "run"), null, CancellationToken.None));
        Assert.Contains(why, errors.ToString(), StringComparison.Ordinal);
        Assert.Contains("experiment run --seed 1 --seeds 1", errors.ToString(), StringComparison.Ordinal);
    }

    private const string RunJson = """
        { "experiment": "x", "seed": 1, "version": "1", "guest": "g", "fingerprint": "f",
          "safety": { "exit": "poweroff", "detail": "", "instructions": 1, "nanoseconds": 2, "healed-at": null, "firings": {} } }
        """;

    [Fact]
    public void Always_is_broken_by_one_run_and_shows_it()
    {
        var verdict = Judged(PropertyKind.Always, PropertySubject.Console, "^ok$", Run(1, "ok\r\n"), Run(2, "not ok\r\n"), Run(3, "x\r\nok\r\n"));
        Assert.False(verdict.Holds);
        Assert.Equal(2UL, verdict.Example);
        Assert.Equal([1UL, 3UL], verdict.True);
    }

    [Theory]
    [InlineData(PropertyKind.Sometimes)]
    [InlineData(PropertyKind.Reachable)]
    internal void Sometimes_that_never_happened_fails(PropertyKind kind)
    {
        Assert.False(Judged(kind, PropertySubject.Fault, "rule", Run(1), Run(2)).Holds);
        var once = Judged(kind, PropertySubject.Fault, "rule", Run(1), Run(2, firings: 3));
        Assert.True(once.Holds);
        Assert.Equal(2UL, once.Example);
    }

    [Fact]
    public void Every_subject_is_looked_at()
    {
        var run = Run(1, "seen\r\n", "calm\r\n", "killed", "poweroff", check: false);
        bool True(PropertySubject subject, string value) => Judge.IsTrue(new("p", PropertyKind.Always, subject, value), run);
        Assert.True(True(PropertySubject.Console, "^seen$") && !True(PropertySubject.NoConsole, "seen") && True(PropertySubject.NoConsole, "calm"));
        Assert.True(True(PropertySubject.QuietConsole, "^calm$") && True(PropertySubject.NoQuietConsole, "seen"));
        Assert.True(True(PropertySubject.Exit, "killed") && !True(PropertySubject.Exit, "poweroff"));
        Assert.True(True(PropertySubject.QuietExit, "poweroff") && !True(PropertySubject.Check, "fsck"));
        Assert.False(Judge.IsTrue(new("p", PropertyKind.Always, PropertySubject.QuietExit, "poweroff"), Run(1))); // there was no quiet phase
    }

    [Theory]
    [InlineData("a\nb\nc\n", "a\nb\nc\n", ExitCodes.Success, "no difference in 3 events")]
    [InlineData("a\nb\nc\n", "a\nb\nX\n", ExitCodes.ExperimentDiffers, "2 events are the same\n  both   b\n  left   c\n  right  X\n")]
    [InlineData("a\nb\n", "a\n", ExitCodes.ExperimentDiffers, "  left   b\n  right  (has ended)\n")]
    public async Task Diff_shows_where_two_runs_part(string left, string right, int code, string expected)
    {
        foreach (var (name, events) in new[] { ("left", left), ("right", right) })
        {
            _here.Write($"{name}/safety-events.txt", events);
            _here.Write($"{name}/run.json", RunJson);
        }

        await using var output = new StringWriter();
        output.NewLine = "\n";
        var command = new ExperimentCommand(output, TextWriter.Null, terminal: false);
        Assert.Equal(code, await command.DiffAsync(Path.Combine(_here.Path, "left"), Path.Combine(_here.Path, "right")));
        Assert.Contains(expected, output.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("poweroff", "poweroff", "^ok$", ExitCodes.Success)]
    [InlineData("poweroff", "poweroff", "^never$", ExitCodes.ExperimentProperty)]
    [InlineData("timeout", null, "^never$", ExitCodes.ExperimentTimeout)]
    [InlineData("poweroff", "timeout", "^ok$", ExitCodes.ExperimentTimeout)]
    [InlineData("failed", null, "^never$", ExitCodes.ExperimentCrash)]
    [InlineData("poweroff", "failed", "^ok$", ExitCodes.ExperimentCrash)]
    public void Exit_codes_tell_a_crash_a_time_out_and_a_property_apart(string exit, string? quietExit, string pattern, int code)
    {
        var experiment = new Experiment { Name = "x", Properties = [new("p", PropertyKind.Always, PropertySubject.Console, pattern)] };
        RunEvidence[] runs = [Run(1, "ok\r\n"), Run(2, "ok\r\n", exit: exit, quietExit: quietExit)];
        Assert.Equal(code, ExperimentCommand.CodeOf(runs, Judge.Of(experiment, runs)));
    }

    [Fact]
    public void A_crash_comes_before_a_time_out_and_an_end_that_was_asked_for_is_neither()
    {
        var experiment = new Experiment { Name = "x", Properties = [new("p", PropertyKind.Always, PropertySubject.Console, "^ok$")] };
        RunEvidence[] both = [Run(1, "ok\r\n", exit: "timeout"), Run(2, "ok\r\n", exit: "failed")];
        Assert.Equal(ExitCodes.ExperimentCrash, ExperimentCommand.CodeOf(both, Judge.Of(experiment, both)));

        var asked = experiment with { Properties = [new("p", PropertyKind.Always, PropertySubject.Exit, "timeout")] };
        RunEvidence[] late = [Run(1, exit: "timeout")];
        Assert.Equal(ExitCodes.Success, ExperimentCommand.CodeOf(late, Judge.Of(asked, late)));
    }

    [Fact]
    public async Task A_folder_that_is_no_run_is_said_so()
    {
        await using var errors = new StringWriter();
        Assert.Equal(ExitCodes.Failure, await new ExperimentCommand(TextWriter.Null, errors, terminal: false).DiffAsync(_here.Path, _here.Path));
        Assert.Contains("is no run of an experiment", errors.ToString(), StringComparison.Ordinal);
    }
}
