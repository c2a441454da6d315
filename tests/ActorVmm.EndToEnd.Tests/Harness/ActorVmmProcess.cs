using System.Diagnostics;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>The program itself in a process of its own, its console on pipes.</summary>
public sealed class ActorVmmProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly Task _reader;
    private readonly Task<string> _errors;

    private ActorVmmProcess(Process process)
    {
        _process = process;
        _errors = process.StandardError.ReadToEndAsync();
        _reader = ReadAsync();
        Shell = new Shell(Transcript, Type);
    }

    public ConsoleTranscript Transcript { get; } = new();
    public Shell Shell { get; }

    public bool HasExited => _process.HasExited;

    /// <summary>Starts <c>actorvmm</c> with these arguments.</summary>
    public static ActorVmmProcess Start(params ReadOnlySpan<string> arguments) => Start(null, arguments);

    /// <summary>Starts <c>actorvmm</c> in a network namespace.</summary>
    public static ActorVmmProcess StartIn(NetNamespace network, params ReadOnlySpan<string> arguments) => Start(network, arguments);

    /// <summary>Starts another build of the program, or a program that starts it.</summary>
    public static ActorVmmProcess StartProgram(string program, params ReadOnlySpan<string> arguments)
    {
        var start = new ProcessStartInfo(program)
        {
            RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false,
        };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        return new ActorVmmProcess(Process.Start(start)!);
    }

    private static ActorVmmProcess Start(NetNamespace? network, ReadOnlySpan<string> arguments)
    {
        var dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } path ? path : "dotnet";
        var start = new ProcessStartInfo(network is null ? dotnet : "ip")
        {
            RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false,
        };
        foreach (var word in network is null ? [] : (string[])["netns", "exec", network.Name, dotnet]) start.ArgumentList.Add(word);
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "actorvmm.dll"));
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        return new ActorVmmProcess(Process.Start(start)!);
    }

    /// <summary>Writes to its standard input.</summary>
    public void Type(string text)
    {
        _process.StandardInput.Write(text);
        _process.StandardInput.Flush();
    }

    /// <summary>Sends a signal: <c>TERM</c>, <c>INT</c>.</summary>
    public void Signal(string name)
    {
        using var kill = Process.Start("/bin/kill", [$"-{name}", _process.Id.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
    }

    /// <summary>Ends its standard input: under virtual time all of it is read before the guest starts.</summary>
    public void EndInput() => _process.StandardInput.Close();

    /// <summary>Waits for its end.</summary>
    /// <returns>The exit code and the last line on standard error.</returns>
    public async Task<(int ExitCode, string ClosingLine)> EndAsync(TimeSpan deadline)
    {
        var (code, errors) = await EndWithErrorsAsync(deadline);
        return (code, errors.Split('\n', StringSplitOptions.RemoveEmptyEntries).LastOrDefault("").Trim());
    }

    /// <summary>Waits for its end.</summary>
    /// <returns>The exit code and all of standard error.</returns>
    public async Task<(int ExitCode, string Errors)> EndWithErrorsAsync(TimeSpan deadline)
    {
        using var late = new CancellationTokenSource(deadline);
        await _process.WaitForExitAsync(late.Token);
        return (_process.ExitCode, await _errors);
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited) _process.Kill();
        await _process.WaitForExitAsync();
        await _reader;
        _process.Dispose();
    }

    private async Task ReadAsync()
    {
        var buffer = new byte[4096];
        var stream = _process.StandardOutput.BaseStream;
        while (await stream.ReadAsync(buffer) is var count and > 0) Transcript.Append(buffer.AsSpan(0, count));
        Transcript.End("its output is closed");
    }
}
