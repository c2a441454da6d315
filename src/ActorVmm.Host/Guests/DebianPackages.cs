using System.Globalization;
using System.Text.RegularExpressions;

namespace ActorVmm.Host.Guests;

/// <summary>A package as the archive's index describes it.</summary>
/// <param name="Name">e.g. <c>busybox-static</c>.</param>
/// <param name="Version">Debian version.</param>
/// <param name="Sha256">Of the .deb, lower case hex.</param>
/// <param name="Depends">The raw Depends field.</param>
internal sealed record DebianPackage(string Name, string Version, string Sha256, string Depends);

/// <summary>
/// Fetches .deb files by package name with the host's own apt, so that its mirrors, proxies and signatures hold. Nothing is installed.
/// Where the host has no package lists, or stale ones, they are fetched into a private directory: nothing on the host changes.
/// </summary>
internal sealed partial class DebianPackages
{
    private const string OtherHosts =
        "On this host give a kernel and an initramfs of your own: actorvmm demo --kernel FILE --initrd FILE";

    private readonly string _privateDirectory;
    private readonly IGuestProgress _progress;
    private readonly List<string> _options = ["-o", "APT::Sandbox::User=root"];
    private bool _private;

    /// <param name="privateDirectory">Where a private apt state may live.</param>
    /// <param name="progress">Who hears about it.</param>
    public DebianPackages(string privateDirectory, IGuestProgress progress) =>
        (_privateDirectory, _progress) = (privateDirectory, progress);

    [GeneratedRegex(@"^(?<name>linux-image-[0-9][a-z0-9.+~-]*-cloud-amd64)\b", RegexOptions.CultureInvariant)]
    private static partial Regex VersionedKernel();

    /// <exception cref="GuestException">This is no Debian.</exception>
    public static void RequireTools()
    {
        foreach (var program in (ReadOnlySpan<string>)["apt-get", "apt-cache", "dpkg-deb"])
        {
            if (!Tool.Exists(program))
                throw new GuestException($"the demo's guest comes from Debian packages, and this host has no {program}. {OtherHosts}");
        }
    }

    /// <summary>The kernel package with a version in its name that a meta-package stands for.</summary>
    public async Task<DebianPackage> ResolveKernelAsync(string metaPackage, CancellationToken cancel)
    {
        var meta = await ShowAsync(metaPackage, cancel);
        var name = meta.Depends.Split(',', StringSplitOptions.TrimEntries)
            .Select(part => VersionedKernel().Match(part)).FirstOrDefault(match => match.Success)?.Groups["name"].Value
            ?? throw new GuestException($"{metaPackage} {meta.Version} depends on no kernel image (\"{meta.Depends}\"). {OtherHosts}");
        return await ShowAsync(name, cancel);
    }

    /// <summary>What the index says about a package's candidate version.</summary>
    public async Task<DebianPackage> ShowAsync(string name, CancellationToken cancel)
    {
        await PreparePrivateStateForOtherArchitecturesAsync(cancel);
        var package = await TryShowAsync(name, cancel);
        if (package is null && !_private)
        {
            await UsePrivateStateAsync(cancel);
            package = await TryShowAsync(name, cancel);
        }
        return package ?? throw new GuestException(
            $"apt knows no package {name}: is this Debian, with 'main' in its sources? {OtherHosts}");
    }

    /// <summary>Fetches packages into a directory and checks each against the index.</summary>
    /// <returns>The .deb files, in the order of the packages.</returns>
    public async Task<IReadOnlyList<string>> DownloadAsync(
        Func<Task<IReadOnlyList<DebianPackage>>> resolve, string directory, Action<IReadOnlyList<DebianPackage>> resolved,
        CancellationToken cancel)
    {
        var packages = await resolve();
        var fault = await TryDownloadAsync(packages, directory, cancel);
        if (fault is not null && !_private)
        {
            // The host's lists may name a version that the archive has replaced since.
            await UsePrivateStateAsync(cancel);
            packages = await resolve();
            fault = await TryDownloadAsync(packages, directory, cancel);
        }
        if (fault is not null)
            throw new GuestException($"the guest's packages cannot be fetched: {fault}. Is the network there? {OtherHosts}");
        resolved(packages);
        return [.. packages.Select(package => FileOf(package, directory)!)];
    }

