using System.Diagnostics.Metrics;
using ActorVmm.Actors.Fleet;
using ActorVmm.Actors.Host.Vm;

namespace ActorVmm.Host.Metrics;

/// <summary>
/// The meter <c>ActorVmm</c> (System.Diagnostics.Metrics, which OpenTelemetry reads as it is): every instrument is observed, that is, read
/// from the counters that the VMs keep anyway when somebody asks. Nothing is added to the exit path.
/// </summary>
internal sealed class HostMeters : IDisposable
{
    /// <summary>The meter's name.</summary>
    public const string Name = "ActorVmm";

    private readonly Meter _meter = new(Name);
    private readonly VmFleet _fleet;

    public HostMeters(VmFleet fleet)
    {
        _fleet = fleet;
        Observe("actorvmm.exits", "{exit}", "Accesses that a device has handled, by device, address space and direction.", Exits);
        Observe("actorvmm.open_bus", "{exit}", "Accesses that no device claimed.", (vm, now) => [new(now.OpenBus, Tag(vm))]);
        Observe("actorvmm.device.messages", "{message}", "Messages that a device has handled.",
            (vm, now) => Devices(vm, now, device => device.Handled));
        Observe("actorvmm.device.failures", "{failure}", "Failures of a device's handler.",
            (vm, now) => Devices(vm, now, device => device.Failures));
        Observe("actorvmm.device.restarts", "{restart}", "Restarts of a device from its checkpoint.",
            (vm, now) => Devices(vm, now, device => device.Restarts));
        Observe("actorvmm.vcpu.exits", "{exit}", "Port and MMIO exits of a vCPU.", (vm, now) => Vcpus(vm, now, vcpu => vcpu.Exits));
        Observe("actorvmm.vcpu.waits", "{exit}", "Exits whose device did not answer at once.",
            (vm, now) => Vcpus(vm, now, vcpu => vcpu.Waits));
        Observe("actorvmm.vcpu.kicks", "{kick}", "How often a vCPU was called out of its guest.",
            (vm, now) => Vcpus(vm, now, vcpu => vcpu.Kicks));
        Observe("actorvmm.vcpu.instructions", "{instruction}", "Instructions retired; 0 where the hypervisor cannot count.",
            (vm, now) => Vcpus(vm, now, vcpu => (long)vcpu.Retired));
        Observe("actorvmm.vm.restarts", "{restart}", "Runs that the restart policy began.", (vm, _) => [new(vm.Status.Restarts, Tag(vm))]);
        Observe("actorvmm.vm.resets", "{reset}", "Resets of a guest within its runs.", (vm, _) => [new(vm.Status.Resets, Tag(vm))]);
        _meter.CreateObservableCounter("actorvmm.vcpu.time", () => All<double>((vm, now) => now.Vcpus.Select(vcpu =>
            new Measurement<double>(vcpu.CpuNanoseconds / 1e9, Tag(vm), new("vcpu", vcpu.Id)))), "s", "Time that a vCPU's thread has run.");
        _meter.CreateObservableGauge("actorvmm.device.mailbox", () => All<long>((vm, now) => Devices(vm, now, device => device.Mailbox)),
            "{message}", "Messages that wait for a device.");
        _meter.CreateObservableGauge("actorvmm.vm.memory",
            () => All<long>((vm, now) => [new Measurement<long>((long)now.MemoryBytes, Tag(vm))]), "By", "Guest RAM.");
        _meter.CreateObservableGauge("actorvmm.vm.memory.resident",
            () => All<long>((vm, now) => [new Measurement<long>((long)now.ResidentBytes, Tag(vm))]), "By",
                "Guest RAM that the host has given pages for.");
        _meter.CreateObservableGauge("actorvmm.vm.state",
            () => fleet.All.Select(vm => new Measurement<long>(1, Tag(vm), new("state", VmFleet.Word(vm.Status.State)))), "",
                "1 for the state that a VM is in.");
        _meter.CreateObservableGauge("actorvmm.vms", () => fleet.All.Count, "{vm}", "VMs of this host.");
    }

    /// <summary>The meter.</summary>
    public Meter Meter => _meter;

    public void Dispose() => _meter.Dispose();

    private void Observe(string name, string unit, string what, Func<ManagedVm, VmReadings, IEnumerable<Measurement<long>>> read) =>
        _meter.CreateObservableCounter(name, () => All(read), unit, what);

    private List<Measurement<T>> All<T>(Func<ManagedVm, VmReadings, IEnumerable<Measurement<T>>> read) where T : struct =>
        [.. _fleet.All.SelectMany(vm => read(vm, Readings(vm)))];

    // One scrape asks for a dozen instruments: each VM is read once for all of them.
    private readonly Lock _gate = new();
    private readonly Dictionary<ManagedVm, VmReadings> _read = [];

    /// <summary>Begins a look: what was read for the one before is forgotten.</summary>
    public void Refresh()
    {
        lock (_gate) _read.Clear();
    }

    private VmReadings Readings(ManagedVm vm)
    {
        lock (_gate)
        {
            if (!_read.TryGetValue(vm, out var readings)) _read.Add(vm, readings = vm.Readings);
            return readings;
        }
    }

    private static IEnumerable<Measurement<long>> Exits(ManagedVm vm, VmReadings now) => now.Ranges
        .GroupBy(range => (range.Device, Space: range.Range.StartsWith("port", StringComparison.Ordinal) ? "port" : "mmio"))
        .SelectMany(group => (Measurement<long>[])
        [
            new(group.Sum(range => range.Reads), Tag(vm), new("device", group.Key.Device), new("space", group.Key.Space),
                new("direction", "read")),
            new(group.Sum(range => range.Writes), Tag(vm), new("device", group.Key.Device), new("space", group.Key.Space),
                new("direction", "write")),
        ]);

    private static IEnumerable<Measurement<long>> Devices(ManagedVm vm, VmReadings now, Func<DeviceReadings, long> what) =>
        now.Devices.Select(device => new Measurement<long>(what(device), Tag(vm), new("device", device.Name)));

    private static IEnumerable<Measurement<long>> Vcpus(ManagedVm vm, VmReadings now, Func<VcpuReadings, long> what) =>
        now.Vcpus.Select(vcpu => new Measurement<long>(what(vcpu), Tag(vm), new("vcpu", vcpu.Id)));

    private static KeyValuePair<string, object?> Tag(ManagedVm vm) => new("vm", vm.Name);
}
