using System.Diagnostics.CodeAnalysis;
using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Devices.Faults;

/// <summary>
/// A disk between a block device and its backend to which a plan's faults happen. Without a rule for it each call is passed on as it is.
/// Called on the device's thread, as every disk.
/// </summary>
/// <param name="inner">The backend.</param>
/// <param name="site">Rules for this disk.</param>
/// <param name="at">Calls an action at a machine time, on any thread.</param>
public sealed class FaultyDisk(IDisk inner, FaultSite site, Action<ulong, Action> at) : IDisk, IBackendProgress
{
    private long _outstanding;
    private long _finished;
    private readonly Queue<DiskRequest> _done = new();
    private readonly List<(ulong Due, DiskRequest Request, Steps Steps)> _held = [];
    private readonly Dictionary<DiskRequest, Action<DiskRequest>> _after = [];
    private readonly List<DiskRequest> _hung = [];
    private readonly SectorCache _cache = new();

    /// <inheritdoc/>
    public ulong Sectors => inner.Sectors;

    /// <inheritdoc/>
    public bool ReadOnly => inner.ReadOnly;

    /// <inheritdoc/>
    public int BlockSize => inner.BlockSize;

    /// <inheritdoc/>
    public string Id => inner.Id;

    /// <inheritdoc/>
    public bool Flushes => inner.Flushes;

    /// <inheritdoc/>
    public bool Discards => inner.Discards;

    /// <inheritdoc/>
    public string? LastError => inner.LastError;

    /// <inheritdoc/>
    public Action? Wake
    {
        get => inner.Wake;
        set => inner.Wake = value;
    }

    /// <inheritdoc/>
    public long Outstanding => Volatile.Read(ref _outstanding);

    /// <inheritdoc/>
    public long Finished => Volatile.Read(ref _finished);

    /// <summary>Sectors that are lost if the VM ends now.</summary>
    public int VolatileSectors => _cache.Count;

    /// <inheritdoc/>
    public bool Start(DiskRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        var done = site.IsArmed ? StartArmed(request) : inner.Start(request);
        if (done) Volatile.Write(ref _finished, _finished + 1);
        else Volatile.Write(ref _outstanding, _outstanding + 1);
        return done;
    }

    private bool StartArmed(DiskRequest request)
    {
        var happening = EventOf(request);
        var steps = default(Steps);
        FaultHit? torn = null;
        foreach (var hit in site.Fire(happening))
        {
            switch (hit.Rule.Kind)
            {
                case FaultKind.BlockEio: return Fail(hit, happening, request, DiskStatus.IoError);
                case FaultKind.BlockEnospc or FaultKind.BlockDiskFull: return Fail(hit, happening, request, DiskStatus.NoSpace);
                case FaultKind.BlockHang:
                    site.Report(hit, happening, "never answered");
                    _hung.Add(request);
                    return false;
                case FaultKind.BlockLatency:
                    site.Report(hit, happening, $"{hit.Rule.Delay} ns late");
                    steps.Delay = hit.Rule.Delay!.Value;
                    break;
                case FaultKind.BlockTornWrite: torn = hit; break;
                case FaultKind.BlockMisdirectedWrite: steps.Astray = Astray(hit, happening, request); break;
                case FaultKind.BlockDroppedFlush:
                    site.Report(hit, happening, _cache.Count > 0 ? $"dropped; {_cache.Count} sectors stay volatile" : "dropped");
                    request.Status = DiskStatus.Ok;
                    return true;
                case FaultKind.BlockReadCorruption: steps.Flip = Flip(hit, happening, request); break;
                case FaultKind.BlockVolatileCache: steps.Cached = Cached(hit, happening, request); break;
                default: break;
            }
        }

        // A disk with a cache tears what is in there: a write that went through is whole.
        if (torn is { } tear && (steps.Cached || !site.Has(FaultKind.BlockVolatileCache))) steps.Torn = Torn(tear, happening, request);
        if (steps.Delay == 0) return Begin(request, steps);
        var due = site.Engine.Now + steps.Delay;
        _held.Add((due, request, steps));
        at(due, () => Wake?.Invoke()); // the device then asks for what is done, on its own thread
        return false;
    }

