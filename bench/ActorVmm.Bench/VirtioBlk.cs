using System.Diagnostics;
using System.Globalization;
using ActorVmm.Backends.Disks;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Memory;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Bench;

/// <summary>
/// The block device without a guest: a driver in this process fills the ring. Requests per second and bytes allocated per request on a disk
/// in memory; and from the doorbell to the completion of one 4 KiB read out of the page cache, done inline and by an I/O thread.
/// </summary>
internal static class VirtioBlk
{
    private const int Batch = 32;
    private const uint Bytes = 4096;
    private const int Sectors = 1 << 16; // 32 MiB
    private const int Requests = Sectors / 8;

    /// <summary>Arguments: rounds (9), requests of a round (400000).</summary>
    public static int Run(string[] args)
    {
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 9;
        var count = args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 400_000;
        Throughput(rounds, count);
        Latency(rounds);
        return 0;
    }

    private static void Throughput(int rounds, int count)
    {
        using var rig = new Rig(new MemoryDisk(Sectors));
        foreach (var (name, write) in ((string, bool)[])[("4k read", false), ("4k write", true)])
        {
            rig.Drive(count / 4, write);
            var rates = new double[rounds];
            var collections = GC.CollectionCount(2);
            var allocated = GC.GetAllocatedBytesForCurrentThread();
            for (var round = 0; round < rounds; round++)
            {
                var began = Stopwatch.GetTimestamp();
                rig.Drive(count, write);
                rates[round] = count / (Sampling.MicrosecondsSince(began) / 1e6);
            }
            var each = (GC.GetAllocatedBytesForCurrentThread() - allocated) / ((double)rounds * count);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{name,-9} memory disk, {Batch} per doorbell: median {Sampling.Median(rates),10:F0} /s  best {rates.Max(),10:F0} /s"
                + $"  (target >= 1000000)  {each:F2} B per request  {GC.CollectionCount(2) - collections} gen-2 GCs"));
        }
    }

    private static void Latency(int rounds)
    {
        const int each = 4000;
        var path = Path.Combine(Path.GetTempPath(), $"actorvmm-bench-{Environment.ProcessId}.img");
        File.WriteAllBytes(path, new byte[Sectors * DiskRequest.SectorSize]);
        try
        {
            var inline = new List<double>();
            var threaded = new List<double>();
            using var sync = FileDisk.Open(path, new DiskOptions { ReadOnly = true });
            using var async = FileDisk.Open(path, new DiskOptions { ReadOnly = true, Engine = IoEngine.Async, MostInline = 0 });
            using var first = new Rig(sync);
            using var second = new Rig(async);
            _ = (first.Time(each), second.Time(each));
            for (var round = 0; round < rounds; round++)
            {
                inline.AddRange(first.Time(each));
                threaded.AddRange(second.Time(each));
            }
            Console.WriteLine($"doorbell to completion, one 4k read from the page cache, inline:     {Sampling.P50P99([.. inline])}");
            Console.WriteLine($"doorbell to completion, one 4k read from the page cache, I/O thread: {Sampling.P50P99([.. threaded])}");
        }
        finally
        {
            File.Delete(path);
        }
    }

    /// <summary>Device, transport and driver.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly GuestMemory _memory = GuestMemory.Create(64 << 20);
        private readonly VirtioMmio _mmio;
        private readonly VirtioDriver _driver;
        private readonly SemaphoreSlim _woken = new(0);
        private readonly GuestAddress _headers, _data, _status;
        private int _next;

        public Rig(IDisk disk)
        {
            var device = new BlockDevice(disk, new BlockSettings(), new ManualClock(), new BlockCounters());
            _mmio = new VirtioMmio(device, new VirtioLedger(device.QueueSizes), _memory, new RecordingLine());
            _driver = new VirtioDriver(_mmio, _memory);
            _driver.Start();
            disk.Wake = () => _woken.Release();
            _headers = _driver.Allocate(16 * Batch);
            _data = _driver.Allocate(Bytes * Batch, 4096);
            _status = _driver.Allocate(Batch);
        }

        /// <summary>So many requests, a batch for each doorbell.</summary>
        public void Drive(int count, bool write)
        {
            for (var done = 0; done < count; done += Batch)
            {
                for (var i = 0; i < Batch; i++) Add(i, write);
                _driver.Kick(0);
                var seen = 0;
                while (_driver.Rings[0].TryCollect(out _)) seen++;
                if (seen != Batch) throw new InvalidOperationException($"{seen} of {Batch} requests are done");
                _driver.HandleInterrupt();
            }
        }

        /// <summary>Microseconds of single requests.</summary>
        public double[] Time(int count)
        {
            var times = new double[count];
            for (var i = 0; i < count; i++)
            {
                Add(0, write: false);
                var began = Stopwatch.GetTimestamp();
                _driver.Kick(0);
                while (!_driver.Rings[0].TryCollect(out _))
                {
                    _woken.Wait();
                    _mmio.OnBackend();
                }
                times[i] = Sampling.MicrosecondsSince(began);
                _driver.HandleInterrupt();
            }
            return times;
        }

        public void Dispose()
        {
            _memory.Dispose();
            _woken.Dispose();
        }

        private void Add(int slot, bool write)
        {
            _next = (_next + 7919) % Requests;
            var header = _headers + (ulong)(16 * slot);
            _memory.TryWrite(header, (ulong)(write ? 1 : 0));
            _memory.TryWrite(header + 8, (ulong)_next * 8);
            _driver.Rings[0].Add(
                new GuestBuffer(header, 16, false), new GuestBuffer(_data + (Bytes * (ulong)slot), Bytes, !write),
                new GuestBuffer(_status + (ulong)slot, 1, true));
        }
    }
}
