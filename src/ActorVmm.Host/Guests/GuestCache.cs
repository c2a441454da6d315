using System.Security.Cryptography;

namespace ActorVmm.Host.Guests;

/// <summary>A Debian kernel with its modules and a static busybox, verified, in the user's cache.</summary>
/// <param name="KernelPath">The bzImage.</param>
/// <param name="KernelRelease">What <c>uname -r</c> prints.</param>
/// <param name="BusyboxPath">The static binary.</param>
/// <param name="ModulesDirectory"><c>lib/modules/RELEASE</c>; only modules for virtual machines are kept.</param>
/// <param name="Packages">Where it all comes from.</param>
public sealed record DebianGuest(
    string KernelPath, string KernelRelease, string BusyboxPath, string ModulesDirectory, IReadOnlyList<GuestPackage> Packages);

/// <summary>
/// The guests of the demo and of the tests: fetched from Debian by package name on first use, verified by SHA-256 on every use, fetched
/// again where something is damaged, and needing no network otherwise. Processes may use one cache at the same time.
/// </summary>
public sealed class GuestCache
{
    private const string KernelPackage = "linux-image-cloud-amd64";
    private const string BusyboxPackage = "busybox-static";
    private const string Current = "debian-cloud-amd64";

    // What a virtual machine can need; the rest of the 90 MB stays out of the cache.
    private static readonly string[] KeptModules =
        ["virtio", "pvpanic", "failover", "net_failover", "vsock", "vmw_vsock", "9p", "overlay", "loop", "null_blk"];

    // With a merged /usr the same files are below usr.
    private static readonly string[] BusyboxPlaces = ["bin/busybox", "usr/bin/busybox"];
    private static readonly string[] ModulePlaces = ["lib/modules", "usr/lib/modules"];

    private readonly string _root;
    private readonly IGuestProgress _progress;

    /// <param name="root">The cache directory; made where it is missing. Null: <see cref="DefaultDirectory"/>.</param>
    /// <param name="progress">Who hears about it.</param>
    public GuestCache(string? root = null, IGuestProgress? progress = null)
    {
        _root = Path.GetFullPath(root ?? DefaultDirectory);
        _progress = progress ?? SilentProgress.Instance;
    }