    /// <inheritdoc/>
    public bool TryTakeCompleted([NotNullWhen(true)] out DiskRequest? request)
    {
        if (!TryTake(out request)) return false;
        Volatile.Write(ref _outstanding, _outstanding - 1);
        Volatile.Write(ref _finished, _finished + 1);
        return true;
    }

    private bool TryTake([NotNullWhen(true)] out DiskRequest? request)
    {
        ReleaseHeld();
        if (_done.TryDequeue(out request)) return true;
        while (inner.TryTakeCompleted(out request))
        {
            if (!_after.Remove(request, out var after)) return true;
            after(request);
            if (_done.TryDequeue(out request)) return true;
        }

        return false;
    }

    /// <inheritdoc/>
    public void Abandon()
    {
        inner.Abandon();
        _done.Clear();
        _held.Clear();
        _after.Clear();
        _hung.Clear();
        Volatile.Write(ref _outstanding, 0);
        // What was being written back is still in the cache: it counts as durable only with its flush.
    }

    private void ReleaseHeld()
    {
        if (_held.Count == 0) return;
        var now = site.Engine.Now;
        var healed = site.Engine.IsHealed;
        for (var i = 0; i < _held.Count;)
        {
            var (due, request, steps) = _held[i];
            if (due > now && !healed) { i++; continue; }
            _held.RemoveAt(i);
            if (Begin(request, steps)) _done.Enqueue(request);
        }
    }

    /// <summary>Passes a request on, with what is to be done to it.</summary>
    private bool Begin(DiskRequest request, Steps steps)
    {
        if (request.Operation == DiskOperation.Flush && _cache.Count > 0) return WriteBack(request);
        if (request.Operation == DiskOperation.Write)
        {
            if (steps.Cached)
            {
                _cache.Take(request);
                // Torn and cached: a part has reached the disk already, and only a flush makes it whole, as where the power fails.
                return Instead(request, request.Sector, steps.Torn ?? 0);
            }

            if (_cache.Count > 0) _cache.Forget(request.Sector, request.Bytes / DiskRequest.SectorSize);
            return steps.Torn is { } torn ? Instead(request, request.Sector, torn)
                : steps.Astray is { } astray ? Instead(request, astray, request.Bytes)
                : inner.Start(request);
        }

        if (request.Operation is DiskOperation.Discard or DiskOperation.WriteZeroes && _cache.Count > 0) _cache.Forget(request.Sector, request.Sectors);
        if (request.Operation != DiskOperation.Read || (steps.Flip is null && _cache.Count == 0)) return inner.Start(request);
        return StartThen(request, read =>
        {
            Finish(read, steps.Flip);
            _done.Enqueue(read);
        }, read => Finish(read, steps.Flip));
    }

    private void Finish(DiskRequest read, ulong? flip)
    {
        if (read.Status != DiskStatus.Ok) return;
        _cache.Patch(read);
        if (flip is not { } bit) return;
        var offset = bit >> 3;
        foreach (var segment in read.Segments)
        {
            if (offset >= (ulong)segment.Length) { offset -= (ulong)segment.Length; continue; }
            segment.Bytes[(int)offset] ^= (byte)(1 << (int)(bit & 7));
            return;
        }
    }

    /// <summary>Performs another write in the place of the one that was asked for; the answer is that of the other.</summary>
    private bool Instead(DiskRequest asked, ulong sector, ulong bytes)
    {
        if (bytes == 0)
        {
            asked.Status = DiskStatus.Ok;
            return true;
        }

        var other = new DiskRequest(asked.Slot);
        other.Set(DiskOperation.Write, sector, flag: asked.Flag);
        foreach (var segment in asked.Segments)
        {
            if (bytes == 0) break;
            var count = (int)Math.Min(bytes, (ulong)segment.Length);
            other.Add(segment.Slice(0, count));
            bytes -= (ulong)count;
        }

        return StartThen(other, done =>
        {
            asked.Status = done.Status;
            _done.Enqueue(asked);
        }, done => asked.Status = done.Status);
    }

