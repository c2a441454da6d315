using System.Globalization;
using System.Text;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices;
using ActorVmm.Devices.Faults;
using ActorVmm.Host.Guests;
using ActorVmm.Host.Terminal;
using ActorVmm.Hypervisor;
using Akka.Configuration;

namespace ActorVmm.Host.Faults;

/// <summary>What a <see cref="CrashLoop"/> is to do.</summary>
internal sealed record CrashLoopOptions
{
    /// <summary>Ends after this many crashes; null: when it is told to.</summary>
    public int? Crashes { get; init; }

    /// <summary>Machine time between two crashes of one device, on average; at which message or request is drawn.</summary>
    public TimeSpan Period { get; init; } = TimeSpan.FromMilliseconds(300);

    /// <summary>Of what is drawn.</summary>
    public ulong Seed { get; init; } = 1;

    /// <summary>A shell command before all that: mounts, say.</summary>
    public string Prepare { get; init; } = "true";

    /// <summary>What else the guest does, by name: shell commands that fail where something is wrong, each repeated beside the others.</summary>
    public IReadOnlyDictionary<string, string> Work { get; init; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>The devices that crash.</summary>
    public IReadOnlyList<string> Devices { get; init; } = ["blk0", "net0", "serial0"];

    /// <summary>A disk that can only be read: the guest's <c>/dev/vdb</c>. It does not crash.</summary>
    public string? Tools { get; init; }

    public int Vcpus { get; init; } = 1;
    public TimeSpan Limit { get; init; } = TimeSpan.FromHours(24);
}

/// <summary>How far a <see cref="CrashLoop"/> has come.</summary>
/// <param name="Crashes">Actors crashed on purpose.</param>
/// <param name="Restarts">Instances of devices that were made anew; known at the end.</param>
/// <param name="Passes">Passes of the guest's loops, each of which checked all its checksums.</param>
/// <param name="GuestErrors">Errors that the guest saw: checksums, requests, packets, warnings of its kernel; lines lost on the console.</param>
/// <param name="Ended">How the VM ended; null while it runs.</param>
internal sealed record CrashLoopReport(int Crashes, long Restarts, int Passes, int GuestErrors, VmOutcome? Ended)
{
    /// <summary>How long each crashed device was away, in words; known at the end.</summary>
    public IReadOnlyList<(string Device, string Pause)> Pauses { get; init; } = [];

    /// <summary>Passes of each loop by its name.</summary>
    public IReadOnlyDictionary<string, int> Loops { get; init; } = new Dictionary<string, int>(StringComparer.Ordinal);

    /// <summary>Host time from the first crash to the last.</summary>
    public TimeSpan Lasted { get; init; }

    /// <summary>The guest noticed nothing, to its end, and each of its loops came around.</summary>
    public bool IsClean => GuestErrors == 0 && Loops.Count > 0 && Loops.Values.All(static passes => passes > 0) && Ended?.Reason == StopReason.Poweroff;
}

/// <summary>
/// A guest that writes, reads back and compares, pings and prints, while its block, network and serial actors crash again and again, each
/// time at another place that a message or a request passes, and at a moment that the seed decides.
/// </summary>
internal sealed class CrashLoop(CrashLoopOptions options) : IByteSink, IExitHandler
{
    private const string Begun = "crash-loop begins";

    /// <summary>The chance that a place crashes each time that something passes it, once its period has come.</summary>
    private const double HitsOneIn = 0.1;

    private const string Settings =
        "akka.loglevel = OFF\nactorvmm.supervision.max-retries = 1000\nactorvmm.supervision.within = 1s\n";

    private readonly ConsoleQueue _input = new(held: true);
    private readonly StringBuilder _line = new();
    private readonly TaskCompletionSource _stopping = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Dictionary<string, (int Passes, int Errors)> _loops = new(StringComparer.Ordinal);
    private int _crashes;
    private long _firstCrash;
    private long _lastCrash;
    private int _kernelErrors;
    private int _printed;
    private int _lostLines;
    private bool _kernelAnswered;
    private bool _greeted;

    /// <summary>Called when something has changed; on the guest's thread.</summary>
    public Action<CrashLoopReport>? Progress { get; init; }

    /// <summary>The console, as it comes; for people.</summary>
    public Action<string>? Line { get; init; }

