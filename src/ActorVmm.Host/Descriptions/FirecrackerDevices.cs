using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using ActorVmm.Actors;

namespace ActorVmm.Host.Descriptions;

/// <summary>
/// The device objects of a Firecracker configuration. Each is checked by its own rules first, so that a file that will run one day is told
/// from one that never will; those that this version does not have are then refused by name.
/// </summary>
internal static partial class FirecrackerDevices
{
    private const ulong U32 = uint.MaxValue;

    [GeneratedRegex(@"\A[A-Za-z0-9_]+\z", RegexOptions.CultureInvariant)]
    private static partial Regex IdPattern();

    /// <returns>The devices that this version has.</returns>
    public static DeviceDescriptions Read(ObjectReader file, int memoryMib, string baseDirectory)
    {
        var disks = DiskDescriptions.Firecracker(file, baseDirectory, id => IdPattern().IsMatch(id), out var root);
        var nets = NetDescriptions.Firecracker(file);
        Vsock(file);
        Balloon(file, memoryMib);
        Mmds(file, nets.Select(static net => net.Id).ToHashSet(StringComparer.Ordinal));
        var entropy = Entropy(file);
        Pmem(file, root);
        MemoryHotplug(file);
        var devices = new DeviceDescriptions { Disks = disks, Nets = nets, Entropy = entropy };
        devices.CheckCount(file, "drives", "network-interfaces");
        return devices;
    }

    private static EntropySpec? Entropy(ObjectReader file)
    {
        if (file.Object("entropy", Need.Nullable) is not { } entropy)
            return null;
        var spec = new EntropySpec { Limits = RateLimits.Firecracker(entropy, "rate_limiter") };
        entropy.Finish();
        return spec;
    }

    /// <returns>The metrics file, or null.</returns>
    public static string? Metrics(ObjectReader file, string baseDirectory)
    {
        if (file.Object("metrics", Need.Nullable) is not { } metrics)
            return null;
        var path = metrics.String("metrics_path", Need.Required, "the path of a file");
        if (path is { Length: 0 } || path?.Contains('\0', StringComparison.Ordinal) == true)
            metrics.Reject("metrics_path", "allowed is the path of a file to append to");
        metrics.Boolean("emit_id", Need.Optional);
        if (metrics.Take("properties", Need.Nullable, "an object of strings") is { } properties)
        {
            if (properties.Kind != NodeKind.Object
                || properties.Members.Exists(m => m.Value.Kind is not (NodeKind.String or NodeKind.Text)))
                metrics.Reject("properties", "allowed is an object of strings");
        }
        return string.IsNullOrEmpty(path) || path.Contains('\0', StringComparison.Ordinal) // unknown keys are allowed in this object
            ? null : DescriptionChecks.FullPath(path, baseDirectory);
    }

    private static void NotBuilt(ObjectReader part, string what) =>
        part.RejectWhole($"{what}: not built yet in this version; remove it");

    private static void Vsock(ObjectReader file)
    {
        if (file.Object("vsock", Need.Nullable) is not { } vsock)
            return;
        vsock.Integer("guest_cid", Need.Required, 3, U32);
        vsock.String("uds_path", Need.Required, "the path of a unix socket");
        vsock.String("vsock_id", Need.Nullable);
        vsock.Finish();
        NotBuilt(vsock, "vsock");
    }

    private static void Balloon(ObjectReader file, int memoryMib)
    {
        if (file.Object("balloon", Need.Nullable) is not { } balloon)
            return;
        if (balloon.Integer("amount_mib", Need.Required, 0, U32) > (ulong)memoryMib)
            balloon.Reject("amount_mib", string.Create(CultureInfo.InvariantCulture, $"more than the machine's {memoryMib} MiB"));
        balloon.Boolean("deflate_on_oom", Need.Required);
        balloon.Integer("stats_polling_interval_s", Need.Optional, 0, ushort.MaxValue);
        balloon.Boolean("free_page_hinting", Need.Optional);
        balloon.Boolean("free_page_reporting", Need.Optional);
        balloon.Finish();
        NotBuilt(balloon, "the memory balloon");
    }

    private static void Mmds(ObjectReader file, HashSet<string> interfaces)
    {
        if (file.Object("mmds-config", Need.Nullable) is not { } mmds)
            return;
        var names = mmds.Array("network_interfaces", Need.Required);
        if (names.Count == 0)
            mmds.Reject("network_interfaces", "allowed is an array of at least one interface id");
        foreach (var name in names)
        {
            if (name.Kind is not (NodeKind.String or NodeKind.Text) || !interfaces.Contains(name.Text))
                file.Errors.Add(name, mmds.PathOf("network_interfaces"), "no network interface has this id");
        }
        mmds.Choice("version", Need.Optional, StringComparison.Ordinal, "V1", "V2");
        if (mmds.String("ipv4_address", Need.Nullable) is { } address && !IsMetadataAddress(address))
            mmds.Reject("ipv4_address", "allowed is 169.254.1.0 to 169.254.254.255");
        mmds.Boolean("imds_compat", Need.Optional);
        mmds.Finish();
        NotBuilt(mmds, "the metadata service");
    }

    // Four decimal parts, no short forms.
    private static bool IsMetadataAddress(string text) =>
        IPAddress.TryParse(text, out var address) && address.AddressFamily == AddressFamily.InterNetwork
        && string.Equals(address.ToString(), text, StringComparison.Ordinal)
        && address.GetAddressBytes() is [169, 254, >= 1 and <= 254, _];

    private static void Pmem(ObjectReader file, string? root)
    {
        foreach (var pmem in file.Objects("pmem", Need.Optional))
        {
            var id = pmem.String("id", Need.Required);
            pmem.String("path_on_host", Need.Required, "the path of a file");
            if (pmem.Boolean("root_device", Need.Optional) == true)
            {
                if (root is not null)
                    pmem.Reject("root_device", $"'{root}' is the root device already; allowed is one");
                root ??= id ?? "";
            }
            pmem.Boolean("read_only", Need.Optional);
            _ = RateLimits.Firecracker(pmem, "rate_limiter");
            pmem.Finish();
            NotBuilt(pmem, "persistent memory");
        }
    }

    private static void MemoryHotplug(ObjectReader file)
    {
        if (file.Object("memory-hotplug", Need.Nullable) is not { } hotplug)
            return;
        var total = hotplug.Integer("total_size_mib", Need.Required, 1, ulong.MaxValue);
        var block = hotplug.Integer("block_size_mib", Need.Optional, 2, ulong.MaxValue, ", a power of 2") ?? 2;
        var slot = hotplug.Integer("slot_size_mib", Need.Optional, 128, ulong.MaxValue, ", a multiple of block_size_mib") ?? 128;
        if (!ulong.IsPow2(block))
            hotplug.Reject("block_size_mib", "allowed is a power of 2, 2 or more");
        if (slot % block != 0)
            hotplug.Reject("slot_size_mib", "allowed is a multiple of block_size_mib");
        if (total % slot is not (null or 0))
            hotplug.Reject("total_size_mib", "allowed is a multiple of slot_size_mib");
        hotplug.Finish();
        NotBuilt(hotplug, "memory hot-plug");
    }
}
