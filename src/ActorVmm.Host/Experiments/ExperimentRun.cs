using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using ActorVmm.Devices.Faults;
using ActorVmm.Host.Faults;
using ActorVmm.Host.Guests;

namespace ActorVmm.Host.Experiments;

/// <summary>An experiment could not be run: a tool is missing, a folder cannot be written.</summary>
internal sealed class ExperimentException : Exception
{
    public ExperimentException(string message) : base(message) { }
    public ExperimentException(string message, Exception inner) : base(message, inner) { }
    public ExperimentException() { }
}

/// <summary>
/// One run: disks, the safety phase, the quiet phase, the looks at the disks. The folder holds all that a replay needs (the experiment, the
/// seed, the plan, the versions) and all that was seen.
/// </summary>
internal static class ExperimentRun
{
    private const string Safety = "safety";
    private const string Quiet = "quiet";

    /// <summary>The program, as a run remembers it: version and build.</summary>
    public static string Version { get; } =
        $"{typeof(ExperimentRun).Assembly.GetName().Version?.ToString(3)} {typeof(ExperimentRun).Module.ModuleVersionId:N}";

    public static Task<GuestImage> ImageAsync(CancellationToken cancel) => GuestImage.PrepareAsync(
        new GuestCache(), GuestImageOptions.WithDisks with { Modules = [.. GuestImageOptions.WithDisks.Modules, "ext4"] }, cancel: cancel);

    public static async Task<RunResult> RunAsync(Experiment experiment, ulong seed, GuestImage image, string folder, CancellationToken cancel)
    {
        var begun = TimeProvider.System.GetTimestamp();
        Directory.CreateDirectory(folder);
        var plan = experiment.Plan with { Seed = seed };
        await File.WriteAllTextAsync(Path.Combine(folder, "experiment.conf"), experiment.Text, cancel).ConfigureAwait(false);
        await File.WriteAllTextAsync(Path.Combine(folder, "plan.conf"), FaultSection.Write(plan), cancel).ConfigureAwait(false);
        foreach (var disk in experiment.Disks) await MakeDiskAsync(disk, folder, cancel).ConfigureAwait(false);

        var kills = plan.Rules.Any(static rule => rule.Kind == FaultKind.HostKill);
        var safety = kills
            ? await InChildAsync(experiment, seed, folder, cancel).ConfigureAwait(false)
            : await SafetyAsync(experiment, seed, image, folder, cancel).ConfigureAwait(false);
        BootResult? quiet = null;
        if (experiment.QuietScript.Count > 0)
        {
            quiet = await GuestBoot.RunAsync(experiment, seed, FaultPlan.None, experiment.QuietScript, image, folder, GuestBoot.Files.In(folder, Quiet), cancel)
                .ConfigureAwait(false);
        }

        var checks = new Dictionary<string, bool>(StringComparer.Ordinal);
        foreach (var check in experiment.Checks) checks[check.Name] = await PassesAsync(check, folder, cancel).ConfigureAwait(false);
        var result = new RunResult
        {
            Experiment = experiment.Name, Seed = seed, Version = Version, Guest = await GuestBoot.HashAsync(image, cancel).ConfigureAwait(false),
            Safety = safety, Quiet = quiet, Checks = checks, Fingerprint = await FingerprintAsync(folder, safety, quiet, cancel).ConfigureAwait(false),
            HostSeconds = Math.Round(TimeProvider.System.GetElapsedTime(begun).TotalSeconds, 2),
        };
        await File.WriteAllTextAsync(Path.Combine(folder, "run.json"),
            JsonSerializer.Serialize(result, ExperimentJson.Default.RunResult), cancel).ConfigureAwait(false);
        return result;
    }

    /// <summary>The safety phase alone.</summary>
    public static Task<BootResult> SafetyAsync(Experiment experiment, ulong seed, GuestImage image, string folder, CancellationToken cancel) =>
        GuestBoot.RunAsync(experiment, seed, experiment.Plan with { Seed = seed }, experiment.Script, image, folder, GuestBoot.Files.In(folder, Safety), cancel);

