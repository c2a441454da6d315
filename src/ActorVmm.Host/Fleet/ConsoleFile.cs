using System.Buffers;
using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Serilog;

namespace ActorVmm.Host.Fleet;

/// <summary>
/// What a console has kept, in a file of a size that does not grow: the hub's head and ring in the same layout, and how much was printed.
/// The guest does not wait for it: a reader of the hub, at its own speed, writes behind. A process that is killed loses what it had not
/// written, some milliseconds.
/// <code>
/// "avmmcon1"   head bytes 4   ring bytes 4   printed 8   first position of the ring 8   head ...   ring (the byte at position p is at p mod ring bytes) ...
/// </code>
/// </summary>
internal sealed class ConsoleFile : IAsyncDisposable
{
    private const int HeaderBytes = 32;
    private const int PrintedOffset = 16;
    private const int FirstOffset = 24;
    private const int MaxRing = 128 << 20;
    private static readonly TimeSpan s_batch = TimeSpan.FromMilliseconds(20);

    private readonly SafeFileHandle _file;
    private readonly string _path;
    private readonly ConsoleHub _hub;
    private readonly ILogger _log;
    private readonly CancellationTokenSource _over = new();
    private readonly Task _writing;
    private long _position;
    private int _headWritten;

    private ConsoleFile(SafeFileHandle file, string path, ConsoleHub hub, ILogger log, bool sameLayout)
    {
        (_file, _path, _hub, _log) = (file, path, hub, log);
        if (sameLayout) (_position, _headWritten) = (hub.Total, (int)Math.Min(hub.Total, hub.HeadBytes));
        else _position = hub.LatestFrom;
        _writing = WriteBehindAsync(sameLayout);
    }

    private static ReadOnlySpan<byte> Magic => "avmmcon1"u8;

    /// <summary>Takes over what the file has, and keeps it up to date from now on.</summary>
    /// <exception cref="IOException">It cannot be used; another process has it, say.</exception>
    public static ConsoleFile Open(string path, ConsoleHub hub, ILogger log)
    {
        var file = File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        try
        {
            PrivateFiles.Restrict(path);
            var sameLayout = RandomAccess.GetLength(file) > 0 && TryLoad(file, path, hub, log);
            return new ConsoleFile(file, path, hub, log, sameLayout);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Writes what is left, and lets go of the file.</summary>
    public async ValueTask DisposeAsync()
    {
        await _over.CancelAsync().ConfigureAwait(false);
        await _writing.ConfigureAwait(false);
        _file.Dispose();
        _over.Dispose();
    }

    /// <summary>The console is nobody's any more.</summary>
    public async Task DeleteAsync()
    {
        File.Delete(_path); // first: another VM of this name may be on its way, and makes a file of its own
        await DisposeAsync().ConfigureAwait(false);
    }

    private async Task WriteBehindAsync(bool sameLayout)
    {
        await Task.Yield();
        try
        {
            if (!sameLayout) Begin();
            while (!_over.IsCancellationRequested)
            {
                var more = _hub.Printed;
                Write();
                try
                {
                    await more.WaitAsync(_over.Token).ConfigureAwait(false);
                    await Task.Delay(s_batch, _over.Token).ConfigureAwait(false); // guests print byte by byte
                }
                catch (OperationCanceledException) { /* what has come since is written last */ }
            }

            Write();
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            _log.Error("{File} is not kept up to date any more: {Why}", _path, cannot.Message);
        }
    }

    private void Begin()
    {
        RandomAccess.SetLength(_file, 0);
        Span<byte> header = stackalloc byte[HeaderBytes];
        header.Clear();
        Magic.CopyTo(header);
        BinaryPrimitives.WriteInt32LittleEndian(header[8..], _hub.HeadBytes);
        BinaryPrimitives.WriteInt32LittleEndian(header[12..], _hub.RingBytes);
        // Where a larger ring has begun with what a smaller one had: before this there is nothing in it.
        BinaryPrimitives.WriteInt64LittleEndian(header[FirstOffset..], _position);
        RandomAccess.Write(_file, header, 0);
    }

    private void Write()
    {
        var buffer = ArrayPool<byte>.Shared.Rent(Math.Max(_hub.HeadBytes, 4096));
        try
        {
            if (_headWritten < _hub.HeadBytes && _hub.ReadHead(buffer) is var head && head > _headWritten)
            {
                RandomAccess.Write(_file, buffer.AsSpan(_headWritten, head - _headWritten), HeaderBytes + _headWritten);
                _headWritten = head;
            }

            var before = _position;
            int count;
            while ((count = _hub.Read(ref _position, buffer, out _)) > 0) WriteRing(_position - count, buffer.AsSpan(0, count));
            if (_position == before) return;
            // Last: what the number covers is there.
            Span<byte> printed = stackalloc byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(printed, _position);
            RandomAccess.Write(_file, printed, PrintedOffset);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private void WriteRing(long position, ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            var at = (int)(position % _hub.RingBytes);
            var piece = Math.Min(bytes.Length, _hub.RingBytes - at);
            RandomAccess.Write(_file, bytes[..piece], HeaderBytes + _hub.HeadBytes + at);
            position += piece;
            bytes = bytes[piece..];
        }
    }

    /// <summary>Fills the hub from the file; true where the file goes on as it is, false where it is begun anew.</summary>
    private static bool TryLoad(SafeFileHandle file, string path, ConsoleHub hub, ILogger log)
    {
        Span<byte> header = stackalloc byte[HeaderBytes];
        var isOurs = RandomAccess.Read(file, header, 0) == HeaderBytes && header.StartsWith(Magic)
            && BinaryPrimitives.ReadInt32LittleEndian(header[8..]) == hub.HeadBytes;
        var ringBytes = BinaryPrimitives.ReadInt32LittleEndian(header[12..]);
        var total = BinaryPrimitives.ReadInt64LittleEndian(header[PrintedOffset..]);
        var first = BinaryPrimitives.ReadInt64LittleEndian(header[FirstOffset..]);
        if (!isOurs || ringBytes is <= 0 or > MaxRing || first < 0 || total < first)
        {
            log.Warning("{File} is no console of a VM, and is begun anew", path);
            return false;
        }

        var head = new byte[Math.Min(total, hub.HeadBytes)];
        var latest = new byte[Math.Min(total - first, ringBytes)];
        var whole = RandomAccess.Read(file, head, HeaderBytes) == head.Length;
        for (var done = 0; whole && done < latest.Length;)
        {
            var at = (int)((total - latest.Length + done) % ringBytes);
            var piece = Math.Min(latest.Length - done, ringBytes - at);
            whole = RandomAccess.Read(file, latest.AsSpan(done, piece), HeaderBytes + hub.HeadBytes + at) == piece;
            done += piece;
        }

        if (whole) hub.Preload(head, latest, total);
        else log.Warning("{File} is cut off, and is begun anew", path);
        return whole && ringBytes == hub.RingBytes;
    }
}
