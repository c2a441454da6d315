using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using ActorVmm.Boot.Initramfs;

namespace ActorVmm.Host.Guests;

/// <summary>What goes into an initramfs beside busybox and <c>/init</c>.</summary>
public sealed record GuestImageOptions
{
    /// <summary>Modules to load at the start, by name; what they depend on comes along. pvpanic-mmio tells a panic from a reset.</summary>
    public IReadOnlyList<string> Modules { get; init; } = ["pvpanic-mmio"];

    /// <summary>An initramfs that finds virtio disks and networks, and goes on to the system that <c>root=</c> names.</summary>
    public static GuestImageOptions WithDisks { get; } =
        new() { Modules = ["pvpanic-mmio", "virtio_mmio", "virtio_blk", "virtio_net", "virtio-rng"] };

    /// <summary>
    /// More files, by path without a leading slash; executable for all. <c>/init.local</c>, where given, is run before the shell starts.
    /// </summary>
    public IReadOnlyDictionary<string, byte[]> Files { get; init; } = new Dictionary<string, byte[]>(StringComparer.Ordinal);
}

/// <summary>A guest that can be started: kernel and initramfs.</summary>
/// <param name="KernelPath">The bzImage.</param>
/// <param name="InitramfsPath">The cpio archive.</param>
/// <param name="KernelRelease">What <c>uname -r</c> prints.</param>
/// <param name="Guest">What it was made from.</param>
public sealed record GuestImage(string KernelPath, string InitramfsPath, string KernelRelease, DebianGuest Guest)
{
    private const int Executable = 0b111_101_101;

    /// <summary>How the guest's greeting begins, on a line of its own; then the shell's first prompt follows.</summary>
    public const string Greeting = "Welcome to ActorVmm";

    /// <summary>Under this name, beside the archives named by content, descriptions find the standard initramfs.</summary>
    internal const string StandardName = "initramfs.cpio";

    /// <summary>Makes the guest ready, fetching and building what is not in the cache.</summary>
    /// <exception cref="GuestException">It cannot be had; the message says what to do.</exception>
    public static async Task<GuestImage> PrepareAsync(
        GuestCache cache, GuestImageOptions? options = null, bool refresh = false, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(cache);
        var guest = await cache.GetAsync(refresh, cancel);
        var archive = Build(guest, options ?? new());
        var path = await StoreAsync(cache.ImagesDirectory, archive, cancel);
        if (options is null) Name(path, StandardName);
        return new(guest.KernelPath, path, guest.KernelRelease, guest);
    }

    /// <summary>The initramfs: the same guest and options give the same bytes.</summary>
    public static byte[] Build(DebianGuest guest, GuestImageOptions options)
    {
        ArgumentNullException.ThrowIfNull(guest);
        ArgumentNullException.ThrowIfNull(options);
        var archive = new CpioWriter();
        foreach (var directory in (ReadOnlySpan<string>)["bin", "dev", "proc", "sys", "tmp", "root", "modules"])
            archive.AddDirectory(directory);
        archive.AddCharacterDevice("dev/console", major: 5, minor: 1);
        archive.AddFile("bin/busybox", File.ReadAllBytes(guest.BusyboxPath), Executable);
        archive.AddFile("init", Script("init.sh"), Executable);
        archive.AddFile("dhcp.script", Script("dhcp.sh"), Executable);

        var modules = new KernelModules(guest.ModulesDirectory);
        var order = modules.InLoadOrder(options.Modules);
        foreach (var name in order)
            archive.AddFile($"modules/{name}.ko", KernelModules.Read(modules.FileOf(name)!));
        archive.AddFile("modules.list", Encoding.ASCII.GetBytes(string.Concat(order.Select(name => $"{name}.ko\n"))));
        foreach (var (path, content) in options.Files.OrderBy(file => file.Key, StringComparer.Ordinal))
            archive.AddFile(path, content, Executable);
        return archive.ToArray();
    }

    private static byte[] Script(string name)
    {
        using var stream = Assembly.GetExecutingAssembly().GetManifestResourceStream(name)!;
        using var bytes = new MemoryStream();
        stream.CopyTo(bytes);
        return bytes.ToArray();
    }

    // A link, put in place by a rename too: who opens it meanwhile gets the old archive or the new one, whole.
    private static void Name(string path, string name)
    {
        var link = Path.Combine(Path.GetDirectoryName(path)!, name);
        var target = Path.GetFileName(path);
        try
        {
            if (string.Equals(new FileInfo(link).LinkTarget, target, StringComparison.Ordinal)) return;
            var fresh = $"{link}.{Environment.ProcessId}-{Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(4))}";
            File.CreateSymbolicLink(fresh, target);
            File.Move(fresh, link, overwrite: true);
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            throw new GuestException($"the initramfs cannot be named {link}: {cannot.Message}", cannot);
        }
    }

    // Named by content, put in place by a rename: any number of processes may do this at once.
    private static async Task<string> StoreAsync(string directory, byte[] archive, CancellationToken cancel)
    {
        try
        {
            Directory.CreateDirectory(directory);
            var sum = Convert.ToHexStringLower(SHA256.HashData(archive));
            var path = Path.Combine(directory, $"initramfs-{sum[..16]}.cpio");
            if (File.Exists(path) && string.Equals(await GuestManifest.Sha256Async(path, cancel), sum, StringComparison.Ordinal))
                return path;
            var fresh = $"{path}.{Environment.ProcessId}-{Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(4))}";
            await File.WriteAllBytesAsync(fresh, archive, cancel);
            File.Move(fresh, path, overwrite: true);
            return path;
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            throw new GuestException($"the initramfs cannot be written to {directory}: {cannot.Message}", cannot);
        }
    }
}
