using System.Security.Cryptography;
using System.Text;
using ActorVmm.Actors;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices;
using ActorVmm.Devices.Faults;
using ActorVmm.Host.Guests;
using ActorVmm.Host.Terminal;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Soft;
using Akka.Configuration;

namespace ActorVmm.Host.Experiments;

/// <summary>One boot of an experiment's guest with a script; everything that is seen of it goes into files.</summary>
internal static class GuestBoot
{
    /// <summary>Ends by name.</summary>
    public static readonly string[] Exits = ["poweroff", "reset", "panic", "triple-fault", "halted", "killed", "failed", "timeout"];

    // Crashes are what such runs are about: a plan may have many of them.
    private const string Settings = "akka.loglevel = OFF\nactorvmm.supervision.max-retries = 1000\nactorvmm.supervision.within = 1s\n";

    /// <summary>Where the files of a boot go.</summary>
    /// <param name="Console">The guest's bytes as they are.</param>
    /// <param name="Trace">Firings, one line of JSON each.</param>
    /// <param name="Events">One aligned line per event: firings, healing, lines of the console, with the faults that last at that moment.</param>
    public sealed record Files(string Console, string Trace, string Events)
    {
        public static Files In(string folder, string phase) => new(
            Path.Combine(folder, $"{phase}-console.log"), Path.Combine(folder, $"{phase}-trace.jsonl"), Path.Combine(folder, $"{phase}-events.txt"));
    }

    public static async Task<BootResult> RunAsync(
        Experiment experiment, ulong seed, FaultPlan plan, IReadOnlyList<string> script, GuestImage image, string folder, Files files,
        CancellationToken cancel)
    {
        using var record = new BootRecord(plan, files);
        var spec = new VmSpec
        {
            Name = "guest",
            Kernel = new KernelSpec
            {
                Path = image.KernelPath, InitrdPath = image.InitramfsPath,
                CommandLine = Commands.DemoCommand.CommandLine + " actorvmm.input=script"
                    + (experiment.Network == ExperimentNetwork.None ? "" : " actorvmm.net=dhcp"),
            },
            MemoryMib = experiment.MemoryMib, Vcpus = experiment.Vcpus, Clock = experiment.Clock, Seed = seed, Faults = plan,
            Disks = [.. experiment.Disks.Select(disk => new DiskSpec { Id = disk.Name, Path = Path.Combine(folder, $"{disk.Name}.img"), Writeback = true })],
            Nets = experiment.Network == ExperimentNetwork.None ? [] : [NetworkOf(experiment.Network)],
            Entropy = [new EntropySpec()],
        };
        var typed = Encoding.UTF8.GetBytes(string.Concat(script.Select(static line => line + "\n")));
        var input = new ConsoleQueue(Math.Max(ConsoleQueue.Capacity, typed.Length + 1), held: true);
        input.Feed(typed);
        record.OnMarker(GuestImage.Greeting, input.Release);
        await using var host = VmHost.Create(ConfigurationFactory.ParseString(Settings));
        var vm = await host.StartAsync(spec, new WatchedHypervisor(record), new VmConsole(record, input), record).ConfigureAwait(false);
        var timedOut = false;
        try
        {
            await vm.Completion.WaitAsync(experiment.Limit, cancel).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            timedOut = true;
            vm.Stop();
        }
        catch (OperationCanceledException)
        {
            vm.Stop();
            throw;
        }

        var outcome = await vm.Completion.ConfigureAwait(false);
        var exit = timedOut ? "timeout" : NameOf(outcome.Reason);
        record.End(exit, outcome.Detail);
        return new BootResult(exit, outcome.Detail, outcome.RetiredInstructions, record.Now, record.HealedAt, record.Counts);
    }

    private static NetSpec NetworkOf(ExperimentNetwork network) => new()
    {
        Id = "eth0",
        Backend = new NetBackend.User(network == ExperimentNetwork.Inside
            ? new UserNetSettings { Restrict = true, Resolves = false } : new UserNetSettings()),
    };

    private static string NameOf(StopReason reason) => reason switch
    {
        StopReason.Poweroff => "poweroff",
        StopReason.ResetI8042 => "reset",
        StopReason.GuestPanic => "panic",
        StopReason.TripleFault => "triple-fault",
        StopReason.Halted => "halted",
        _ => "failed",
    };

    /// <summary>The guest by its content.</summary>
    public static async Task<string> HashAsync(GuestImage image, CancellationToken cancel)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var path in (string[])[image.KernelPath, image.InitramfsPath])
            hash.AppendData(await File.ReadAllBytesAsync(path, cancel).ConfigureAwait(false));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>The software CPU, whose clock the record needs to know what time it is when the guest prints.</summary>
    private sealed class WatchedHypervisor(BootRecord record) : IHypervisor
    {
        private readonly SoftHypervisor _soft = new();

        public string Name => _soft.Name;
        public ProbeReport Probe() => _soft.Probe();

        public IMachine CreateMachine(MachineOptions options)
        {
            var machine = _soft.CreateMachine(options);
            record.Watch(machine.Clock);
            return machine;
        }
    }
}