    private CrashLoopReport Now
    {
        get
        {
            lock (_loops)
            {
                return new CrashLoopReport(Volatile.Read(ref _crashes), 0, _loops.Values.Sum(static loop => loop.Passes),
                    _loops.Values.Sum(static loop => loop.Errors) + _kernelErrors + _lostLines, null)
                {
                    Loops = _loops.ToDictionary(static loop => loop.Key, static loop => loop.Value.Passes, StringComparer.Ordinal),
                    Lasted = TimeProvider.System.GetElapsedTime(_firstCrash, _lastCrash),
                };
            }
        }
    }

    /// <summary>Asks the loop to end as if it had crashed enough.</summary>
    public void Stop() => _stopping.TrySetResult();

    /// <exception cref="HypervisorException">The VM cannot be made.</exception>
    public async Task<CrashLoopReport> RunAsync(IHypervisor hypervisor, CancellationToken cancel)
    {
        var image = await GuestImage.PrepareAsync(new GuestCache(), GuestImageOptions.WithDisks, cancel: cancel).ConfigureAwait(false);
        var disk = Path.Combine(Path.GetTempPath(), string.Create(CultureInfo.InvariantCulture, $"actorvmm-crash-{Environment.ProcessId}-{Guid.NewGuid():N}.img"));
        await using (var file = new FileStream(disk, FileMode.CreateNew)) file.SetLength(16 << 20);
        try
        {
            return await RunAsync(hypervisor, image, disk, cancel).ConfigureAwait(false);
        }
        finally
        {
            File.Delete(disk);
        }
    }

    private async Task<CrashLoopReport> RunAsync(IHypervisor hypervisor, GuestImage image, string disk, CancellationToken cancel)
    {
        var spec = new VmSpec
        {
            Name = "crash",
            Kernel = new KernelSpec
            {
                Path = image.KernelPath, InitrdPath = image.InitramfsPath,
                CommandLine = Commands.DemoCommand.CommandLine + " actorvmm.input=script actorvmm.net=dhcp",
            },
            Vcpus = options.Vcpus,
            Disks =
            [
                new DiskSpec { Id = "data", Path = disk, Writeback = true },
                .. options.Tools is { } tools ? [new DiskSpec { Id = "tools", Path = tools, ReadOnly = true }] : Array.Empty<DiskSpec>(),
            ],
            Nets = [new NetSpec { Id = "eth0", Backend = new NetBackend.User(new UserNetSettings()) }],
            Entropy = [new EntropySpec()],
            Faults = new FaultPlan(options.Seed, Plan()),
        };
        _input.Feed(Encoding.UTF8.GetBytes(Script()));
        await using var host = VmHost.Create(ConfigurationFactory.ParseString(Settings));
        var vm = await host.StartAsync(spec, hypervisor, new VmConsole(this, _input), this).ConfigureAwait(false);
        await using var stopped = cancel.Register(Stop).ConfigureAwait(false);
        var ended = vm.Completion;
        if (await Task.WhenAny(ended, _stopping.Task, Task.Delay(options.Limit, CancellationToken.None)).ConfigureAwait(false) == ended)
            return Now with { Ended = await ended.ConfigureAwait(false) };

        // Enough: the rest of the run is quiet, and the guest says what it has seen.
        vm.HealFaults();
        var tree = await vm.InspectAsync().ConfigureAwait(false);
        _input.Feed("touch /tmp/stop; wait; dmesg -r | grep '^<[0-4]>'; "u8); // warnings and worse, of which the log had none before
        _input.Feed("echo \"kernel\" $(dmesg -r | grep -c '^<[0-4]>') complaints; poweroff -f\n"u8);
        try
        {
            await ended.WaitAsync(TimeSpan.FromMinutes(2), CancellationToken.None).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            vm.Stop();
        }

        var report = Now with { Restarts = Restarts(tree), Pauses = [.. Pauses(tree)], Ended = await ended.ConfigureAwait(false) };
        // A kernel that was not heard has not said that it has nothing to complain of.
        return _kernelAnswered ? report : report with { GuestErrors = report.GuestErrors + 1 };
    }

    /// <inheritdoc/>
    public void OnFault(FaultFiring firing)
    {
        _lastCrash = TimeProvider.System.GetTimestamp();
        var crashes = Interlocked.Increment(ref _crashes);
        if (crashes == 1) _firstCrash = _lastCrash;
        Progress?.Invoke(Now);
        if (crashes >= options.Crashes) Stop();
    }

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        foreach (var value in bytes)
        {
            if (value == '\n') EndLine();
            else if (value != '\r') _line.Append((char)value);
        }