    /// <summary><c>$XDG_CACHE_HOME/actorvmm</c>, or <c>~/.cache/actorvmm</c>.</summary>
    public static string DefaultDirectory
    {
        get
        {
            // XDG base directory specification: a relative path there is invalid and is ignored.
            var xdg = Environment.GetEnvironmentVariable("XDG_CACHE_HOME");
            var home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile, Environment.SpecialFolderOption.DoNotVerify);
            var cache = !string.IsNullOrEmpty(xdg) && Path.IsPathRooted(xdg)
                ? xdg
                : Path.Combine(home.Length > 0 ? home : "/tmp", ".cache");
            return Path.Combine(cache, "actorvmm");
        }
    }

    /// <summary>Where images that are built from a guest are kept.</summary>
    internal string ImagesDirectory => Path.Combine(_root, "images");

    /// <summary>The cache directory.</summary>
    internal string Root => _root;

    /// <summary>Who hears about what is fetched and built.</summary>
    internal IGuestProgress Progress => _progress;

    /// <summary>A place in the cache, by name.</summary>
    internal string DirectoryOf(string name) => Path.Combine(_root, name);

    /// <summary>Makes a directory to work in; its maker removes it.</summary>
    internal string NewWorkDirectory()
    {
        var work = Path.Combine(_root, $".new-{Environment.ProcessId}-{Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(4))}");
        Directory.CreateDirectory(work);
        return work;
    }

    /// <summary>The guest, from the cache where it is whole, else from the archive.</summary>
    /// <param name="refresh">Fetch the archive's current version even so.</param>
    /// <param name="cancel">Stops a download.</param>
    /// <exception cref="GuestException">It cannot be had; the message says what to do.</exception>
    public async Task<DebianGuest> GetAsync(bool refresh = false, CancellationToken cancel = default)
    {
        try
        {
            Directory.CreateDirectory(_root);
            await using var mine = await LockAsync(cancel);
            if (!refresh && await TryOpenAsync(cancel) is { } guest)
                return guest;
            await FetchAsync(cancel);
            return await TryOpenAsync(cancel) ?? throw new GuestException($"{_root} changed while it was written; is the disk sound?");
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            throw new GuestException($"the guest cache {_root} cannot be used: {cannot.Message} (XDG_CACHE_HOME chooses another place)",
                cannot);
        }
    }

    // One process at a time fetches or verifies; the lock goes with its holder, however it ends.
    internal async Task<FileStream> LockAsync(CancellationToken cancel)
    {
        var path = Path.Combine(_root, ".lock");
        for (var told = false; ; told = true)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (File.Exists(path))
            {
                if (!told)
                    _progress.Report("Waiting for another process that fetches the guest", null);
                await Task.Delay(TimeSpan.FromMilliseconds(100), cancel);
            }
        }
    }

    private async Task<DebianGuest?> TryOpenAsync(CancellationToken cancel)
    {
        var directory = Path.Combine(_root, Current);
        if (await GuestManifest.TryReadAsync(directory, cancel) is not { } manifest)
            return null;
        foreach (var name in manifest.Files.Keys)
        {
            if (!await manifest.HoldsAsync(directory, name, cancel))
                return null;
        }
        var modules = Path.Combine(directory, "modules");
        return new(Path.Combine(directory, "vmlinuz"), manifest.KernelRelease, Path.Combine(directory, "busybox"), modules,
            manifest.Packages);
    }

    private async Task FetchAsync(CancellationToken cancel)
    {
        DebianPackages.RequireTools();
        var work = NewWorkDirectory();
        try
        {
            var apt = new DebianPackages(Path.Combine(_root, "apt"), _progress);
            IReadOnlyList<DebianPackage> packages = [];
            var files = await apt.DownloadAsync(
                async () => [await apt.ResolveKernelAsync(KernelPackage, cancel), await apt.ShowAsync(BusyboxPackage, cancel)],
                work, found => packages = found, cancel);
            _progress.Report("Unpacking", null);
            var unpacked = Path.Combine(work, "unpacked");
            foreach (var file in files)
            {
                var result = await Tool.RunAsync("dpkg-deb", ["-x", file, unpacked], cancel: cancel);
                if (result.ExitCode != 0)
                    throw new GuestException($"{Path.GetFileName(file)} cannot be unpacked: {result.Errors.Trim()}");
            }
            var ready = Path.Combine(work, "ready");
            await ArrangeAsync(unpacked, ready, packages, cancel);
            Swap(ready);
            _progress.Report("Unpacking", 1);
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    private static async Task ArrangeAsync(string unpacked, string ready, IReadOnlyList<DebianPackage> packages, CancellationToken cancel)
    {
        Directory.CreateDirectory(ready);
        var kernel = Directory.EnumerateFiles(Path.Combine(unpacked, "boot"), "vmlinuz-*").FirstOrDefault()
            ?? throw new GuestException($"{packages[0].Name} holds no kernel");
        var release = Path.GetFileName(kernel)["vmlinuz-".Length..];
        File.Move(kernel, Path.Combine(ready, "vmlinuz"));
        var busybox = BusyboxPlaces.Select(name => Path.Combine(unpacked, name)).FirstOrDefault(File.Exists)
            ?? throw new GuestException($"{packages[1].Name} holds no busybox");
        File.Move(busybox, Path.Combine(ready, "busybox"));

        var tree = ModulePlaces.Select(name => Path.Combine(unpacked, name, release)).FirstOrDefault(Directory.Exists);
        Directory.CreateDirectory(Path.Combine(ready, "modules"));
        if (tree is not null)
        {
            var modules = new KernelModules(tree);
            var wanted = modules.Names.Where(name => Array.Exists(KeptModules, kept => name.StartsWith(kept, StringComparison.Ordinal)));
            foreach (var name in modules.InLoadOrder(wanted))
            {
                var file = modules.FileOf(name)!;
                File.Move(file, Path.Combine(ready, "modules", Path.GetFileName(file)));
            }
        }
        var sums = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var file in Directory.EnumerateFiles(ready, "*", SearchOption.AllDirectories))
            sums[Path.GetRelativePath(ready, file)] = await GuestManifest.Sha256Async(file, cancel);
        var sources = packages.Select(package => new GuestPackage(package.Name, package.Version, package.Sha256)).ToArray();
        await new GuestManifest(GuestManifest.CurrentFormat, release, sources, sums).WriteAsync(ready, cancel);
    }

    // The new guest takes its place whole; a crash between the two moves leaves none, which is fetched again.
    private void Swap(string ready)
    {
        var place = Path.Combine(_root, Current);
        if (Directory.Exists(place))
            Directory.Delete(place, recursive: true);
        Directory.Move(ready, place);
    }
}
