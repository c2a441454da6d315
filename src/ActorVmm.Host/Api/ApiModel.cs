using System.Text.Json.Serialization;
using ActorVmm.Actors.Fleet;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Api;

/// <summary>A VM as the API shows it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="State">stopped, starting, running, paused, stopping, backing-off or failed.</param>
/// <param name="Since">When it came into this state.</param>
/// <param name="UptimeSeconds">Since the present run began; null where none is.</param>
/// <param name="Runs">Runs begun so far.</param>
/// <param name="Restarts">Runs that the restart policy began.</param>
/// <param name="Resets">Resets by the guest within its runs.</param>
/// <param name="DeviceRestarts">Restarts of devices in the present or last run.</param>
/// <param name="LastCause">Why the last run ended, or why it is paused.</param>
/// <param name="LastExitCode">Exit code of the last run.</param>
/// <param name="NeedsRestart">Its description has changed since this run began.</param>
/// <param name="Hypervisor">What runs it.</param>
/// <param name="Vcpus">Number of vCPUs.</param>
/// <param name="MemoryMib">Guest RAM in MiB.</param>
/// <param name="ResidentMib">Guest RAM that the host has given pages for, in MiB.</param>
/// <param name="CpuSeconds">Time that the vCPUs' threads have run, in the present or last run.</param>
/// <param name="Exits">Port and MMIO exits of the present or last run.</param>
/// <param name="RestartPolicy">never, on-failure or always.</param>
internal sealed record VmView(string Name, string State, DateTimeOffset Since, double? UptimeSeconds, int Runs, int Restarts, int Resets,
    long DeviceRestarts, string? LastCause, int? LastExitCode, bool NeedsRestart, string? Hypervisor, int Vcpus, int MemoryMib,
    double ResidentMib, double CpuSeconds, long Exits, string RestartPolicy)
{
    public static VmView Of(ManagedVm vm, TimeProvider time)
    {
        var status = vm.Status;
        var readings = vm.Readings;
        var runs = status.State is VmState.Running or VmState.Paused or VmState.Stopping;
        return new VmView(status.Name, VmFleet.Word(status.State), status.Since,
            runs && status.StartedAt is { } began ? Math.Round((time.GetUtcNow() - began).TotalSeconds, 3) : null,
            status.Runs, status.Restarts, status.Resets, readings.Devices.Sum(device => device.Restarts), status.LastCause,
            status.LastExitCode, status.NeedsRestart, status.Hypervisor, status.Vcpus, status.MemoryMib,
            Math.Round(readings.ResidentBytes / 1048576.0, 1), readings.CpuNanoseconds / 1e9,
            readings.Vcpus.Sum(vcpu => vcpu.Exits), PolicyWord(vm.Definition.Restart.Mode));
    }

    private static string PolicyWord(RestartMode mode) => mode switch
    {
        RestartMode.Always => "always", RestartMode.OnFailure => "on-failure", _ => "never",
    };
}

/// <summary>Whatever went wrong, in one shape.</summary>
internal sealed record ErrorView(ErrorBody Error);

/// <summary>What went wrong.</summary>
/// <param name="Code">A word for programs.</param>
/// <param name="Message">A line for people: what is wrong and what is allowed.</param>
/// <param name="Details">More lines, where there are.</param>
internal sealed record ErrorBody(string Code, string Message, IReadOnlyList<string>? Details = null);

/// <summary>The host itself.</summary>
internal sealed record HostView(string Version, int Pid, double UptimeSeconds, int Vms, int Running, long MemoryMib, int MaxVms,
    long MaxMemoryMib, double ProcessMib);

/// <summary>One unit of the actor tree.</summary>
internal sealed record NodeView(string Path, string Name, IReadOnlyDictionary<string, string> Values, IReadOnlyList<NodeView> Children)
{
    public static NodeView Of(InspectNode node, string parent)
    {
        var path = $"{parent}/{node.Name}";
        return new NodeView(path, node.Name, node.Values, [.. (node.Children ?? []).Select(child => Of(child, path))]);
    }
}

/// <summary>How long a VM stood still.</summary>
internal sealed record PulseView(double PauseMilliseconds);

/// <summary>The cable of a network interface.</summary>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Device">Actor name of the interface: net0, ...</param>
/// <param name="State">up or down.</param>
internal sealed record LinkView(string Vm, string Device, string State);

/// <summary>What <c>inject</c> has done.</summary>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Rule">The rule that was added; null where faults were ended.</param>
/// <param name="Healed">All faults of the VM were ended.</param>
internal sealed record InjectView(string Vm, string? Rule, bool Healed);

/// <summary>Source-generated, so that the command line need not look at types when it starts.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.Never, UseStringEnumConverter = true)]
[JsonSerializable(typeof(VmView))]
[JsonSerializable(typeof(IReadOnlyList<VmView>))]
[JsonSerializable(typeof(ErrorView))]
[JsonSerializable(typeof(HostView))]
[JsonSerializable(typeof(NodeView))]
[JsonSerializable(typeof(PulseView))]
[JsonSerializable(typeof(LinkView))]
[JsonSerializable(typeof(InjectView))]
[JsonSerializable(typeof(FleetEvent))]
[JsonSerializable(typeof(IReadOnlyList<FleetEvent>))]
[JsonSerializable(typeof(ReloadReport))]
[JsonSerializable(typeof(string))]
[JsonSerializable(typeof(bool?))] // these two are in queries only: the API's own description looks them up
[JsonSerializable(typeof(long?))]
internal sealed partial class ApiJson : JsonSerializerContext;