        if (_greeted || !_line.ToString().Contains(GuestImage.Greeting, StringComparison.Ordinal)) return;
        _greeted = true;
        _input.Release();
    }

    private void EndLine()
    {
        var line = _line.ToString();
        _line.Clear();
        Line?.Invoke(line);
        // The shell's prompt may stand before them: the loops run behind its back.
        switch (line.Split(' '))
        {
            case [.., "loop", var name, "pass", var passes, "errors", var errors]
                when int.TryParse(passes, CultureInfo.InvariantCulture, out var pass) && int.TryParse(errors, CultureInfo.InvariantCulture, out var wrong):
                lock (_loops) _loops[name] = (pass, wrong);
                Progress?.Invoke(Now);
                break;
            case [.., "line", var number] when int.TryParse(number, CultureInfo.InvariantCulture, out var printed):
                if (printed != ++_printed) _lostLines++; // one too few, one too many, or one that is cut
                _printed = printed;
                break;
            case [.., "kernel", var count, "complaints"] when int.TryParse(count, CultureInfo.InvariantCulture, out var complaints):
                (_kernelErrors, _kernelAnswered) = (complaints, true);
                break;
            default: break;
        }
    }

    /// <summary>One rule for each device and place, so that every place is met, each a little after the other.</summary>
    private List<FaultRule> Plan()
    {
        var rules = new List<FaultRule>();
        foreach (var device in options.Devices)
        {
            // The last eleven are places of virtio requests, which a serial port has not.
            var points = device.StartsWith("serial", StringComparison.Ordinal) ? FaultPoints.All.Take(4).ToArray() : [.. FaultPoints.All];
            var period = (ulong)(options.Period.TotalNanoseconds * points.Length);
            for (var i = 0; i < points.Length; i++)
            {
                rules.Add(new FaultRule
                {
                    Kind = FaultKind.ActorCrash, Name = $"{device}-{points[i]}", Device = device, Point = points[i], AfterConsole = Begun, SpareRetry = true,
                    From = (ulong)i * (period / (ulong)points.Length), Period = period, Probability = HitsOneIn,
                });
            }
        }

        return rules;
    }

    private string Script()
    {
        var loops = new Dictionary<string, string>(options.Work, StringComparer.Ordinal)
        {
            // What is written through the cache, and read again from the disk.
            ["disk"] = "dd if=/dev/urandom of=/tmp/x bs=64k count=4 2>/dev/null && dd if=/tmp/x of=/dev/vda bs=64k conv=fsync 2>/dev/null "
                + "&& dd if=/dev/vda bs=64k count=4 iflag=direct 2>/dev/null | cmp -s - /tmp/x",
            ["ping"] = "ping -c 1 -W 5 10.0.2.2 >/dev/null && sleep 0.05",
            ["entropy"] = "[ $(dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c) = 64 ] && sleep 0.05",
        };
        var script = new StringBuilder();
        // What the kernel said while it booted is not what is looked at in the end.
        script.Append(CultureInfo.InvariantCulture, $"dmesg -n 1; dmesg -c >/dev/null; {options.Prepare} || echo \"loop\" prepare pass 0 errors 1\n");
        // The echo is cut so that the line as it is typed does not begin the crashes.
        script.Append("echo \"crash-loop\" begins\n");
        foreach (var (name, work) in loops)
        {
            script.Append(CultureInfo.InvariantCulture, $"( n=0; errors=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); {{ {work}; }} || errors=$((errors+1)); ")
                .Append(CultureInfo.InvariantCulture, $"echo \"loop\" {name} pass $n errors $errors; done ) &\n");
        }

        // Numbered lines: the host sees where one is missing.
        script.Append("( n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo \"line\" $n; sleep 0.05; done ) &\n");
        return script.ToString();
    }

    private static IEnumerable<(string Device, string Pause)> Pauses(InspectNode node) =>
        (node.Values.TryGetValue("restart-pause", out var text) && text != "none" ? [(node.Name, text)] : Array.Empty<(string, string)>())
        .Concat(node.Children?.SelectMany(Pauses) ?? []);

    private static long Restarts(InspectNode node) =>
        (node.Values.TryGetValue("restarts", out var text) && long.TryParse(text, out var count) ? count : 0)
        + (node.Children?.Sum(Restarts) ?? 0);
}
