using System.Globalization;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Actors.Host.Vm.Vcpus;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>
/// The counters of one run, read from outside while it runs: nothing is counted twice, nobody is asked, and the exit path does not know.
/// When the machine goes, the last values are kept.
/// </summary>
public sealed class VmGauges
{
    private readonly Lock _lock = new();
    private readonly IVcpuMeter?[] _vcpus;
    private readonly IReadOnlyList<DeviceSlot> _slots;
    private readonly BusPorts _bus;
    private VmParts? _parts;
    private VmReadings _last = VmReadings.None;

    internal VmGauges(VmParts parts, IReadOnlyList<DeviceSlot> slots, BusPorts bus)
    {
        _parts = parts;
        _slots = slots;
        _bus = bus;
        _vcpus = new IVcpuMeter?[parts.Machine.Vcpus.Count];
    }

    /// <summary>A vCPU's actor has been made.</summary>
    internal void Attach(int vcpu, IVcpuMeter meter) => Volatile.Write(ref _vcpus[vcpu], meter);

    /// <summary>The counters as they are now. Any thread.</summary>
    public VmReadings Read()
    {
        lock (_lock) return _parts is { } parts ? _last = Read(parts) : _last;
    }

    /// <summary>The machine is about to go.</summary>
    internal void Close()
    {
        lock (_lock)
        {
            if (_parts is { } parts) _last = Read(parts) with { ResidentBytes = 0 };
            _parts = null;
        }
    }

    private VmReadings Read(VmParts parts)
    {
        var vcpus = new VcpuReadings[_vcpus.Length];
        for (var id = 0; id < vcpus.Length; id++)
        {
            var before = _last.Vcpus.Count > id ? _last.Vcpus[id].CpuNanoseconds : 0;
            vcpus[id] = Volatile.Read(ref _vcpus[id]) is { } meter
                ? new VcpuReadings(id, meter.Exits, meter.Waits, meter.Kicks, meter.Retired, CpuTime(meter.ThreadId) ?? before)
                : new VcpuReadings(id, 0, 0, 0, 0, 0);
        }

        return new VmReadings(
            vcpus,
            [.. _slots.Select(slot => new DeviceReadings(slot.Name, slot.Handled, slot.Failures, slot.Restarts, slot.LastError,
                slot.Mailbox?.MessageQueue.Count ?? 0) { Work = slot.Work?.Invoke() ?? DeviceWork.None })],
            [.. _bus.Table.Entries.Select(entry => new RangeReadings(entry.Device.Name, $"{entry.Range}", entry.Reads, entry.Writes))],
            _bus.OpenBus, parts.Memory.Size, parts.Memory.ResidentBytes, parts.Machine.Clock.Nanoseconds);
    }

    /// <summary>Nanoseconds that a thread has run: the first field of schedstat (Documentation/scheduler/sched-stats.rst).</summary>
    private static long? CpuTime(int thread)
    {
        if (thread == 0) return null;
        try
        {
            var text = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/self/task/{thread}/schedstat"));
            return long.TryParse(text.AsSpan(0, text.IndexOf(' ', StringComparison.Ordinal)), NumberStyles.None,
                CultureInfo.InvariantCulture, out var nanoseconds) ? nanoseconds : null;
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException or ArgumentOutOfRangeException)
        {
            return null; // the thread has ended
        }
    }
}

/// <summary>The counters of a run at one moment.</summary>
/// <param name="Vcpus">By id.</param>
/// <param name="Devices">In the order of the rack.</param>
/// <param name="Ranges">Accesses by address range, ports first.</param>
/// <param name="OpenBus">Accesses that no device claimed.</param>
/// <param name="MemoryBytes">Guest RAM.</param>
/// <param name="ResidentBytes">Guest RAM that the host has given pages for.</param>
/// <param name="ClockNanoseconds">Machine time.</param>
public sealed record VmReadings(IReadOnlyList<VcpuReadings> Vcpus, IReadOnlyList<DeviceReadings> Devices,
    IReadOnlyList<RangeReadings> Ranges, long OpenBus, ulong MemoryBytes, ulong ResidentBytes, ulong ClockNanoseconds)
{
    /// <summary>Of a VM that has not run yet.</summary>
    public static VmReadings None { get; } = new([], [], [], 0, 0, 0, 0);

    /// <summary>Nanoseconds that the vCPUs' threads have run.</summary>
    public long CpuNanoseconds => Vcpus.Sum(vcpu => vcpu.CpuNanoseconds);
}

/// <summary>The counters of one vCPU.</summary>
public sealed record VcpuReadings(int Id, long Exits, long Waits, long Kicks, ulong Retired, long CpuNanoseconds);

/// <summary>The counters of one device.</summary>
public sealed record DeviceReadings(string Name, long Handled, long Failures, long Restarts, string? LastError, int Mailbox = 0)
{
    /// <summary>What it has done for its guest.</summary>
    public DeviceWork Work { get; init; } = DeviceWork.None;
}

/// <summary>The counters of one address range.</summary>
public sealed record RangeReadings(string Device, string Range, long Reads, long Writes);
