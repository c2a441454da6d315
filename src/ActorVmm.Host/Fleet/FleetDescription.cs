using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Fleet;

/// <summary>A host with its VMs, as <c>config/fleet.conf</c> describes one.</summary>
/// <param name="Host">The host's own settings.</param>
/// <param name="Vms">The VMs in the order in which they are started.</param>
internal sealed record FleetDescription(HostDescription Host, IReadOnlyList<FleetVm> Vms);

/// <summary>The <c>host</c> section.</summary>
internal sealed record HostDescription
{
    /// <summary>The API's socket; null where the command line or the default says.</summary>
    public string? Socket { get; init; }

    /// <summary>Loopback TCP port of the API; null for none.</summary>
    public int? TcpPort { get; init; }

    /// <summary>File whose first line is the bearer token for TCP.</summary>
    public string? TokenFile { get; init; }

    /// <summary>Directory of one Firecracker-compatible socket per VM; null for none.</summary>
    public string? FirecrackerSockets { get; init; }

    /// <summary>VMs that are being started at the same time.</summary>
    public int ParallelStarts { get; init; } = 2;
    public FleetLimits Limits { get; init; } = new();

    /// <summary>How much of the latest console output is kept per VM.</summary>
    public int ConsoleKib { get; init; } = 256;

    /// <summary>How long the host waits for all its VMs when it ends.</summary>
    public TimeSpan StopDeadline { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Directory in which the consoles are kept over the end of this process; null keeps them in memory only.</summary>
    public string? ConsoleDirectory { get; init; }

    /// <summary>Keys that are another in <paramref name="next"/> and cannot change while the host runs. (The deadline of the end and the
    /// number of parallel starts can.)</summary>
    public IReadOnlyList<string> FixedChanges(HostDescription next)
    {
        ArgumentNullException.ThrowIfNull(next);
        (string Key, object? Before, object? After)[] keys =
        [
            ("socket", Socket, next.Socket), ("tcp-port", TcpPort, next.TcpPort), ("token-file", TokenFile, next.TokenFile),
            ("firecracker-sockets", FirecrackerSockets, next.FirecrackerSockets), ("max-vms", Limits.MaxVms, next.Limits.MaxVms),
            ("max-memory-mib", Limits.MaxMemoryMib, next.Limits.MaxMemoryMib), ("console-kib", ConsoleKib, next.ConsoleKib),
            ("console-directory", ConsoleDirectory, next.ConsoleDirectory),
        ];
        return [.. keys.Where(static key => !Equals(key.Before, key.After)).Select(static key => key.Key)];
    }
}

/// <summary>One VM of a fleet.</summary>
internal sealed record FleetVm(VmDescription Vm)
{
    public string Name => Vm.Name;

    /// <summary>VMs of a lower order are started before, and stopped after.</summary>
    public int Order { get; init; } = 100;

    /// <summary>Started with the host; else it waits for <c>start</c>.</summary>
    public bool AutoStart { get; init; } = true;
    public RestartPolicy Restart { get; init; } = RestartPolicy.Never;
    public StopPolicy Stop { get; init; } = StopPolicy.Default;
    public bool RestartsOnReset { get; init; } = true;

    /// <summary>The machine's part of the description in one line; equal texts are equal machines.</summary>
    public string Fingerprint { get; init; } = "";
}
