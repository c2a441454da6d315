using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;
using ActorVmm.Backends.Polling;
using ActorVmm.Backends.Taps;
using Xunit;

namespace ActorVmm.Testing.Native;

/// <summary>
/// A thread with a network of the kernel's for itself (unshare(2)): its own interfaces, sockets and <c>/sys</c>. Sockets and taps are opened
/// on it and can be used from any thread; programs that are started from it see the same. It is gone with the thread.
/// </summary>
public sealed partial class PrivateNetwork : IDisposable
{
    private const int NewNamespaces = 0x4002_0000; // CLONE_NEWNET | CLONE_NEWNS
    private const nuint PrivateTree = (1 << 18) | (1 << 14); // MS_PRIVATE | MS_REC
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly BlockingCollection<Action> _work = [];
    private readonly Thread _thread;

    private PrivateNetwork()
    {
        _thread = new Thread(() =>
        {
            foreach (var work in _work.GetConsumingEnumerable()) work();
        }) { IsBackground = true, Name = "network" };
        _thread.Start();
        Poller = new EventPoller(static loop => new Thread(() => loop()) { IsBackground = true, Name = "poller" }.Start());
    }

    /// <summary>Waits for the taps' packets; a thread of its own.</summary>
    public EventPoller Poller { get; }

    /// <summary>Its time goes on when the test says so.</summary>
    public ManualTimers Time { get; } = new();

    /// <summary>A fresh network; skips the test where there can be none.</summary>
    public static PrivateNetwork Create()
    {
        Skip.IfNot(Environment.IsPrivilegedProcess, "network namespaces and taps take root");
        Skip.IfNot(File.Exists("/dev/net/tun"), "there is no /dev/net/tun");
        Skip.IfNot(File.Exists("/usr/sbin/ip") || File.Exists("/sbin/ip") || File.Exists("/usr/bin/ip"), "there is no ip (iproute2)");
        var network = new PrivateNetwork();
        try
        {
            var refused = network.Run(static () => Unshare(NewNamespaces) < 0 || Mount("none", "/", "none", PrivateTree, 0) < 0
                || Mount("sysfs", "/sys", "sysfs", 0, 0) < 0 ? Marshal.GetLastPInvokeErrorMessage() : null);
            Skip.If(refused is not null, $"a network namespace is refused: {refused}");
            network.Ip("link set lo up");
            return network;
        }
        catch
        {
            network.Dispose();
            throw;
        }
    }

    /// <summary>Runs <paramref name="work"/> on the thread that has the network.</summary>
    public T Run<T>(Func<T> work)
    {
        var result = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        _work.Add(() =>
        {
            try { result.SetResult(work()); }
            catch (Exception thrown) { result.SetException(thrown); }
        });
        return result.Task.WaitAsync(Patience).GetAwaiter().GetResult();
    }

    public TapPort Open(string name, int pairs = 1) => Run(() => new TapPort(new TapSettings(name, pairs), Poller, Time));

    /// <summary>Lets the port look again for what is away.</summary>
    public void LookAgain() => Run(() =>
    {
        Time.Fire();
        return 0;
    });

    /// <summary>Makes a tap that is up.</summary>
    public void AddTap(string name, string more = "")
    {
        Ip($"tuntap add dev {name} mode tap{more}");
        Ip($"link set {name} up");
    }

    /// <summary>Runs <c>ip</c> in the network; its output.</summary>
    public string Ip(string arguments) => Exec("ip", arguments.Split(' '));

    /// <summary>Starts a program in the network, its input and output redirected.</summary>
    public Process Start(string program, params string[] arguments) => Run(() => Process.Start(
        new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true })!);

    /// <summary>Runs a program in the network to its end; its output. A status other than 0 fails the test.</summary>
    public string Exec(string program, params string[] arguments)
    {
        using var process = Start(program, arguments);
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(Patience), $"{program} does not end");
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {output}{errors.Result}");
        return output;
    }

    public void Dispose()
    {
        Poller.Dispose();
        _work.CompleteAdding();
        _thread.Join();
        _work.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "unshare", SetLastError = true)]
    private static partial int Unshare(int flags);

    [LibraryImport("libc", EntryPoint = "mount", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Mount(string source, string target, string type, nuint flags, nint data);

    /// <summary>Timers that fire when they are told to.</summary>
    public sealed class ManualTimers : TimeProvider
    {
        private readonly ConcurrentBag<Timer> _timers = [];

        /// <summary>Fires every timer that is running.</summary>
        public void Fire()
        {
            foreach (var timer in _timers) timer.Fire();
        }

        /// <summary>Timers that run.</summary>
        public int Running => _timers.Count(static timer => timer.IsRunning);

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            var timer = new Timer(callback, state);
            timer.Change(dueTime, period);
            _timers.Add(timer);
            return timer;
        }

        private sealed class Timer(TimerCallback callback, object? state) : ITimer
        {
            private volatile bool _running;

            public bool IsRunning => _running;

            public bool Change(TimeSpan dueTime, TimeSpan period)
            {
                _running = dueTime != Timeout.InfiniteTimeSpan;
                return true;
            }

            public void Fire()
            {
                if (_running) callback(state);
            }

            public void Dispose() => _running = false;

            public ValueTask DisposeAsync()
            {
                Dispose();
                return ValueTask.CompletedTask;
            }
        }
    }
}
