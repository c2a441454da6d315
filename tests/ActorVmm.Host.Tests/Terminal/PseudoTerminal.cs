using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using ActorVmm.Host.Terminal;

namespace ActorVmm.Host.Tests.Terminal;

/// <summary>A pseudo-terminal (pty(7)) with a program on it, seen from the terminal's side.</summary>
internal sealed partial class PseudoTerminal : IDisposable
{
    private const int ReadWrite = 2, NoControllingTerminal = 0x100;
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(60);

    private readonly int _master;
    private readonly int _slave;
    private readonly string _name;
    private readonly StringBuilder _shown = new();
    private Process? _process;

    [LibraryImport("libc", EntryPoint = "posix_openpt", SetLastError = true)]
    private static partial int OpenMaster(int flags);

    [LibraryImport("libc", EntryPoint = "grantpt", SetLastError = true)]
    private static partial int Grant(int fd);

    [LibraryImport("libc", EntryPoint = "unlockpt", SetLastError = true)]
    private static partial int Unlock(int fd);

    [LibraryImport("libc", EntryPoint = "ptsname_r", SetLastError = true)]
    private static unsafe partial int NameOf(int fd, byte* name, nuint size);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    private static partial int Close(int fd);

    public PseudoTerminal()
    {
        _master = Check(OpenMaster(ReadWrite | NoControllingTerminal), "posix_openpt");
        Check(Grant(_master), "grantpt");
        Check(Unlock(_master), "unlockpt");
        _name = Name(_master);
        _slave = Check(Open(_name, ReadWrite | NoControllingTerminal), "open " + _name); // stays open: its settings outlive the program
        new Thread(Listen) { IsBackground = true }.Start();
    }

    private static unsafe string Name(int master)
    {
        Span<byte> name = stackalloc byte[128];
        fixed (byte* at = name)
        {
            // SAFETY: the buffer is pinned and its length is passed.
            Check(NameOf(master, at, (nuint)name.Length), "ptsname_r");
        }
        return Encoding.UTF8.GetString(name[..name.IndexOf((byte)0)]);
    }

    private static int Check(int result, string call) =>
        result >= 0 ? result : throw new InvalidOperationException($"{call}: error {Marshal.GetLastPInvokeError()}");

    /// <summary>The terminal's settings, byte for byte.</summary>
    public byte[] Settings
    {
        get
        {
            Check(Libc.GetAttributes(_slave, out var termios), "tcgetattr");
            return MemoryMarshal.AsBytes(new ReadOnlySpan<Termios>(in termios)).ToArray();
        }
    }

    public string Shown
    {
        get
        {
            lock (_shown)
                return _shown.ToString();
        }
    }

    public int ProcessId => _process!.Id;

    /// <summary>Starts the terminal program on this terminal: standard input, output and errors.</summary>
    public void Start(params string[] arguments) => _process = Launch($"<{_name} >{_name} 2>&1", arguments);

    /// <summary>Starts another program on this terminal, which becomes its controlling one.</summary>
    public void StartProgram(string directory, params string[] command)
    {
        var start = new ProcessStartInfo("/bin/sh") { WorkingDirectory = directory };
        foreach (var word in (string[])["-c", $"exec setsid -c \"$0\" \"$@\" <{_name} >{_name} 2>&1", .. command]) start.ArgumentList.Add(word);
        start.Environment["TERM"] = "dumb";
        _process = Process.Start(start)!;
    }

    /// <summary>Starts the terminal program with shell redirections.</summary>
    public static Process Launch(string redirections, params string[] arguments)
    {
        var start = new ProcessStartInfo("/bin/sh");
        start.ArgumentList.Add("-c");
        start.ArgumentList.Add($"exec \"$0\" \"$@\" {redirections}");
        start.ArgumentList.Add(Environment.ProcessPath is { } host && host.EndsWith("dotnet", StringComparison.Ordinal) ? host : "dotnet");
        start.ArgumentList.Add(typeof(PseudoTerminal).Assembly.Location);
        foreach (var argument in arguments)
            start.ArgumentList.Add(argument);
        start.Environment["DOTNET_DbgEnableMiniDump"] = "0";
        start.Environment["TERM"] = "xterm";
        return Process.Start(start)!;
    }

    public void Type(string keys) => Assert.True(Libc.WriteAll(_master, Encoding.Latin1.GetBytes(keys)));

    public void Signal(int number) => Check(Libc.Kill(ProcessId, number), "kill");

    /// <summary>Waits until the terminal has shown a text.</summary>
    public void WaitFor(string text) => WaitUntil(() => Shown.Contains(text, StringComparison.Ordinal), $"'{text}'");

    /// <summary>Waits for a condition that changes with what the program does.</summary>
    public void WaitUntil(Func<bool> condition, string what)
    {
        var clock = Stopwatch.StartNew();
        lock (_shown)
        {
            while (!condition())
            {
                Assert.True(clock.Elapsed < Deadline, $"waited in vain for {what}; shown: {_shown}");
                Monitor.Wait(_shown, TimeSpan.FromMilliseconds(20));
            }
        }
    }

    /// <summary>Waits for the program's end.</summary>
    public int WaitForExit()
    {
        Assert.True(_process!.WaitForExit(Deadline), $"the program did not end; shown: {Shown}");
        return _process.ExitCode;
    }

    private void Listen()
    {
        Span<byte> bytes = stackalloc byte[4096];
        int got;
        while ((got = Libc.Read(_master, bytes)) > 0)
        {
            lock (_shown)
            {
                _shown.Append(Encoding.Latin1.GetString(bytes[..got]));
                Monitor.PulseAll(_shown);
            }
        }
    }

    public void Dispose()
    {
        if (_process is { HasExited: false })
            _process.Kill();
        _process?.Dispose();
        _ = Close(_slave);
    }
}
