using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Backends.Disks;

/// <summary>
/// A raw image file or a block device as a disk. It holds an advisory lock: writers exclude every other VM, readers exclude writers.
/// </summary>
public sealed class FileDisk : IDisk, IDisposable
{
    private readonly DiskOptions _options;
    private readonly CompletionList _completed = new();
    private readonly DiskThreads? _threads;
    private readonly Lock _changing = new();
    private volatile DiskFile _file;
    private ulong _sectors;
    private long _failures;

    private FileDisk(DiskFile file, DiskOptions options)
    {
        (_file, _options, _sectors) = (file, options, file.MeasureSectors());
        var threads = options.Engine == IoEngine.Async ? Math.Max(1, options.Threads) : options.MostInTurn < ulong.MaxValue ? 1 : 0;
        if (threads > 0) _threads = new DiskThreads(threads, options.Start, Perform, _completed.Push, OnWaiting);
    }

    /// <summary>Opens and locks <paramref name="path"/>.</summary>
    /// <exception cref="DiskException">It cannot be used; the message names it and says what to do.</exception>
    public static FileDisk Open(string path, DiskOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        return new FileDisk(DiskFile.Open(path, options), options);
    }

    /// <inheritdoc/>
    public ulong Sectors => Volatile.Read(ref _sectors);

    /// <inheritdoc/>
    public bool ReadOnly => _options.ReadOnly;

    /// <inheritdoc/>
    public int BlockSize => _file.BlockSize;

    /// <inheritdoc/>
    public string Id => _options.Id;

    /// <inheritdoc/>
    public bool Flushes => _options.Writeback;

    /// <inheritdoc/>
    public bool Discards => !ReadOnly;

    /// <inheritdoc/>
    public Action? Wake { get; set; }

    /// <summary>The file that it is on now.</summary>
    public string Path => _file.Path;

    /// <summary>Requests that the host could not perform. Any thread.</summary>
    public long Failures => Volatile.Read(ref _failures);

    /// <inheritdoc/>
    public string? LastError { get; private set; }

    /// <inheritdoc/>
    public bool Start(DiskRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (_threads is null || (_options.Engine == IoEngine.Sync && request.Bytes <= _options.MostInTurn))
        {
            Perform(request);
            return true;
        }
        if (request.Operation == DiskOperation.Read && request.Bytes <= _options.MostInline && IsReadNow(request)) return true;
        _threads.Enqueue(request);
        return false;
    }

    /// <inheritdoc/>
    public bool TryTakeCompleted([NotNullWhen(true)] out DiskRequest? request) => _completed.TryTake(out request);

    /// <inheritdoc/>
    public void Abandon()
    {
        _threads?.Abandon();
        while (_completed.TryTake(out _)) { }
    }

    /// <summary>
    /// Looks at the file's size again, after somebody made it longer or shorter; the guest is told where it changed. Any thread.
    /// </summary>
    /// <exception cref="DiskException">The size cannot be read.</exception>
    public void Resize()
    {
        ulong before, after;
        lock (_changing)
        {
            before = _sectors;
            Volatile.Write(ref _sectors, after = _file.MeasureSectors());
        }
        if (after != before) Wake?.Invoke();
    }

    /// <summary>
    /// Puts another file in the place of this one, as Firecracker's PATCH of a drive does; requests that are under way end on the file that
    /// they began on. The guest hears of a size that changed. Any thread.
    /// </summary>
    /// <exception cref="DiskException">The new file cannot be used; the old one stays.</exception>
    public void ChangeTo(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        if (string.Equals(System.IO.Path.GetFullPath(path), System.IO.Path.GetFullPath(Path), StringComparison.Ordinal))
        {
            Resize(); // the lock is ours already
            return;
        }
        lock (_changing)
        {
            var fresh = DiskFile.Open(path, _options);
            if (fresh.BlockSize > BlockSize)
            {
                fresh.Dispose();
                throw new DiskException($"{path}: its blocks are larger than those of {Path}, which the guest counts on");
            }
            var old = _file;
            _file = fresh;
            Volatile.Write(ref _sectors, fresh.MeasureSectors());
            // The guest's next flush goes to the new file: what it was told is written to the old one would depend on the host's luck.
            if (_options.Writeback && old.Flush() is var error && error != 0)
                Count($"Flush of {old.Path}: {Marshal.GetPInvokeErrorMessage(error)}");
            old.Dispose();
        }
        Wake?.Invoke();
    }

    /// <summary>Waits for what is being performed, and closes the file. No request may be started any more.</summary>
    public void Dispose()
    {
        Wake = null;
        _threads?.Dispose();
        _file.Dispose();
    }

    private void OnWaiting() => Wake?.Invoke();

    private bool IsReadNow(DiskRequest request)
    {
        try
        {
            return _file.TryReadNow(request);
        }
        catch (ObjectDisposedException)
        {
            return false; // another file is taking its place: the threads wait for that
        }
    }

    private void Perform(DiskRequest request)
    {
        while (true)
        {
            var file = _file;
            try
            {
                request.Status = file.Perform(request, out var error);
                if (error != 0) Count($"{request.Operation} of sector {request.Sector}: {Marshal.GetPInvokeErrorMessage(error)}");
                return;
            }
            catch (ObjectDisposedException) when (!ReferenceEquals(file, _file))
            {
                // Another file took its place between the two lines: the request has not begun yet.
            }
            catch (Exception cannot) when (cannot is ObjectDisposedException or OutOfMemoryException)
            {
                request.Status = DiskStatus.IoError;
                Count(cannot.Message);
                return;
            }
        }
    }

    private void Count(string what)
    {
        Interlocked.Increment(ref _failures);
        LastError = what;
    }
}
