using System.Diagnostics.CodeAnalysis;
using ActorVmm.Devices.Virtio.Block;

namespace ActorVmm.Testing.Virtio;

/// <summary>A small disk in memory whose answers come when and as the test wants: at once, or held back and finished in any order.</summary>
/// <param name="sectors">Size in 512-byte sectors.</param>
public sealed class ScriptedDisk(int sectors) : IDisk
{
    private readonly Queue<DiskRequest> _finished = new();

    /// <summary>The content.</summary>
    public byte[] Content { get; } = new byte[sectors * DiskRequest.SectorSize];

    public ulong Sectors { get; set; } = (ulong)sectors;
    public bool ReadOnly { get; init; }
    public int BlockSize { get; init; } = DiskRequest.SectorSize;
    public string Id { get; init; } = "scripted";
    public bool Flushes { get; init; } = true;
    public bool Discards { get; init; } = true;
    public Action? Wake { get; set; }

    /// <summary>Requests wait in <see cref="Held"/> for <see cref="Finish"/>.</summary>
    public bool Hold { get; set; }

    /// <summary>What was started and not finished, in order.</summary>
    public List<DiskRequest> Held { get; } = [];

    /// <summary>What was performed: operation, sector, flag.</summary>
    public List<(DiskOperation Operation, ulong Sector, bool Flag)>? Performed { get; set; }

    /// <summary>How the next requests end, instead of being performed.</summary>
    public DiskStatus? Fails { get; set; }

    /// <summary>Times that everything under way was forgotten.</summary>
    public int Abandoned { get; private set; }

    public bool Start(DiskRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (Hold)
        {
            Held.Add(request);
            return false;
        }
        Perform(request);
        return true;
    }

    /// <summary>Performs a held request; the device finds it with its next look at the backend.</summary>
    public void Finish(DiskRequest request)
    {
        if (!Held.Remove(request)) throw new InvalidOperationException("the request is not held");
        Perform(request);
        _finished.Enqueue(request);
        Wake?.Invoke();
    }

    public bool TryTakeCompleted([NotNullWhen(true)] out DiskRequest? request) => _finished.TryDequeue(out request);

    public void Abandon()
    {
        Abandoned++;
        Held.Clear();
        _finished.Clear();
    }

    private void Perform(DiskRequest request)
    {
        Performed?.Add((request.Operation, request.Sector, request.Flag));
        request.Status = Fails ?? DiskStatus.Ok;
        if (Fails is not null) return;
        var at = checked((int)(request.Sector * DiskRequest.SectorSize));
        switch (request.Operation)
        {
            case DiskOperation.Read:
                foreach (var segment in request.Segments)
                {
                    Content.AsSpan(at, segment.Length).CopyTo(segment.Bytes);
                    at += segment.Length;
                }
                break;
            case DiskOperation.Write:
                foreach (var segment in request.Segments)
                {
                    segment.Bytes.CopyTo(Content.AsSpan(at));
                    at += segment.Length;
                }
                break;
            case DiskOperation.WriteZeroes:
                Content.AsSpan(at, checked((int)request.Sectors * DiskRequest.SectorSize)).Clear();
                break;
            case DiskOperation.Discard:
                Content.AsSpan(at, checked((int)request.Sectors * DiskRequest.SectorSize)).Fill(0xD1); // anything is allowed
                break;
            default: break;
        }
    }
}
