using System.Globalization;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace ActorVmm.Host.Guests;

/// <summary>What goes onto a Debian disk.</summary>
public sealed record RootImageOptions
{
    /// <summary>With systemd and a login prompt on the serial port; else a plain script starts a shell.</summary>
    public bool Systemd { get; init; }

    /// <summary>Size of the file system in MiB; the file is sparse.</summary>
    public int SizeMib { get; init; } = 1024;

    internal string Name => Systemd ? "debian-systemd" : "debian-root";

    // fio, iperf3 and curl are what disks and networks are tried with; the rest is what one misses in Debian's minimal set.
    internal IReadOnlyList<string> Packages =>
        ["busybox-static", "curl", "e2fsprogs", "fio", "iperf3", "iproute2", "iputils-ping", "kmod", "udhcpc", .. Systemd ? SystemdPackages : []];

    private static readonly string[] SystemdPackages = ["systemd-sysv", "udev", "dbus"];
}

/// <summary>
/// Debian on an ext4 image without a partition table: debootstrap's minimal set and a few tools, put into the image by <c>mke2fs -d</c>,
/// verified by SHA-256 whenever a disk is made from it. Building needs root (debootstrap runs the packages' scripts in a chroot); using does
/// not.
/// </summary>
/// <param name="Path">The image. It is a master: VMs get copies (<see cref="CopyToAsync"/>).</param>
/// <param name="Suite">Debian's release, e.g. <c>bookworm</c>.</param>
/// <param name="Sha256">Of the image.</param>
public sealed record RootImage(string Path, string Suite, string Sha256)
{
    private const string Elsewhere = "build it once as root (sudo), or give an image of your own: actorvmm demo --disk FILE";

    // What a debootstrap prints per package is what its progress is measured by.
    private const int StepsPerPackage = 5;
    private const int PackagesExpected = 150;

    /// <summary>The image, from the cache where it is whole, else built; the first time that takes a minute or two.</summary>
    /// <exception cref="GuestException">It cannot be had; the message says what to do.</exception>
    public static async Task<RootImage> PrepareAsync(
        GuestCache cache, RootImageOptions? options = null, bool refresh = false, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(cache);
        options ??= new();
        var place = cache.DirectoryOf(options.Name);
        try
        {
            Directory.CreateDirectory(cache.Root);
            await using var mine = await cache.LockAsync(cancel);
            if (!refresh && await TryOpenAsync(place, options, cancel) is { } known)
                return known;
            await BuildAsync(cache, place, options, cancel);
            return await TryOpenAsync(place, options, cancel)
                ?? throw new GuestException($"{place} changed while it was written; is the disk sound?");
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            throw new GuestException($"the image cache {cache.Root} cannot be used: {cannot.Message} (XDG_CACHE_HOME chooses another place)",
                cannot);
        }
    }

