using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Experiments;

/// <summary>
/// A fault experiment: a guest with a script, a plan of what goes wrong meanwhile, a quiet time in which it has to recover, and what must be
/// true of all that. Run with many seeds.
/// </summary>
internal sealed record Experiment
{
    public required string Name { get; init; }

    /// <summary>What it shows, for people.</summary>
    public string Explains { get; init; } = "";

    public ulong FirstSeed { get; init; } = 1;

    /// <summary>Runs, each with the next seed.</summary>
    public int Seeds { get; init; } = 10;

    public int MemoryMib { get; init; } = 256;
    public int Vcpus { get; init; } = 1;
    public ClockMode Clock { get; init; } = ClockMode.Virtual;

    /// <summary>What the guest's network interface <c>net0</c> leads to.</summary>
    public ExperimentNetwork Network { get; init; }

    /// <summary>Why a run cannot be replayed to the last byte; null where it can.</summary>
    public string? Unrepeatable =>
        Clock == ClockMode.Host ? "its guests have the host's clock (vm.clock = host)"
        : Network == ExperimentNetwork.Outside ? "its guests have a network that leads to the host and beyond (network = outside)"
        : null;

    /// <summary>Disks, made anew for each run: the guest's <c>/dev/vda</c>, <c>/dev/vdb</c>, ...</summary>
    public IReadOnlyList<ExperimentDisk> Disks { get; init; } = [];

    /// <summary>The safety phase: what is typed at the guest's shell while the plan is at work.</summary>
    public IReadOnlyList<string> Script { get; init; } = [];

    /// <summary>
    /// The quiet phase, where it is a boot of its own on the same disks without faults; empty where it is the rest of the same run, after the
    /// plan's healing.
    /// </summary>
    public IReadOnlyList<string> QuietScript { get; init; } = [];

    /// <summary>Its seed is replaced by the run's.</summary>
    public FaultPlan Plan { get; init; } = FaultPlan.None;

    public IReadOnlyList<ExperimentProperty> Properties { get; init; } = [];

    /// <summary>Programs of the host that look at a disk after the run.</summary>
    public IReadOnlyList<ImageCheck> Checks { get; init; } = [];

    /// <summary>Host time that each boot may take.</summary>
    public TimeSpan Limit { get; init; } = TimeSpan.FromMinutes(2);

    /// <summary>The description's text, kept beside each run.</summary>
    public string Text { get; init; } = "";
}

/// <summary>What the network interface of an experiment's guest leads to.</summary>
internal enum ExperimentNetwork
{
    /// <summary>There is no interface.</summary>
    None,

    /// <summary>A network with a gateway, which answers ARP, DHCP and ping and refuses the rest: all of it is a function of the run.</summary>
    Inside,

    /// <summary>A network through which the guest reaches what the host reaches.</summary>
    Outside,
}

/// <summary>A disk of an experiment.</summary>
/// <param name="Name">Its file's name in the run's folder.</param>
/// <param name="SizeMib">1 to 65536.</param>
/// <param name="Ext4">With a file system on it; else zeroes.</param>
internal sealed record ExperimentDisk(string Name, int SizeMib, bool Ext4);

/// <summary>What a property asks for over all runs.</summary>
internal enum PropertyKind
{
    /// <summary>True in every run.</summary>
    Always,

    /// <summary>True in one run at least: an experiment in which nothing happens does not pass.</summary>
    Sometimes,

    /// <summary>A place that some run has to come to.</summary>
    Reachable,
}

/// <summary>What is looked at.</summary>
internal enum PropertySubject
{
    /// <summary>The console of the safety phase shows a text.</summary>
    Console,

    /// <summary>It does not.</summary>
    NoConsole,

    /// <summary>The console of the quiet phase shows a text.</summary>
    QuietConsole,

    /// <summary>It does not.</summary>
    NoQuietConsole,

    /// <summary>How the safety phase ended: poweroff, reset, panic, triple-fault, halted, killed, failed, timeout.</summary>
    Exit,

    /// <summary>How the quiet phase ended.</summary>
    QuietExit,

    /// <summary>An image check passed.</summary>
    Check,

    /// <summary>A rule of the plan fired.</summary>
    Fault,
}

/// <summary>Something that shall be true.</summary>
/// <param name="Name">For the table.</param>
/// <param name="Kind">In how many runs.</param>
/// <param name="Subject">Of what.</param>
/// <param name="Value">A regular expression for consoles; a name otherwise.</param>
internal sealed record ExperimentProperty(string Name, PropertyKind Kind, PropertySubject Subject, string Value);

/// <summary>A program that looks at a disk after a run; it passes where it ends with 0.</summary>
/// <param name="Name">For properties.</param>
/// <param name="Disk">The disk's name.</param>
/// <param name="Program">The program and its arguments; the disk's path is added at the end.</param>
internal sealed record ImageCheck(string Name, string Disk, IReadOnlyList<string> Program);

/// <summary>How one boot ended, and what came of it.</summary>
/// <param name="Exit">As in <see cref="PropertySubject.Exit"/>.</param>
/// <param name="Detail">For people.</param>
/// <param name="Instructions">Retired.</param>
/// <param name="Nanoseconds">Machine time at the end.</param>
/// <param name="HealedAt">Machine time from which nothing fired any more; null where that never came.</param>
/// <param name="Firings">How often each rule fired.</param>
internal sealed record BootResult(
    string Exit, string Detail, ulong Instructions, ulong Nanoseconds, ulong? HealedAt, IReadOnlyDictionary<string, int> Firings);

/// <summary>One run of an experiment; its folder has the rest.</summary>
internal sealed record RunResult
{
    public required string Experiment { get; init; }
    public required ulong Seed { get; init; }

    /// <summary>Of the program that ran it.</summary>
    public required string Version { get; init; }

    /// <summary>The guest: kernel and initramfs by their content.</summary>
    public required string Guest { get; init; }
    public required BootResult Safety { get; init; }
    public BootResult? Quiet { get; init; }
    public IReadOnlyDictionary<string, bool> Checks { get; init; } = new Dictionary<string, bool>(StringComparer.Ordinal);

    /// <summary>SHA-256 of console, trace, and instruction counts: the same for a run that is the same.</summary>
    public required string Fingerprint { get; init; }
    public double HostSeconds { get; init; }
}
