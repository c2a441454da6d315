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

    /// <summary>Machine time between two crashes of one device.</summary>
    public TimeSpan Period { get; init; } = TimeSpan.FromMilliseconds(300);

    /// <summary>One more thing that the guest does in each pass; a shell command that fails where something is wrong.</summary>
    public string Work { get; init; } = "true";

    /// <summary>How the crashed devices are crashed; none for a run to compare with.</summary>
    public IReadOnlyList<string> Devices { get; init; } = ["blk0", "net0", "serial0"];

    public int Vcpus { get; init; } = 1;
    public TimeSpan Limit { get; init; } = TimeSpan.FromHours(24);
}

/// <summary>How far a <see cref="CrashLoop"/> has come.</summary>
/// <param name="Crashes">Actors crashed on purpose.</param>
/// <param name="Restarts">Instances of devices that were made anew; known at the end.</param>
/// <param name="Passes">Passes of the guest's loop, each of which checked all its checksums.</param>
/// <param name="GuestErrors">Errors that the guest saw: checksums, requests, packets, complaints of its kernel.</param>
/// <param name="Ended">How the VM ended; null while it runs.</param>
internal sealed record CrashLoopReport(int Crashes, long Restarts, int Passes, int GuestErrors, VmOutcome? Ended)
{
    /// <summary>How long each crashed device was away, in words; known at the end.</summary>
    public IReadOnlyList<(string Device, string Pause)> Pauses { get; init; } = [];

    /// <summary>The guest noticed nothing, to its end.</summary>
    public bool IsClean => GuestErrors == 0 && Passes > 0 && Ended?.Reason == StopReason.Poweroff;
}

/// <summary>
/// A guest that writes, reads back and compares, pings and prints, while its block, network and serial actors crash again and again, each
/// time at another place that a message or a request passes.
/// </summary>
internal sealed class CrashLoop(CrashLoopOptions options) : IByteSink, IExitHandler
{
    private const string Begun = "crash-loop begins";
    private const string Settings =
        "akka.loglevel = OFF\nactorvmm.supervision.max-retries = 1000\nactorvmm.supervision.within = 1s\n";

    private readonly ConsoleQueue _input = new(held: true);
    private readonly StringBuilder _line = new();
    private readonly TaskCompletionSource _stopping = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _crashes;
    private int _passes;
    private int _errors;
    private int _kernelErrors;
    private bool _greeted;

    /// <summary>Called when something has changed; on the guest's thread.</summary>
    public Action<CrashLoopReport>? Progress { get; init; }

    /// <summary>The console, as it comes; for people.</summary>
    public Action<string>? Line { get; init; }

    private CrashLoopReport Now => new(Volatile.Read(ref _crashes), 0, _passes, _errors + _kernelErrors, null);

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
            Disks = [new DiskSpec { Id = "data", Path = disk, Writeback = true }],
            Nets = [new NetSpec { Id = "eth0", Backend = new NetBackend.User(new UserNetSettings()) }],
            Faults = new FaultPlan(1, Plan()),
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
        _input.Feed("touch /tmp/stop; wait; "u8);
        _input.Feed("echo kernel $(dmesg | grep -c -i -E 'i/o error|hung|bug:|oops|call trace|reset') complaints; poweroff -f\n"u8);
        try
        {
            await ended.WaitAsync(TimeSpan.FromMinutes(2), CancellationToken.None).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            vm.Stop();
        }

        return Now with { Restarts = Restarts(tree), Pauses = [.. Pauses(tree)], Ended = await ended.ConfigureAwait(false) };
    }

    /// <inheritdoc/>
    public void OnFault(FaultFiring firing)
    {
        var crashes = Interlocked.Increment(ref _crashes);
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
        // The shell's prompt may stand before them: the loop runs behind its back.
        if (line.Split(' ') is [.., "pass", var passes, "errors", var errors] && int.TryParse(passes, out var pass) && int.TryParse(errors, out var wrong))
        {
            (_passes, _errors) = (pass, wrong);
            Progress?.Invoke(Now);
        }
        else if (line.Split(' ') is [.., "kernel", var count, "complaints"] && int.TryParse(count, out var complaints))
        {
            _kernelErrors = complaints;
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
                    From = (ulong)i * (period / (ulong)points.Length), Period = period,
                });
            }
        }

        return rules;
    }

    private string Script() =>
        // The echo is cut so that the line as it is typed does not begin the crashes.
        "dmesg -n 1; echo \"crash-loop\" begins\n"
        + "( n=0; errors=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); dd if=/dev/urandom of=/tmp/x bs=64k count=4 2>/dev/null; "
        + "dd if=/tmp/x of=/dev/vda bs=64k conv=fsync 2>/dev/null || errors=$((errors+1)); echo 3 >/proc/sys/vm/drop_caches; "
        + "dd if=/dev/vda bs=64k count=4 2>/dev/null | cmp -s - /tmp/x || errors=$((errors+1)); "
        + "ping -c 1 -W 5 10.0.2.2 >/dev/null || errors=$((errors+1)); "
        + $"{{ {options.Work}; }} || errors=$((errors+1)); echo pass $n errors $errors; done ) &\n";

    private static IEnumerable<(string Device, string Pause)> Pauses(InspectNode node) =>
        (node.Values.TryGetValue("restart-pause", out var text) && text != "none" ? [(node.Name, text)] : Array.Empty<(string, string)>())
        .Concat(node.Children?.SelectMany(Pauses) ?? []);

    private static long Restarts(InspectNode node) =>
        (node.Values.TryGetValue("restarts", out var text) && long.TryParse(text, out var count) ? count : 0)
        + (node.Children?.Sum(Restarts) ?? 0);
}