    /// <summary>The safety phase in the process of <c>experiment boot</c>, whose host may be killed with it.</summary>
    public static async Task BootAsync(string folder, ulong seed, CancellationToken cancel)
    {
        var experiment = ExperimentReader.ReadFile(Path.Combine(folder, "experiment.conf"));
        var image = await ImageAsync(cancel).ConfigureAwait(false);
        var result = await SafetyAsync(experiment, seed, image, folder, cancel).ConfigureAwait(false);
        await File.WriteAllTextAsync(Path.Combine(folder, "boot.json"),
            JsonSerializer.Serialize(result, ExperimentJson.Default.BootResult), cancel).ConfigureAwait(false);
    }

    /// <summary>Reads the result of a run that was made before.</summary>
    /// <exception cref="ExperimentException">There is none in that folder.</exception>
    public static RunResult Load(string folder)
    {
        var path = Path.Combine(folder, "run.json");
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllText(path), ExperimentJson.Default.RunResult)
                ?? throw new ExperimentException($"{path}: is empty");
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new ExperimentException($"{folder} is no run of an experiment: {cannot.Message}", cannot);
        }
    }

    /// <summary>What the consoles of a run showed; the quiet one is empty where there was none.</summary>
    public static (string Safety, string Quiet) Consoles(string folder)
    {
        string Read(string phase) => GuestBoot.Files.In(folder, phase).Console is var path && File.Exists(path) ? File.ReadAllText(path, Encoding.Latin1) : "";
        return (Read(Safety), Read(Quiet));
    }

    /// <summary>Events of a run, safety phase first.</summary>
    public static IReadOnlyList<string> Events(string folder) =>
        [.. ((string[])[Safety, Quiet]).Select(phase => GuestBoot.Files.In(folder, phase).Events).Where(File.Exists).SelectMany(File.ReadLines)];

    private static async Task<BootResult> InChildAsync(Experiment experiment, ulong seed, string folder, CancellationToken cancel)
    {
        var (program, first) = Itself();
        var start = new ProcessStartInfo(program)
        {
            UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true,
        };
        foreach (var argument in (string[])[.. first, "experiment", "boot", folder, "--seed", seed.ToString(CultureInfo.InvariantCulture)])
            start.ArgumentList.Add(argument);
        using var child = Process.Start(start) ?? throw new ExperimentException("the program cannot be started a second time");
        var errors = child.StandardError.ReadToEndAsync(cancel);
        _ = child.StandardOutput.ReadToEndAsync(cancel);
        using var late = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        late.CancelAfter(experiment.Limit + TimeSpan.FromSeconds(30));
        try
        {
            await child.WaitForExitAsync(late.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            child.Kill(entireProcessTree: true);
            cancel.ThrowIfCancellationRequested();
            return new BootResult("timeout", "the process did not end", 0, 0, null, Firings(folder));
        }

        const int Killed = 128 + 9;
        if (child.ExitCode == Killed) return new BootResult("killed", "the host's process was killed", 0, 0, null, Firings(folder));
        if (child.ExitCode != 0) return new BootResult("failed", (await errors.ConfigureAwait(false)).Trim(), 0, 0, null, Firings(folder));
        var boot = await File.ReadAllTextAsync(Path.Combine(folder, "boot.json"), cancel).ConfigureAwait(false);
        return JsonSerializer.Deserialize(boot, ExperimentJson.Default.BootResult)!;
    }

    // A native program is its own file; otherwise it is the dll that is being run, by the dotnet that runs it.
    private static (string Program, string[] First) Itself()
    {
        var path = Environment.ProcessPath;
        if (!RuntimeFeature.IsDynamicCodeSupported && path is not null) return (path, []);
        var dotnet = path is not null && Path.GetFileName(path).StartsWith("dotnet", StringComparison.Ordinal) ? path : "dotnet";
        return (dotnet, [Path.Combine(AppContext.BaseDirectory, "actorvmm.dll")]);
    }

    private static Dictionary<string, int> Firings(string folder)
    {
        var counts = new Dictionary<string, int>(StringComparer.Ordinal);
        var trace = GuestBoot.Files.In(folder, Safety).Trace;
        if (!File.Exists(trace)) return counts;
        foreach (var line in File.ReadLines(trace))
        {
            using var json = JsonDocument.Parse(line);
            var rule = json.RootElement.GetProperty("rule").GetString()!;
            counts[rule] = counts.GetValueOrDefault(rule) + 1;
        }

        return counts;
    }

    /// <summary>The same bytes each time: fixed ids, fixed time, nothing left to be done later.</summary>
    private static async Task MakeDiskAsync(ExperimentDisk disk, string folder, CancellationToken cancel)
    {
        var path = Path.Combine(folder, $"{disk.Name}.img");
        await using (var file = new FileStream(path, FileMode.Create)) file.SetLength((long)disk.SizeMib << 20);
        if (!disk.Ext4) return;
        const string Id = "6b1d0c3e-5f0a-4c55-9c3b-2a7f6a2f9d10";
        var (code, output) = await ToolAsync(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-U", Id, "-E", $"hash_seed={Id},lazy_itable_init=0,lazy_journal_init=0", path], cancel).ConfigureAwait(false);
        if (code != 0) throw new ExperimentException($"mke2fs {path}: {output}");
    }

    private static async Task<bool> PassesAsync(ImageCheck check, string folder, CancellationToken cancel)
    {
        var (code, output) = await ToolAsync([.. check.Program, Path.Combine(folder, $"{check.Disk}.img")], cancel).ConfigureAwait(false);
        await File.WriteAllTextAsync(Path.Combine(folder, $"check-{check.Name}.txt"), $"{output}\nexit code {code}\n", cancel).ConfigureAwait(false);
        return code == 0;
    }

    private static async Task<(int Code, string Output)> ToolAsync(IReadOnlyList<string> command, CancellationToken cancel)
    {
        var start = new ProcessStartInfo(command[0]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in command.Skip(1)) start.ArgumentList.Add(argument);
        // File system tools are where users without root do not look.
        start.Environment["PATH"] = $"{Environment.GetEnvironmentVariable("PATH")}:/usr/sbin:/sbin";
        start.Environment["E2FSPROGS_FAKE_TIME"] = "1767225600";
        try
        {
            using var tool = Process.Start(start) ?? throw new ExperimentException($"{command[0]} cannot be started");
            var output = tool.StandardOutput.ReadToEndAsync(cancel);
            var errors = tool.StandardError.ReadToEndAsync(cancel);
            await tool.WaitForExitAsync(cancel).ConfigureAwait(false);
            return (tool.ExitCode, (await output.ConfigureAwait(false) + await errors.ConfigureAwait(false)).Trim());
        }
        catch (System.ComponentModel.Win32Exception missing)
        {
            throw new ExperimentException($"{command[0]} is needed and cannot be started: {missing.Message} (Debian's package e2fsprogs has mke2fs and e2fsck)", missing);
        }
    }

    private static async Task<string> FingerprintAsync(string folder, BootResult safety, BootResult? quiet, CancellationToken cancel)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var phase in (string[])[Safety, Quiet])
        {
            var files = GuestBoot.Files.In(folder, phase);
            foreach (var path in (string[])[files.Console, files.Trace, files.Events])
                if (File.Exists(path)) hash.AppendData(await File.ReadAllBytesAsync(path, cancel).ConfigureAwait(false));
        }

        hash.AppendData(Encoding.ASCII.GetBytes(FormattableString.Invariant($"{safety.Instructions} {quiet?.Instructions}")));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
