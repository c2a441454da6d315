using ActorVmm.Devices;

namespace ActorVmm.Host.Terminal;

/// <summary>
/// The guest's console output, straight to a file descriptor with write(2): what the guest has printed is out before it runs on, so nothing
/// is lost however the process ends, and it never shares a buffer with the log.
/// </summary>
internal sealed class ConsoleOutput(int fd) : IByteSink
{
    private Action? _closed;
    private byte[] _marker = [];
    private int _matched;
    private Action? _onMarker;
    private bool _broken;

    /// <summary>Called once, on the guest's thread, when nobody reads the output any more (EPIPE, EIO).</summary>
    public void OnClosed(Action closed) => _closed = closed;

    /// <summary>Calls <paramref name="seen"/> once, on the guest's thread, when the guest has printed <paramref name="marker"/>.</summary>
    /// <param name="marker">Bytes whose first one occurs in it only once.</param>
    /// <param name="seen">What to do.</param>
    public void OnMarker(ReadOnlySpan<byte> marker, Action seen) => (_marker, _onMarker) = (marker.ToArray(), seen);

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        if (!_broken && !Libc.WriteAll(fd, bytes))
        {
            _broken = true;
            _closed?.Invoke();
        }
        if (_onMarker is not null)
            Match(bytes);
    }

    private void Match(ReadOnlySpan<byte> bytes)
    {
        foreach (var b in bytes)
        {
            _matched = b == _marker[_matched] ? _matched + 1 : b == _marker[0] ? 1 : 0;
            if (_matched < _marker.Length)
                continue;
            var seen = _onMarker;
            _onMarker = null;
            seen?.Invoke();
            return;
        }
    }
}
