using System.CommandLine;
using ActorVmm.Host.Experiments;
using ActorVmm.Host.Terminal;

namespace ActorVmm.Host.Commands;

/// <summary>The command line of <c>experiment</c>.</summary>
internal static class ExperimentCommands
{
    public static Command Of(ConsoleDescriptors descriptors)
    {
        var command = new Command("experiment", "Fault experiments: many runs of a guest while things go wrong on purpose, and what is true of all.")
        {
            Run(descriptors), Replay(descriptors), Diff(descriptors), Boot(descriptors),
        };
        return Examples.Of(command, "actorvmm experiment run config/experiments/ext4-torn-writes.conf");
    }

    private static ExperimentCommand Make(ConsoleDescriptors descriptors) => new(Console.Out, descriptors.Errors, Libc.IsTerminal(2));

    private static Command Run(ConsoleDescriptors descriptors)
    {
        var file = new Argument<string>("FILE") { Description = "An experiment; config/experiments/ has some." };
        var seeds = new Option<int?>("--seeds") { Description = "Number of runs.", HelpName = "N" };
        seeds.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && int.TryParse(result.Tokens[0].Value, out var value) && value is < 1 or > 1_000_000)
                result.AddError($"--seeds {value}: allowed is 1 to 1000000");
        });
        var seed = new Option<ulong?>("--seed") { Description = "The first seed.", HelpName = "N" };
        var folder = new Option<string?>("--output") { Description = "Folder for the runs (default: runs/NAME).", HelpName = "FOLDER" };
        var json = new Option<bool>("--json") { Description = "For machines." };
        var command = new Command("run", "Runs an experiment and judges its properties. Exit code 0: all hold; 40: one does not; 41: a guest did not "
            + "end in its time; 42: the monitor failed.") { file, seeds, seed, folder, json };
        command.SetAction((parsed, cancel) => Make(descriptors).RunAsync(
            parsed.GetValue(file)!, parsed.GetValue(seeds), parsed.GetValue(seed), parsed.GetValue(folder), parsed.GetValue(json), cancel));
        return Examples.Of(command, "actorvmm experiment run config/experiments/ext4-torn-writes.conf",
            "actorvmm experiment run FILE --seeds 100 --json");
    }

    private static Command Replay(ConsoleDescriptors descriptors)
    {
        var run = new Argument<string>("RUN") { Description = "The folder of a run." };
        var folder = new Option<string?>("--output") { Description = "Folder for the new run (default: RUN-replay).", HelpName = "FOLDER" };
        var command = new Command("replay", "Repeats one run from its seed and plan. Exit code 0: the same console, trace and instruction count; "
            + "43: not.") { run, folder };
        command.SetAction((parsed, cancel) => Make(descriptors).ReplayAsync(parsed.GetValue(run)!, parsed.GetValue(folder), cancel));
        return Examples.Of(command, "actorvmm experiment replay runs/ext4-torn-writes/seed-2");
    }

    private static Command Diff(ConsoleDescriptors descriptors)
    {
        var left = new Argument<string>("LEFT") { Description = "The folder of a run." };
        var right = new Argument<string>("RIGHT") { Description = "The folder of another." };
        var command = new Command("diff", "Prints the last event that two runs have in common and the first in which they differ. Exit code 43 "
            + "where they do.") { left, right };
        command.SetAction((parsed, _) => Make(descriptors).DiffAsync(parsed.GetValue(left)!, parsed.GetValue(right)!));
        return Examples.Of(command, "actorvmm experiment diff runs/ext4-torn-writes/seed-1 runs/ext4-torn-writes/seed-2");
    }

    private static Command Boot(ConsoleDescriptors descriptors)
    {
        var folder = new Argument<string>("RUN");
        var seed = new Option<ulong>("--seed") { Required = true };
        var command = new Command("boot", "One phase of a run, in a process of its own that may be killed.") { folder, seed };
        command.Hidden = true;
        command.SetAction((parsed, cancel) => Make(descriptors).BootAsync(parsed.GetValue(folder)!, parsed.GetValue(seed), cancel));
        return command;
    }
}