    private async Task<string?> TryDownloadAsync(IReadOnlyList<DebianPackage> packages, string directory, CancellationToken cancel)
    {
        foreach (var stale in Directory.EnumerateFiles(directory, "*.deb"))
            File.Delete(stale);
        var step = "Fetching " + string.Join(", ", packages.Select(package => package.Name));
        _progress.Report(step, 0);
        string[] arguments = [.. _options, "-q=2", "-o", "APT::Status-Fd=1", "download",
            .. packages.Select(package => $"{package.Name}={package.Version}")];
        var result = await Tool.RunAsync("apt-get", arguments, directory, line => ReportLine(step, line), cancel);
        if (result.ExitCode != 0)
            return Shorten(result.Errors.Length > 0 ? result.Errors : result.Output);
        foreach (var package in packages)
        {
            if (FileOf(package, directory) is not { } file)
                return $"apt-get said that it fetched {package.Name}, but left no file";
            var sum = await GuestManifest.Sha256Async(file, cancel);
            if (!string.Equals(sum, package.Sha256, StringComparison.OrdinalIgnoreCase))
                return $"{Path.GetFileName(file)} has SHA-256 {sum}, the index says {package.Sha256}";
        }
        _progress.Report(step, 1);
        return null;
    }

    private static string? FileOf(DebianPackage package, string directory) =>
        Directory.EnumerateFiles(directory, package.Name + "_*.deb").FirstOrDefault();

    // dlstatus:2:12.68:Retrieving file 2 of 2
    private void ReportLine(string step, string line)
    {
        if (line.Split(':') is ["dlstatus", _, var percent, ..]
            && double.TryParse(percent, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var done))
            _progress.Report(step, Math.Clamp(done / 100, 0, 1));
    }

    private async Task<DebianPackage?> TryShowAsync(string name, CancellationToken cancel)
    {
        var result = await Tool.RunAsync("apt-cache", [.. _options, "show", "--no-all-versions", name], cancel: cancel);
        return result.ExitCode == 0 ? Parse(name, result.Output) : null;
    }

    /// <summary>Reads one stanza of <c>apt-cache show</c>; null where a field is missing.</summary>
    internal static DebianPackage? Parse(string name, string stanza)
    {
        var fields = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        foreach (var line in stanza.Split('\n'))
        {
            var colon = line.IndexOf(": ", StringComparison.Ordinal);
            if (colon > 0 && line[0] != ' ')
                fields.TryAdd(line[..colon], line[(colon + 2)..].Trim());
        }
        return fields.TryGetValue("Version", out var version) && fields.TryGetValue("SHA256", out var sum)
            ? new(name, version, sum, fields.GetValueOrDefault("Depends", ""))
            : null;
    }

    private async Task PreparePrivateStateForOtherArchitecturesAsync(CancellationToken cancel)
    {
        if (_private || System.Runtime.InteropServices.RuntimeInformation.OSArchitecture == System.Runtime.InteropServices.Architecture.X64)
            return;
        await UsePrivateStateAsync(cancel); // the guest is always amd64
    }

    /// <summary>Package lists of our own, from the host's sources.</summary>
    private async Task UsePrivateStateAsync(CancellationToken cancel)
    {
        _private = true;
        var state = Path.Combine(_privateDirectory, "state");
        var cache = Path.Combine(_privateDirectory, "cache");
        Directory.CreateDirectory(Path.Combine(state, "lists", "partial"));
        Directory.CreateDirectory(Path.Combine(cache, "archives", "partial"));
        _options.AddRange(["-o", $"Dir::State={state}", "-o", $"Dir::State::Lists={state}/lists", "-o", $"Dir::Cache={cache}",
            "-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Architecture=amd64", "-o", "APT::Architectures::=amd64",
            "-o", "Acquire::Languages=none", "-o", "APT::Update::Post-Invoke-Success=", "-o", "APT::Update::Post-Invoke="]);
        const string Step = "Fetching package lists";
        _progress.Report(Step, 0);
        var result = await Tool.RunAsync(
            "apt-get", [.. _options, "-q=2", "-o", "APT::Status-Fd=1", "update"], onLine: line => ReportLine(Step, line), cancel: cancel);
        if (result.ExitCode != 0)
            throw new GuestException($"the package lists cannot be fetched: {Shorten(result.Errors)}. Is the network there? {OtherHosts}");
        _progress.Report(Step, 1);
    }

    private static string Shorten(string text)
    {
        var line = string.Join("; ", text.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Take(3));
        return line.Length > 300 ? line[..300] + "..." : line;
    }
}