    /// <summary>Copies the image, holes and all, to where a VM may write it; verified on the way.</summary>
    /// <exception cref="GuestException">It is damaged or there is no room.</exception>
    public async Task CopyToAsync(string path, CancellationToken cancel = default)
    {
        var sum = await GuestManifest.Sha256Async(Path, cancel);
        if (!string.Equals(sum, Sha256, StringComparison.Ordinal))
            throw new GuestException($"{Path} is damaged; remove it, and it is built again");
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!);
        var fresh = $"{path}.{Environment.ProcessId}";
        var copied = await Tool.RunAsync("cp", ["--sparse=always", "--reflink=auto", "--", Path, fresh], cancel: cancel);
        if (copied.ExitCode != 0)
        {
            File.Delete(fresh);
            throw new GuestException($"{path} cannot be written: {copied.Errors.Trim()}");
        }
        File.Move(fresh, path, overwrite: true);
    }

    private static async Task<RootImage?> TryOpenAsync(string place, RootImageOptions options, CancellationToken cancel)
    {
        var image = System.IO.Path.Combine(place, "root.ext4");
        return await RootManifest.TryReadAsync(place, cancel) is { } manifest && manifest.Describes(options)
            && new FileInfo(image) is { Exists: true, Length: var length } && length == manifest.Length
            ? new RootImage(image, manifest.Suite, manifest.Sha256) : null;
    }

    private static async Task BuildAsync(GuestCache cache, string place, RootImageOptions options, CancellationToken cancel)
    {
        RequireTools();
        var (mirror, suite) = await MirrorAsync(cancel);
        var work = cache.NewWorkDirectory();
        try
        {
            var root = System.IO.Path.Combine(work, "root");
            await DebootstrapAsync(root, suite, mirror, options, cache.Progress, cancel);
            await FurnishAsync(root, options, cancel);
            var ready = System.IO.Path.Combine(work, "ready");
            Directory.CreateDirectory(ready);
            var image = System.IO.Path.Combine(ready, "root.ext4");
            const string Step = "Making the file system";
            cache.Progress.Report(Step, null);
            // The tables are written now: a guest that fills them in later would be busy for a while after its first start.
            await RunAsync("mke2fs", ["-q", "-t", "ext4", "-L", "actorvmm", "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
                "-d", root, image, string.Create(CultureInfo.InvariantCulture, $"{options.SizeMib}M")], cancel);
            var sum = await GuestManifest.Sha256Async(image, cancel);
            await new RootManifest(RootManifest.CurrentFormat, suite, options.SizeMib, options.Packages, new FileInfo(image).Length, sum)
                .WriteAsync(ready, cancel);
            if (Directory.Exists(place)) Directory.Delete(place, recursive: true);
            Directory.Move(ready, place);
            cache.Progress.Report(Step, 1);
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    private static void RequireTools()
    {
        foreach (var (program, package) in (ReadOnlySpan<(string, string)>)
            [("debootstrap", "debootstrap"), ("mke2fs", "e2fsprogs"), ("unshare", "util-linux"), ("apt-get", "apt")])
        {
            if (!Tool.Exists(program))
                throw new GuestException($"the Debian disk is built with {program} (package {package}), which this host has not: "
                    + $"install it, or {Elsewhere}");
        }
        if (!Environment.IsPrivilegedProcess)
            throw new GuestException($"the Debian disk is built with debootstrap, which needs root: {Elsewhere}");
    }

    /// <summary>The host's own mirror and release, where it is a Debian.</summary>
    private static async Task<(string Mirror, string Suite)> MirrorAsync(CancellationToken cancel)
    {
        var targets = await Tool.RunAsync(
            "apt-get", ["indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"], cancel: cancel);
        foreach (var line in targets.Output.Split('\n'))
        {
            if (line.Split(' ') is [{ } site, { } release, "main"] && site.EndsWith("/debian", StringComparison.Ordinal)
                && !release.Contains('-', StringComparison.Ordinal) && !release.Contains('/', StringComparison.Ordinal))
                return (site, release);
        }
        return ("http://deb.debian.org/debian", "bookworm");
    }

    private static async Task DebootstrapAsync(
        string root, string suite, string mirror, RootImageOptions options, IGuestProgress progress, CancellationToken cancel)
    {
        var step = $"Building Debian {suite} (once)";
        progress.Report(step, 0);
        var steps = 0;
        var last = "";
        // In a mount namespace of its own: what it mounts in the new root goes with it, however it ends.
        var result = await Tool.RunAsync("unshare", ["--mount", "--propagation", "private", "debootstrap", "--arch=amd64", "--variant=minbase",
            $"--include={string.Join(',', options.Packages)}", suite, root, mirror], onLine: OnLine, cancel: cancel);
        if (result.ExitCode != 0)
        {
            var log = System.IO.Path.Combine(root, "debootstrap", "debootstrap.log");
            var tail = File.Exists(log) ? string.Join("; ", File.ReadLines(log).TakeLast(3)) : result.Errors.Trim();
            throw new GuestException($"debootstrap {suite} from {mirror} failed: {(last.Length > 0 ? last + "; " : "")}{tail}");
        }
        progress.Report(step, 1);

        void OnLine(string line)
        {
            if (line.StartsWith("E: ", StringComparison.Ordinal)) last = line;
            steps++;
            progress.Report(step, Math.Min(0.99, steps / (double)(StepsPerPackage * PackagesExpected)));
        }
    }

    /// <summary>Takes out what an image does not need, and puts in what starts it.</summary>
    private static async Task FurnishAsync(string root, RootImageOptions options, CancellationToken cancel)
    {
        foreach (var needless in (ReadOnlySpan<string>)["var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man",
            "usr/share/info", "usr/share/locale"])
        {
            var directory = System.IO.Path.Combine(root, needless);
            if (Directory.Exists(directory)) Directory.Delete(directory, recursive: true);
            Directory.CreateDirectory(directory);
        }
        Directory.CreateDirectory(System.IO.Path.Combine(root, "var/cache/apt/archives/partial"));
        Directory.CreateDirectory(System.IO.Path.Combine(root, "var/lib/apt/lists/partial"));
        await WriteAsync("etc/hostname", "actorvmm\n");
        await WriteAsync("etc/hosts", "127.0.0.1 localhost actorvmm\n");
        await WriteAsync("etc/resolv.conf", "nameserver 10.0.2.3\n");
        await WriteAsync("etc/fstab", "/dev/vda / ext4 defaults 0 1\n");
        if (options.Systemd)
        {
            // A throw-away machine on a serial cable: root logs in without a password.
            var shadow = System.IO.Path.Combine(root, "etc/shadow");
            var lines = await File.ReadAllLinesAsync(shadow, cancel);
            await File.WriteAllLinesAsync(shadow,
                lines.Select(line => line.StartsWith("root:", StringComparison.Ordinal) ? "root::" + line.Split(':', 3)[2] : line), cancel);
            return;
        }
        await WriteAsync("sbin/init", await ReadScriptAsync("root-init.sh", cancel), executable: true);
        await WriteAsync("sbin/poweroff", "#!/bin/sh\nsync\nmount -o remount,ro / 2>/dev/null\nexec busybox poweroff -f\n", executable: true);
        await WriteAsync("sbin/reboot", "#!/bin/sh\nsync\nmount -o remount,ro / 2>/dev/null\nexec busybox reboot -f\n", executable: true);

        async Task WriteAsync(string name, string text, bool executable = false)
        {
            var path = System.IO.Path.Combine(root, name);
            File.Delete(path);
            await File.WriteAllTextAsync(path, text, cancel);
            const UnixFileMode Readable = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
            const UnixFileMode Runnable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
            if (!OperatingSystem.IsWindows()) File.SetUnixFileMode(path, executable ? Readable | Runnable : Readable);
        }
    }

    private static async Task<string> ReadScriptAsync(string name, CancellationToken cancel)
    {
        await using var stream = Assembly.GetExecutingAssembly().GetManifestResourceStream(name)!;
        using var reader = new StreamReader(stream);
        return await reader.ReadToEndAsync(cancel);
    }

    private static async Task RunAsync(string program, IReadOnlyList<string> arguments, CancellationToken cancel)
    {
        var result = await Tool.RunAsync(program, arguments, cancel: cancel);
        if (result.ExitCode != 0) throw new GuestException($"{program} failed: {result.Errors.Trim()}");
    }
}

/// <summary>What a built image is.</summary>
internal sealed record RootManifest(
    int Format, string Suite, int SizeMib, IReadOnlyList<string> Packages, long Length, string Sha256)
{
    /// <summary>Goes up when the scripts or what is taken out change, so that old images are built again.</summary>
    public const int CurrentFormat = 1;

    private const string FileName = "manifest.json";

    public bool Describes(RootImageOptions options) => Format == CurrentFormat && SizeMib == options.SizeMib
        && Packages.SequenceEqual(options.Packages, StringComparer.Ordinal);

    public static async Task<RootManifest?> TryReadAsync(string directory, CancellationToken cancel)
    {
        try
        {
            await using var file = File.OpenRead(Path.Combine(directory, FileName));
            return await JsonSerializer.DeserializeAsync(file, RootManifestJson.Default.RootManifest, cancel)
                is { Suite.Length: > 0, Packages: not null, Sha256.Length: 64 } manifest ? manifest : null;
        }
        catch (Exception damaged) when (damaged is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    public async Task WriteAsync(string directory, CancellationToken cancel)
    {
        await using var file = File.Create(Path.Combine(directory, FileName));
        await JsonSerializer.SerializeAsync(file, this, RootManifestJson.Default.RootManifest, cancel);
    }
}

[JsonSourceGenerationOptions(WriteIndented = true)]
[JsonSerializable(typeof(RootManifest))]
internal sealed partial class RootManifestJson : JsonSerializerContext;
