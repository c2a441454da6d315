using ActorVmm.Actors;
using ActorVmm.Backends.Disks;

namespace ActorVmm.Host.Descriptions;

/// <summary>Disks in both dialects: Firecracker's <c>drives</c>, and ActorVmm's <c>block</c>.</summary>
internal static class DiskDescriptions
{
    private const string Id = "allowed are letters, digits and '_'";

    /// <summary>Firecracker's array; the root comes first, and of two drives with the same id the later counts.</summary>
    public static IReadOnlyList<DiskSpec> Firecracker(ObjectReader file, string baseDirectory, Func<string, bool> isId, out string? root)
    {
        var disks = new List<DiskSpec>();
        root = null;
        foreach (var drive in file.Objects("drives", Need.Required))
        {
            var id = drive.String("drive_id", Need.Required);
            if (id is not null && !isId(id))
                drive.Reject("drive_id", Id);
            var isRoot = drive.Boolean("is_root_device", Need.Required) == true;
            if (isRoot && root is not null && !string.Equals(root, id, StringComparison.Ordinal))
                drive.Reject("is_root_device", $"'{root}' is the root device already; allowed is one");
            if (isRoot) root ??= id ?? "";
            var part = Partition(drive);
            var cache = drive.Choice("cache_type", Need.Optional, StringComparison.Ordinal, "Unsafe", "Writeback");
            var readOnly = drive.Boolean("is_read_only", Need.Nullable) ?? false;
            var path = drive.String("path_on_host", Need.Nullable);
            var limits = RateLimits.Firecracker(drive, "rate_limiter");
            var engine = drive.Choice("io_engine", Need.Nullable, StringComparison.Ordinal, "Sync", "Async");
            Socket(drive, path);
            drive.Finish();
            if (DescriptionChecks.File(drive, "path_on_host", path, baseDirectory) is not { } full) continue;
            var disk = new DiskSpec
            {
                Id = id ?? "", Path = full, ReadOnly = readOnly, IsRoot = isRoot, PartUuid = part, Limits = limits,
                Writeback = cache is "Writeback", Engine = engine is "Async" ? IoEngine.Async : IoEngine.Sync,
            };
            if (disks.FindIndex(other => string.Equals(other.Id, disk.Id, StringComparison.Ordinal)) is var same and >= 0) disks[same] = disk;
            else disks.Add(disk);
        }
        return disks.Count == 0 ? [] : [.. disks.OrderByDescending(static disk => disk.IsRoot)]; // stable
    }

    private static void Socket(ObjectReader drive, string? path)
    {
        if (drive.String("socket", Need.Nullable) is null)
        {
            if (path is null && !drive.Has("path_on_host"))
                drive.RejectWhole("path_on_host is missing; required unless there is a socket");
            return;
        }
        foreach (var key in (ReadOnlySpan<string>)["is_read_only", "path_on_host", "rate_limiter", "io_engine"])
        {
            if (drive.Has(key))
                drive.Reject(key, "may not be given together with socket");
        }
        drive.Reject("socket", "vhost-user disks: not built yet in this version; give path_on_host");
    }

    /// <summary>ActorVmm's own array <c>block</c>, in the guest's order (<c>/dev/vda</c>, <c>/dev/vdb</c>, ...).</summary>
    public static IReadOnlyList<DiskSpec> Native(ObjectReader vm, string baseDirectory)
    {
        var disks = new List<DiskSpec>();
        foreach (var block in vm.Objects("block", Need.Nullable))
        {
            var id = block.String("id", Need.Nullable) ?? $"disk{disks.Count}";
            if (!DescriptionChecks.IsName(id))
                block.Reject("id", "allowed are 1 to 64 letters, digits, '-' and '_'");
            else if (disks.Exists(other => string.Equals(other.Id, id, StringComparison.Ordinal)))
                block.Reject("id", "is the name of another disk already");
            var path = DescriptionChecks.File(block, "path", block.String("path", Need.Required, "an image file or a block device"),
                baseDirectory);
            var root = block.Boolean("root", Need.Nullable) ?? false;
            if (root && disks.Exists(static other => other.IsRoot))
                block.Reject("root", "another disk is the root already; allowed is one");
            var size = block.Integer("queue-size", Need.Nullable, 4, 1024, ", a power of 2") ?? 256;
            if (!ulong.IsPow2(size))
                block.Reject("queue-size", "allowed is a power of 2 from 4 to 1024");
            var part = Partition(block);
            if (part is not null && !root)
                block.Reject("partuuid", "names the partition that the root is on: allowed with root = true only");
            disks.Add(new DiskSpec
            {
                Id = id, Path = path ?? "", IsRoot = root, PartUuid = part,
                ReadOnly = block.Boolean("read-only", Need.Nullable) ?? false,
                Writeback = block.Choice("cache", Need.Nullable, StringComparison.Ordinal, "writeback", "unsafe") is not "unsafe",
                Engine = block.Choice("engine", Need.Nullable, StringComparison.Ordinal, "sync", "async") is "async"
                    ? IoEngine.Async : IoEngine.Sync,
                Direct = block.Boolean("direct", Need.Nullable) ?? false,
                Queues = (int)(block.Integer("queues", Need.Nullable, 1, 16) ?? 1),
                QueueSize = (int)size,
                Limits = RateLimits.Native(block, "rate-limiter"),
            });
            block.Finish();
        }
        if (disks.Count == 0) return [];
        return disks;
    }

    // It goes onto the kernel's command line, where a blank would begin another word.
    private static string? Partition(ObjectReader disk)
    {
        var part = disk.String("partuuid", Need.Nullable);
        if (part is not null && (part.Length is 0 or > 64 || !part.All(static c => char.IsAsciiLetterOrDigit(c) || c is '-' or '/' or '=')))
            disk.Reject("partuuid", "allowed is a partition's UUID, such as 0eaa91a0-01");
        return part;
    }
}
