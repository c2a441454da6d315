using System.Diagnostics.Metrics;
using System.Text.Json;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Host.Firecracker;

namespace ActorVmm.Host.Tests.Firecracker;

/// <summary>Firecracker's metrics file: one object per line, under its names, counted since the line before.</summary>
public sealed class MetricsLineTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private static VmReadings After(int reads, int packets, int failures) => new(
        [new VcpuReadings(0, Exits: 100, Waits: 0, Kicks: 0, Retired: 0, CpuNanoseconds: 5)],
        [
            new DeviceReadings("serial0", Handled: 9, failures, Restarts: failures, LastError: null),
            new DeviceReadings("blk0", Handled: 9, Failures: 0, Restarts: 0, LastError: null)
            {
                Work = new DeviceWork([new QueueReadings(0, reads, 16 * reads, 4097 * reads)],
                    Disk: new DiskReadings(reads, 4096 * reads, Writes: 2, WrittenBytes: 1024, Flushes: 1, 0, 0, 0, 0)),
            },
            new DeviceReadings("net0", Handled: 9, Failures: 0, Restarts: 0, LastError: null)
            {
                Work = new DeviceWork([], Net: new NetReadings(packets, 60 * packets, 1, 42, 0, 0)),
            },
            new DeviceReadings("rng0", Handled: 1, Failures: 0, Restarts: 0, LastError: null)
            {
                Work = new DeviceWork([new QueueReadings(0, 3, 0, 192)]),
            },
        ],
        [new RangeReadings("serial0", "port 0x3f8-0x3ff", Reads: 4, Writes: 7 + reads), new RangeReadings("blk0", "mmio 0xd0000000", 3, reads)],
        OpenBus: 0, MemoryBytes: 0, ResidentBytes: 0, ClockNanoseconds: 0);

    [Fact]
    public void Each_line_counts_since_the_one_before_under_the_names_that_were_configured()
    {
        var path = Path.Combine(_here.Path, "metrics");
        var readings = After(reads: 10, packets: 5, failures: 0);
        var spec = new VmSpec
        {
            Name = "vm", Kernel = new KernelSpec { Path = "x" }, Disks = [new DiskSpec { Id = "rootfs", Path = "d" }],
            Nets = [new NetSpec { Id = "eth0", Backend = new NetBackend.Tap("tap0") }],
        };
        using (var metrics = new FirecrackerMetrics(TimeProvider.System) { Readings = () => readings, Spec = () => spec })
        {
            Assert.Null(metrics.Open(path));
            // What the exits' histogram is told: of this VM, of another one, of a kind that has no sum.
            using var meter = new Meter(ExitTelemetry.MeterName);
            var exits = meter.CreateHistogram<double>(ExitTelemetry.DurationName);
            foreach (var (vm, kind, seconds) in ((string, string, double)[])
                [("vm", "MmioWrite", 3e-6), ("vm", "MmioWrite", 5e-6), ("other", "MmioWrite", 1), ("vm", "Halted", 1), ("vm", "PortRead", 2e-3)])
                exits.Record(seconds, new("vm", vm), new("kind", kind));
            metrics.CountRequest("PUT", "/drives/a");
            metrics.Flush();
            readings = After(reads: 25, packets: 5, failures: 1);
            metrics.Flush();
            readings = After(reads: 2, packets: 5, failures: 1); // the machine was started anew, and counts from zero
        }

        var lines = File.ReadAllLines(path).Select(line => JsonDocument.Parse(line).RootElement).ToArray();
        Assert.Equal(3, lines.Length);
        foreach (var (line, section, key, value) in ((int, string, string, long)[])
            [
                (0, "put_api_requests", "drive_count", 1), (0, "vcpu", "exit_io_out", 17), (0, "vcpu", "exit_mmio_write", 10),
                (0, "block_rootfs", "read_count", 10), (0, "block_rootfs", "read_bytes", 40960), (0, "block_rootfs", "flush_count", 1),
                (0, "net_eth0", "tx_packets_count", 5), (0, "net_eth0", "rx_bytes_count", 42), (0, "entropy", "entropy_bytes", 192),
                (0, "uart", "read_count", 4), (1, "block_rootfs", "read_count", 15), (1, "block_rootfs", "write_count", 0),
                (1, "net_eth0", "tx_packets_count", 0), (1, "uart", "error_count", 1), (1, "vcpu", "exit_mmio_write", 15),
                (2, "block_rootfs", "read_count", 2),
            ])
            Assert.True(lines[line].GetProperty(section).GetProperty(key).GetInt64() == value, $"line {line}: {section}.{key} in {lines[line]}");
        var times = lines[0].GetProperty("vcpu").GetProperty("exit_mmio_write_agg");
        Assert.Equal((3, 5, 8), (times.GetProperty("min_us").GetInt64(), times.GetProperty("max_us").GetInt64(), times.GetProperty("sum_us").GetInt64()));
        Assert.Equal(2000, lines[0].GetProperty("vcpu").GetProperty("exit_io_in_agg").GetProperty("max_us").GetInt64());
        Assert.Equal(0, lines[1].GetProperty("vcpu").GetProperty("exit_mmio_write_agg").GetProperty("sum_us").GetInt64());
    }
}
