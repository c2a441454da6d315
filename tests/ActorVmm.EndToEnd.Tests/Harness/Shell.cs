using System.Globalization;
using System.Text.RegularExpressions;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>The guest's shell as a function: a command line in, its output and status out.</summary>
/// <param name="transcript">The console's output.</param>
/// <param name="type">Types on the console.</param>
public sealed class Shell(ConsoleTranscript transcript, Action<string> type)
{
    /// <summary>How long a boot may take on a busy build machine, an interpreter and all.</summary>
    public static readonly TimeSpan BootDeadline = TimeSpan.FromSeconds(240);
    public static readonly TimeSpan CommandDeadline = TimeSpan.FromSeconds(60);

    private static readonly Regex s_kernelLine = new(@"^\[ *\d+\.\d{6}\] .*(\n|$)", RegexOptions.Multiline, TimeSpan.FromSeconds(5));

    private int _commands;

    /// <summary>Waits for the greeting and the first prompt.</summary>
    public async Task LogInAsync()
    {
        await transcript.ExpectAsync(Host.Guests.GuestImage.Greeting, BootDeadline);
        await transcript.ExpectAsync("# ", CommandDeadline);
    }

    /// <summary>Types a line without waiting for anything.</summary>
    public void Type(string line) => type(line + "\n");

    /// <summary>Runs a command and gives its output, lines ended by \n, without the last line end.</summary>
    /// <exception cref="InvalidOperationException">Its status is not 0.</exception>
    public async Task<string> RunAsync(string command, TimeSpan? deadline = null)
    {
        // The quotes keep the typed line, which is echoed, different from the printed one.
        var n = ++_commands;
        Type($"echo B''EGIN{n}; {command}; echo E''ND{n} $?");
        await transcript.ExpectAsync($"BEGIN{n}\r\n", deadline ?? CommandDeadline);
        var end = new Regex($@"END{n} (\d+)\r\n", RegexOptions.None, TimeSpan.FromSeconds(5));
        var (output, match) = await transcript.ExpectAsync(end, deadline ?? CommandDeadline);
        var status = int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture);
        output = output.Replace("\r\n", "\n", StringComparison.Ordinal);
        // The kernel writes on the same console when it likes; its lines are no command's output, unless one asks for them.
        if (!command.Contains("dmesg", StringComparison.Ordinal)) output = s_kernelLine.Replace(output, "");
        if (status != 0) throw new InvalidOperationException($"\"{command}\" ended with status {status}:\n{output}");
        return output.TrimEnd('\n');
    }
}
