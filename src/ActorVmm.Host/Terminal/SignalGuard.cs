using System.Runtime.InteropServices;

namespace ActorVmm.Host.Terminal;

/// <summary>
/// While a VM runs: signals that end us stop the VM first, and whatever happens the terminal is put back. SIGINT, SIGTERM, SIGHUP and
/// SIGQUIT end the run with exit status 128 + n; a second one ends the process at once. SIGTSTP puts the terminal back before the process
/// stops.
/// </summary>
internal sealed class SignalGuard : IDisposable
{
    private readonly TerminalMode? _terminal;
    private readonly Action _stop;
    private readonly Action<int> _exit;
    private readonly List<PosixSignalRegistration> _registrations = [];
    private int _signal;

    /// <param name="terminal">The terminal in raw mode, if there is one.</param>
    /// <param name="stop">Asks the VM to stop; any thread.</param>
    /// <param name="exit">Ends the process at once with a status.</param>
    public SignalGuard(TerminalMode? terminal, Action stop, Action<int> exit)
    {
        (_terminal, _stop, _exit) = (terminal, stop, exit);
        foreach (var signal in (ReadOnlySpan<PosixSignal>)[PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP,
            PosixSignal.SIGQUIT])
            _registrations.Add(PosixSignalRegistration.Create(signal, OnEnding));
        if (terminal is not null && !OperatingSystem.IsWindows()) // the check is for the analyzer
        {
            _registrations.Add(PosixSignalRegistration.Create(PosixSignal.SIGTSTP, OnSuspend));
            _registrations.Add(PosixSignalRegistration.Create(PosixSignal.SIGCONT, OnContinue));
        }
        AppDomain.CurrentDomain.UnhandledException += OnCrash;
        AppDomain.CurrentDomain.ProcessExit += OnProcessExit;
    }

    /// <summary>The exit status a signal asks for, or null where none came.</summary>
    public int? ExitStatus => Volatile.Read(ref _signal) is var signal and > 0 ? 128 + signal : null;

    private void OnEnding(PosixSignalContext context)
    {
        context.Cancel = true;
        var number = context.Signal switch
        {
            PosixSignal.SIGHUP => 1,
            PosixSignal.SIGINT => 2,
            PosixSignal.SIGQUIT => 3,
            _ => 15,
        };
        if (Interlocked.CompareExchange(ref _signal, number, 0) == 0)
        {
            _stop();
            return;
        }
        _terminal?.Dispose();
        _exit(128 + number);
    }

    private void OnSuspend(PosixSignalContext context)
    {
        context.Cancel = true;
        _terminal!.Suspend();
        // Raw mode comes back with SIGCONT and not here: this thread may run on for a moment before the stop takes hold.
        _ = Libc.Kill(Environment.ProcessId, Libc.StopSignal);
    }

    private void OnContinue(PosixSignalContext context)
    {
        context.Cancel = true; // .NET's own answer is to put back the settings from before, over ours
        _terminal!.Resume();
    }

    private void OnCrash(object sender, UnhandledExceptionEventArgs args) => _terminal?.Dispose();

    private void OnProcessExit(object? sender, EventArgs args) => _terminal?.Dispose();

    public void Dispose()
    {
        AppDomain.CurrentDomain.UnhandledException -= OnCrash;
        AppDomain.CurrentDomain.ProcessExit -= OnProcessExit;
        foreach (var registration in _registrations)
            registration.Dispose();
        _terminal?.Dispose();
    }
}
