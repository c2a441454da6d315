using System.Runtime.InteropServices;

namespace ActorVmm.Host.Terminal;

/// <summary>
/// A terminal in raw mode, and the promise to put it back: exactly as it was, once, from whichever thread comes first. Safe to call from
/// signal and crash handlers.
/// </summary>
internal sealed class TerminalMode : IDisposable
{
    private const int Now = 0; // TCSANOW: waiting for output to drain could wait for ever on a stopped terminal

    private readonly int _fd;
    private readonly Termios _before;
    private readonly Lock _gate = new();
    private bool _raw;
    private bool _over;

    private TerminalMode(int fd, Termios before) => (_fd, _before) = (fd, before);

    /// <summary>Puts a terminal into raw mode; null where the descriptor is no terminal.</summary>
    public static TerminalMode? Enter(int fd)
    {
        // .NET notes the terminal's settings with the first signal registration, and puts those back when the process ends after a SIGCONT:
        // they have to be the ones from before.
        PosixSignalRegistration.Create(PosixSignal.SIGHUP, _ => { }).Dispose();
        if (!Libc.IsTerminal(fd) || Libc.GetAttributes(fd, out var before) != 0)
            return null;
        var mode = new TerminalMode(fd, before);
        mode.Resume();
        return mode;
    }

    /// <summary>Whether the terminal is raw now, so that a line needs a carriage return.</summary>
    public bool IsRaw
    {
        get
        {
            lock (_gate)
                return _raw;
        }
    }

    /// <summary>Puts the terminal back for a while (the process is about to be stopped).</summary>
    public void Suspend()
    {
        lock (_gate)
        {
            if (!_raw)
                return;
            _raw = false;
            _ = Libc.SetAttributes(_fd, Now, in _before);
        }
    }

    /// <summary>Raw again, unless it is over.</summary>
    public void Resume()
    {
        lock (_gate)
        {
            if (_over)
                return;
            var raw = _before.Raw();
            _raw = Libc.SetAttributes(_fd, Now, in raw) == 0;
        }
    }

    /// <summary>Puts the terminal back for good.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            Suspend();
            _over = true;
        }
    }
}
