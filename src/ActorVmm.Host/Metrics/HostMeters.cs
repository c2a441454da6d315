using System.Diagnostics.Metrics;
using ActorVmm.Actors.Fleet;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Devices;

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

    private readonly TimeProvider _time;

    public HostMeters(VmFleet fleet, TimeProvider time)
    {
        (_fleet, _time) = (fleet, time);
        Observe("actorvmm.exits", "{exit}", "Accesses that a device has handled, by device, address space and direction.", Exits);
        Observe("actorvmm.open_bus", "{exit}", "Accesses that no device claimed.", (vm, now) => [new(now.OpenBus, Tag(vm))]);
        Observe("actorvmm.device.messages", "{message}", "Messages that a device has handled.",
            (vm, now) => Devices(vm, now, device => device.Handled));
        Observe("actorvmm.device.failures", "{failure}", "Failures of a device's handler.",
            (vm, now) => Devices(vm, now, device => device.Failures));
        Observe("actorvmm.device.restarts", "{restart}", "Restarts of a device from its checkpoint.",
            (vm, now) => Devices(vm, now, device => device.Restarts));
        Observe("actorvmm.virtio.requests", "{request}", "Requests that a virtqueue has answered.",
            (vm, now) => Queues(vm, now, static queue => [(null, queue.Requests)]));
        Observe("actorvmm.virtio.bytes", "By", "Bytes of a virtqueue's buffers, headers included, by direction.",
            (vm, now) => Queues(vm, now, static queue => [("from-guest", queue.BytesFromGuest), ("to-guest", queue.BytesToGuest)]));
        Observe("actorvmm.disk.operations", "{operation}", "What a disk has done for its guest, by operation.",
            (vm, now) => Disks(vm, now, static disk => [("read", disk.Reads), ("write", disk.Writes), ("flush", disk.Flushes),
                ("other", disk.Others), ("error", disk.Errors), ("malformed", disk.Malformed), ("throttled", disk.Throttled)]));
        Observe("actorvmm.disk.bytes", "By", "Bytes of sectors that a disk has read and written.",
            (vm, now) => Disks(vm, now, static disk => [("read", disk.ReadBytes), ("write", disk.WrittenBytes)]));
        Observe("actorvmm.net.packets", "{packet}", "Packets of a network interface, as its guest sees the direction.",
            (vm, now) => Nets(vm, now, static net => [("sent", net.Sent), ("received", net.Received),
                ("sent-dropped", net.SentDropped), ("received-dropped", net.ReceivedDropped)]));
        Observe("actorvmm.net.bytes", "By", "Bytes of the packets of a network interface.",
            (vm, now) => Nets(vm, now, static net => [("sent", net.SentBytes), ("received", net.ReceivedBytes)]));
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

    // One scrape asks for two dozen instruments: each VM is read once for all of them. Who scrapes does not say when it begins; what was
    // read a moment ago is good enough, and what is older is read anew.
    private static readonly TimeSpan s_fresh = TimeSpan.FromMilliseconds(100);
    private readonly Lock _gate = new();
    private readonly Dictionary<ManagedVm, VmReadings> _read = [];
    private long _readAt;

    /// <summary>Begins a look: what was read for the one before is forgotten.</summary>
    public void Refresh()
    {
        lock (_gate) _read.Clear();
    }

    private VmReadings Readings(ManagedVm vm)
    {
        lock (_gate)
        {
            if (_read.Count == 0 || _time.GetElapsedTime(_readAt) > s_fresh)
            {
                _read.Clear();
                _readAt = _time.GetTimestamp();
            }

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

    private static IEnumerable<Measurement<long>> Queues(ManagedVm vm, VmReadings now, Func<QueueReadings, (string? Way, long Value)[]> what) =>
        from device in now.Devices
        from queue in device.Work.Queues
        from value in what(queue)
        select value.Way is null
            ? new Measurement<long>(value.Value, Tag(vm), new("device", device.Name), new("queue", queue.Queue))
            : new Measurement<long>(value.Value, Tag(vm), new("device", device.Name), new("queue", queue.Queue), new("direction", value.Way));

    private static IEnumerable<Measurement<long>> Disks(ManagedVm vm, VmReadings now, Func<DiskReadings, (string Name, long Value)[]> what) =>
        from device in now.Devices
        where device.Work.Disk is not null
        from value in what(device.Work.Disk!)
        select new Measurement<long>(value.Value, Tag(vm), new("device", device.Name), new("operation", value.Name));

    private static IEnumerable<Measurement<long>> Nets(ManagedVm vm, VmReadings now, Func<NetReadings, (string Name, long Value)[]> what) =>
        from device in now.Devices
        where device.Work.Net is not null
        from value in what(device.Work.Net!)
        select new Measurement<long>(value.Value, Tag(vm), new("device", device.Name), new("direction", value.Name));

    private static IEnumerable<Measurement<long>> Vcpus(ManagedVm vm, VmReadings now, Func<VcpuReadings, long> what) =>
        now.Vcpus.Select(vcpu => new Measurement<long>(what(vcpu), Tag(vm), new("vcpu", vcpu.Id)));

    private static KeyValuePair<string, object?> Tag(ManagedVm vm) => new("vm", vm.Name);
}
