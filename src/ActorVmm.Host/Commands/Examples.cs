using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.Runtime.CompilerServices;

namespace ActorVmm.Host.Commands;

/// <summary>Examples that a command's help ends with.</summary>
internal static class Examples
{
    private static readonly ConditionalWeakTable<Command, string[]> s_examples = [];

    /// <summary>Gives a command its examples.</summary>
    public static Command Of(Command command, params string[] lines)
    {
        s_examples.AddOrUpdate(command, lines);
        return command;
    }

    /// <summary>The examples of a command; empty where it has none.</summary>
    public static IReadOnlyList<string> For(Command command) => s_examples.TryGetValue(command, out var lines) ? lines : [];

    /// <summary>Makes the help of a whole program end with the examples.</summary>
    public static void Install(RootCommand root)
    {
        foreach (var option in root.Options.OfType<HelpOption>())
            if (option.Action is SynchronousCommandLineAction usual) option.Action = new HelpWithExamples(usual);
    }

    private sealed class HelpWithExamples(SynchronousCommandLineAction usual) : SynchronousCommandLineAction
    {
        public override bool ClearsParseErrors => true; // who asks for help need not give the rest right

        public override int Invoke(ParseResult parseResult)
        {
            var status = usual.Invoke(parseResult);
            var lines = For(parseResult.CommandResult.Command);
            if (lines.Count == 0) return status;
            var output = parseResult.InvocationConfiguration.Output;
            output.WriteLine("Examples:");
            foreach (var line in lines) output.WriteLine("  " + line);
            output.WriteLine();
            return status;
        }
    }
}
