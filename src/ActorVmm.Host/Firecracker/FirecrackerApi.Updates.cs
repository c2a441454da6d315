using System.Globalization;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Devices.Virtio;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Firecracker;

/// <summary>Devices that are changed while their microVM runs. What a body leaves out, or gives as null, stays as it is.</summary>
internal sealed partial class FirecrackerApi
{
    private async Task<MicroReply> UpdateDriveAsync(Node change)
    {
        RequireStarted();
        var place = IndexOf(vm.Spec?.Disks, change.Find("drive_id")!.Text, static disk => disk.Id);
        if (place < 0) throw DriveFault("Device not found.");
        var path = change.Find("path_on_host") is { Kind: NodeKind.String } given ? given.Text : null;
        var limits = LimitsOf(change, "rate_limiter");
        if (path is null && limits is null) throw DriveFault("Running method expected different backend."); // a vhost-user drive's PATCH
        if (path is not null && PresenceFault(path) is { } missing) throw DriveFault($"{missing} {path}.");
        var full = path is null ? null : DescriptionChecks.FullPath(path, baseDirectory);
        return await UpdateAsync(string.Create(CultureInfo.InvariantCulture, $"blk{place}"), new DiskUpdate(full, limits), "drives",
            "drive_id", change, DriveFault).ConfigureAwait(false);
    }

    private async Task<MicroReply> UpdateNetAsync(Node change)
    {
        RequireStarted();
        var place = IndexOf(vm.Spec?.Nets, change.Find("iface_id")!.Text, static net => net.Id);
        if (place < 0) throw NetFault("Device not found");
        var update = new NetUpdate(ReceiveLimits: LimitsOf(change, "rx_rate_limiter"), TransmitLimits: LimitsOf(change, "tx_rate_limiter"));
        return await UpdateAsync(string.Create(CultureInfo.InvariantCulture, $"net{place}"), update, "network-interfaces", "iface_id",
            change, NetFault).ConfigureAwait(false);
    }

    private async Task<MicroReply> UpdateAsync(string device, object update, string key, string idKey, Node change,
        Func<string, FaultException> fault)
    {
        try
        {
            await vm.UpdateDeviceAsync(device, update).ConfigureAwait(false);
        }
        catch (Exception refused) when (refused is InvalidOperationException or NotSupportedException)
        {
            throw fault(refused.Message);
        }

        _config = _config.Updated(key, idKey, change);
        return MicroReply.NoContent;
    }

    /// <summary>The place of a device among its kind, which is the number in its actor's name; -1 where there is none of that id.</summary>
    private static int IndexOf<T>(IReadOnlyList<T>? devices, string id, Func<T, string> idOf)
    {
        for (var i = 0; i < (devices?.Count ?? 0); i++)
        {
            if (string.Equals(idOf(devices![i]), id, StringComparison.Ordinal)) return i;
        }

        return -1;
    }

    /// <summary>A <c>rate_limiter</c> whose shape has been checked; null where it is not there.</summary>
    private static RateLimiterChange? LimitsOf(Node body, string key)
    {
        return body.Find(key) is { Kind: NodeKind.Object } limiter
            ? new RateLimiterChange(Bucket(limiter.Find("bandwidth")), Bucket(limiter.Find("ops")))
            : null;

        static TokenBucketSpec? Bucket(Node? bucket) => bucket is { Kind: NodeKind.Object }
            ? new TokenBucketSpec(Number(bucket, "size"), Number(bucket, "one_time_burst"), Number(bucket, "refill_time"))
            : null;

        static ulong Number(Node bucket, string key) =>
            bucket.Find(key) is { Kind: NodeKind.Number } number ? ulong.Parse(number.Text, CultureInfo.InvariantCulture) : 0;
    }

    /// <summary>Looks without opening: the file may be the one that the drive has open and locked.</summary>
    private string? PresenceFault(string path) => Fault(path, static full =>
    {
        if (Directory.Exists(full)) throw new IOException("Is a directory (os error 21)");
        if (!File.Exists(full)) throw new FileNotFoundException(null, full);
    });

    private static FaultException DriveFault(string why) =>
        new($"Unable to patch the block device: {why} Please verify the request arguments.");

    private static FaultException NetFault(string why) => new($"Unable to update the net device: {why}");
}