    /// <summary>Makes everything in the cache durable, and then flushes.</summary>
    private bool WriteBack(DiskRequest flush)
    {
        var runs = _cache.Runs();
        var left = runs.Count;
        var status = DiskStatus.Ok;
        var isInline = true;
        foreach (var run in runs)
        {
            var one = run;
            bool Done(DiskRequest written)
            {
                if (written.Status != DiskStatus.Ok) status = written.Status;
                else _cache.Written(one);
                return --left == 0;
            }

            StartThen(one.Request, written => { if (Done(written)) FlushAfter(); }, written => Done(written));
        }

        isInline = false;
        if (left > 0) return false;
        flush.Status = status;
        return status != DiskStatus.Ok || inner.Start(flush);

        void FlushAfter()
        {
            if (isInline) return;
            flush.Status = status;
            if (status != DiskStatus.Ok || inner.Start(flush)) _done.Enqueue(flush);
        }
    }

    /// <summary>True where it was done at once, and <paramref name="now"/> was called; else <paramref name="later"/> will be.</summary>
    private bool StartThen(DiskRequest request, Action<DiskRequest> later, Action<DiskRequest> now)
    {
        if (!inner.Start(request))
        {
            _after.Add(request, later);
            return false;
        }

        now(request);
        return true;
    }

    private bool Fail(in FaultHit hit, in FaultEvent happening, DiskRequest request, DiskStatus status)
    {
        site.Report(hit, happening, $"answered {status}");
        request.Status = status;
        return true;
    }

    private ulong Torn(in FaultHit hit, in FaultEvent happening, DiskRequest request)
    {
        var sectors = request.Bytes / DiskRequest.SectorSize;
        var kept = hit.Rule.Amount is { } bytes ? Math.Min(bytes / DiskRequest.SectorSize, sectors) : Below(hit.Draw, sectors);
        site.Report(hit, happening, $"{kept} of {sectors} sectors written");
        return kept * DiskRequest.SectorSize;
    }

    private ulong? Astray(in FaultHit hit, in FaultEvent happening, DiskRequest request)
    {
        var sectors = request.Bytes / DiskRequest.SectorSize;
        if (sectors >= inner.Sectors) return null; // there is no other place
        var places = inner.Sectors - sectors + 1;
        var shift = hit.Rule.Amount ?? (1 + Below(hit.Draw, places - 1));
        var target = (request.Sector + (shift % places)) % places;
        site.Report(hit, happening, $"written to sector {target}");
        return target;
    }

    private ulong? Flip(in FaultHit hit, in FaultEvent happening, DiskRequest request)
    {
        if (request.Bytes == 0) return null;
        var bit = Below(hit.Draw, request.Bytes * 8);
        site.Report(hit, happening, $"bit {bit & 7} of byte {bit >> 3} flipped");
        return bit;
    }

    private bool Cached(in FaultHit hit, in FaultEvent happening, DiskRequest request)
    {
        if (request.Flag) return false; // forced unit access: durable when it is done
        site.Report(hit, happening, "volatile until the next flush");
        return true;
    }

    private static ulong Below(ulong draw, ulong bound) => (ulong)(((UInt128)draw * bound) >> 64);

    private static FaultEvent EventOf(DiskRequest request) => new(
        request.Operation switch
        {
            DiskOperation.Read => "read",
            DiskOperation.Write or DiskOperation.WriteZeroes => "write",
            DiskOperation.Flush => "flush",
            _ => "discard",
        },
        request.Sector, request.Bytes > 0 ? request.Bytes / DiskRequest.SectorSize : Math.Max(1, request.Sectors));

    /// <summary>What happens to one request.</summary>
    private struct Steps
    {
        public ulong Delay;
        public ulong? Torn;
        public ulong? Astray;
        public ulong? Flip;
        public bool Cached;
    }
}