/// <summary>What is written down of one boot.</summary>
internal sealed class BootRecord : IByteSink, IExitHandler, IDisposable
{
    private const int LongestLine = 200;

    private readonly FaultPlan _plan;
    private readonly FileStream _console;
    private readonly StreamWriter _trace;
    private readonly StreamWriter _events;
    private readonly Dictionary<string, int> _counts = new(StringComparer.Ordinal);
    private readonly List<(string Rule, ulong Until)> _lasting = [];
    private readonly StringBuilder _line = new();
    private readonly Lock _lock = new();
    private IMachineClock? _clock;
    private string _marker = "";
    private Action? _onMarker;
    private ulong _last;
    private bool _closed;

    public BootRecord(FaultPlan plan, GuestBoot.Files files)
    {
        _plan = plan;
        _console = new FileStream(files.Console, FileMode.Create, FileAccess.Write, FileShare.Read, bufferSize: 1 << 16);
        _trace = new StreamWriter(files.Trace) { NewLine = "\n", AutoFlush = true }; // the host may be killed with the next line
        _events = new StreamWriter(files.Events) { NewLine = "\n" };
    }

    public ulong? HealedAt { get; private set; }

    public ulong Now => _last;

    public IReadOnlyDictionary<string, int> Counts => _counts;

    public void Watch(IMachineClock clock) => _clock = clock;

    public void OnMarker(string marker, Action seen) => (_marker, _onMarker) = (marker, seen);

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        lock (_lock)
        {
            if (_closed) return;
            _console.Write(bytes);
            foreach (var value in bytes)
            {
                if (value == '\n') EndLine();
                else if (value != '\r' && _line.Length < LongestLine) _line.Append(value is >= 32 and < 127 ? (char)value : '.');
            }
        }

        // The prompt has no end of line.
        if (_onMarker is null || !Holds(_marker)) return;
        var seen = _onMarker;
        _onMarker = null;
        seen();
    }

    /// <inheritdoc/>
    public void OnFault(FaultFiring firing)
    {
        ArgumentNullException.ThrowIfNull(firing);
        lock (_lock)
        {
            if (_closed) return;
            _trace.WriteLine(FaultTraceLine.Of(firing));
            _counts[firing.Rule] = _counts.GetValueOrDefault(firing.Rule) + 1;
            if (firing.Kind == FaultKind.HostKill) Flush();
            if (_plan.Rules.FirstOrDefault(rule => string.Equals(rule.Name, firing.Rule, StringComparison.Ordinal))?.For is { } lasting)
                _lasting.Add((firing.Rule, lasting > ulong.MaxValue - firing.Nanoseconds ? ulong.MaxValue : firing.Nanoseconds + lasting));
            Event(firing.Nanoseconds, "fault", firing.Device, $"{firing.Rule}: {firing.Outcome}");
            if (firing.Kind == FaultKind.HostKill) Flush();
        }
    }

    /// <inheritdoc/>
    public void OnHealed(ulong nanoseconds)
    {
        lock (_lock)
        {
            if (_closed) return;
            HealedAt = nanoseconds;
            _lasting.Clear();
            Event(nanoseconds, "healed", "", "no fault from here on");
        }
    }

    public void End(string exit, string detail)
    {
        lock (_lock)
        {
            if (_line.Length > 0) EndLine();
            Event(_last, "end", "", detail.Length == 0 ? exit : $"{exit}: {detail}");
            Flush();
            _closed = true;
        }
    }

    public void Dispose()
    {
        _console.Dispose();
        _trace.Dispose();
        _events.Dispose();
    }

    private bool Holds(string marker)
    {
        lock (_lock) return _lastLine.Contains(marker, StringComparison.Ordinal) || _line.ToString().Contains(marker, StringComparison.Ordinal);
    }

    private string _lastLine = "";

    private void EndLine()
    {
        _lastLine = _line.ToString();
        _line.Clear();
        Event(_clock?.Nanoseconds ?? 0, "console", "", _lastLine);
    }

    private void Event(ulong at, string what, string where, string text)
    {
        _last = at;
        _lasting.RemoveAll(fault => fault.Until <= at);
        var active = _lasting.Count == 0 ? "" : "  [" + string.Join(' ', _lasting.Select(static fault => fault.Rule)) + "]";
        _events.WriteLine(FormattableString.Invariant($"{at / 1_000_000_000,5}.{at % 1_000_000_000:D9}  {what,-7}  {where,-8}  {text}{active}"));
    }

    private void Flush()
    {
        _console.Flush();
        _events.Flush();
    }
}
