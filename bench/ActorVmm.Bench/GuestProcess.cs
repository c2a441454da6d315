using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace ActorVmm.Bench;

/// <summary>A monitor in a process of its own, its guest's console on pipes, and a clock that starts with the process.</summary>
internal sealed class GuestProcess : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);

    private readonly Process _process;
    private readonly long _started;
    private readonly StringBuilder _seen = new();
    private readonly Task<string> _errors;

    private GuestProcess(Process process, long started)
    {
        (_process, _started) = (process, started);
        _errors = process.StandardError.ReadToEndAsync();
    }

    /// <summary>Starts <paramref name="file"/>; the clock runs from the moment before.</summary>
    public static GuestProcess Start(string file, IEnumerable<string> arguments)
    {
        var info = new ProcessStartInfo(file) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in arguments) info.ArgumentList.Add(argument);
        var started = Stopwatch.GetTimestamp();
        return new GuestProcess(Process.Start(info)!, started);
    }

    /// <summary>ActorVmm as a user starts it: what the launcher has built; its own output is thrown away.</summary>
    public static void Build()
    {
        using var process = Start(Launcher, ["--version"]);
        process._process.StandardInput.Close();
        _ = process._process.StandardOutput.ReadToEnd();
        process._process.WaitForExit();
        if (process._process.ExitCode != 0) throw new InvalidOperationException($"{Launcher} --version: {process._errors.Result}");
    }

    /// <summary>ActorVmm through its launcher, the way a user starts it; call <see cref="Build"/> first; in a network namespace where
    /// one is named.</summary>
    public static GuestProcess StartActorVmm(IEnumerable<string> arguments, string? network = null) =>
        network is null ? Start(Launcher, arguments) : Start("ip", ["netns", "exec", network, Launcher, .. arguments]);

    private static string Launcher
    {
        get
        {
            for (var at = new DirectoryInfo(AppContext.BaseDirectory); at is not null; at = at.Parent)
                if (File.Exists(Path.Combine(at.FullName, "ActorVmm.sln"))) return Path.Combine(at.FullName, "actorvmm");
            throw new InvalidOperationException("the benchmarks run from a checkout of the project");
        }
    }

    public int Id => _process.Id;

    /// <summary>Reads the console until <paramref name="text"/> has appeared.</summary>
    /// <returns>Seconds since the start of the process.</returns>
    /// <exception cref="InvalidOperationException">It never will; the message has the last output.</exception>
    public async Task<double> ExpectAsync(string text)
    {
        using var late = new CancellationTokenSource(Patience);
        var buffer = new byte[4096];
        var stream = _process.StandardOutput.BaseStream;
        while (true)
        {
            if (_seen.ToString().IndexOf(text, StringComparison.Ordinal) is var at and >= 0)
            {
                var elapsed = Stopwatch.GetElapsedTime(_started).TotalSeconds;
                _seen.Remove(0, at + text.Length);
                return elapsed;
            }
            var count = await stream.ReadAsync(buffer, late.Token);
            if (count == 0) throw new InvalidOperationException($"the guest ended before it printed \"{text}\":\n{_seen}\n{await _errors}");
            _seen.Append(Encoding.Latin1.GetString(buffer, 0, count));
        }
    }

    /// <summary>Reads the console up to <paramref name="end"/> and gives what came before it.</summary>
    /// <exception cref="InvalidOperationException">It never comes; the message has the last output.</exception>
    public async Task<string> ReadUntilAsync(string end)
    {
        using var late = new CancellationTokenSource(Patience);
        var buffer = new byte[4096];
        while (true)
        {
            var text = _seen.ToString();
            if (text.IndexOf(end, StringComparison.Ordinal) is var at and >= 0)
            {
                _seen.Remove(0, at + end.Length);
                return text[..at];
            }
            var count = await _process.StandardOutput.BaseStream.ReadAsync(buffer, late.Token);
            if (count == 0) throw new InvalidOperationException($"the guest ended before it printed \"{end}\":\n{_seen}");
            _seen.Append(Encoding.Latin1.GetString(buffer, 0, count));
        }
    }

    public void Type(string text)
    {
        _process.StandardInput.Write(text);
        _process.StandardInput.Flush();
    }

    /// <summary>Types the last of it: the input ends there.</summary>
    public void TypeAll(string text)
    {
        Type(text);
        _process.StandardInput.Close();
    }

    /// <summary>Waits for the end of the process.</summary>
    /// <returns>Seconds since its start.</returns>
    public async Task<double> EndAsync()
    {
        using var late = new CancellationTokenSource(Patience);
        var rest = _process.StandardOutput.ReadToEndAsync(late.Token);
        await _process.WaitForExitAsync(late.Token);
        var elapsed = Stopwatch.GetElapsedTime(_started).TotalSeconds;
        await rest;
        return elapsed;
    }

    /// <summary>
    /// Resident bytes of the process: all of them, and those of guest RAM, the largest mapping of at least <paramref name="ram"/> bytes.
    /// </summary>
    public (long Total, long Guest) Resident(long ram)
    {
        long total = 0, guest = 0, size = 0;
        foreach (var line in File.ReadLines($"/proc/{Id}/smaps"))
        {
            if (line.StartsWith("Size:", StringComparison.Ordinal)) size = Kib(line);
            if (!line.StartsWith("Rss:", StringComparison.Ordinal)) continue;
            var resident = Kib(line);
            total += resident;
            if (size >= ram) guest = Math.Max(guest, resident);
        }
        return (total, guest);
    }

    /// <summary>Resident bytes of a process, what it shares with others divided by their number (PSS).</summary>
    public static long Proportional(int process)
    {
        foreach (var line in File.ReadLines($"/proc/{process}/smaps_rollup"))
            if (line.StartsWith("Pss:", StringComparison.Ordinal)) return Kib(line);
        throw new InvalidOperationException($"the kernel does not say what process {process} holds");
    }

    /// <summary>
    /// Seconds that the kernel has given to the thread whose name begins with <paramref name="name"/>: what a busy host does not add to.
    /// </summary>
    public double ThreadSeconds(string name)
    {
        foreach (var thread in Directory.EnumerateDirectories($"/proc/{Id}/task"))
        {
            if (!File.ReadAllText(Path.Combine(thread, "comm")).StartsWith(name, StringComparison.Ordinal)) continue;
            // Nanoseconds on a processor come first (Documentation/scheduler/sched-stats.rst).
            return long.Parse(File.ReadAllText(Path.Combine(thread, "schedstat")).Split(' ')[0], CultureInfo.InvariantCulture) / 1e9;
        }
        throw new InvalidOperationException($"process {Id} has no thread {name}");
    }

    private static long Kib(string line) =>
        long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10;

    public void Dispose()
    {
        if (!_process.HasExited) _process.Kill();
        _process.Dispose();
    }
}
