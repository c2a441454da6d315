using System.Diagnostics;
using ActorVmm.Devices;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Memory;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Bench;

/// <summary>
/// Requests per second of one core that plays both sides of a ring: the driver of the tests publishes a batch, rings the doorbell register,
/// and takes what is used; a device type without a backend answers. Every request is a header, 4096 bytes and a status, as a block
/// driver's.
/// </summary>
internal static class VirtioRing
{
    private const int Rounds = 400;
    private const int RequestsPerRound = 512;
    private const int BlockSize = 4096;
    private const double Target = 1_000_000;

    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(3);

    public static int Run(string[] args)
    {
        const ulong Both = VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors;
        Lane[] lanes =
        [
            new("no data, batches of 32", copies: false, batch: 32, VirtioFeatures.EventIndex),
            new("no data, one by one", copies: false, batch: 1, VirtioFeatures.EventIndex),
            new("4k from memory, batches of 32", copies: true, batch: 32, VirtioFeatures.EventIndex),
            new("4k from memory, one by one", copies: true, batch: 1, VirtioFeatures.EventIndex),
            new("the same, indirect, batches of 32", copies: true, batch: 32, Both),
            new("the same, no EVENT_IDX, 32", copies: true, batch: 32, 0),
        ];
        var warm = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(warm) < WarmUp)
            foreach (var lane in lanes) lane.Round();

        var times = lanes.Select(_ => new double[Rounds]).ToArray();
        var bytes = new long[lanes.Length];
        var full = GC.CollectionCount(2);
        for (var round = 0; round < Rounds; round++)
        {
            for (var i = 0; i < lanes.Length; i++)
            {
                var at = (i + round) % lanes.Length;
                var before = GC.GetAllocatedBytesForCurrentThread();
                var start = Stopwatch.GetTimestamp();
                lanes[at].Round();
                times[at][round] = Stopwatch.GetElapsedTime(start).TotalSeconds;
                bytes[at] += GC.GetAllocatedBytesForCurrentThread() - before;
            }
        }

        Console.WriteLine($"{"one core, driver and device",-36} {"requests/s",12} {"best",12} {"ns each",8} {"B each",7}" +
            $"   medians of {Rounds} interleaved rounds");
        var good = true;
        for (var i = 0; i < lanes.Length; i++)
        {
            var median = Sampling.Median(times[i]);
            var each = bytes[i] / (double)Rounds / RequestsPerRound;
            good &= RequestsPerRound / median >= Target && bytes[i] == 0;
            Console.WriteLine($"{lanes[i].Name,-36} {RequestsPerRound / median,12:N0} {RequestsPerRound / times[i].Min(),12:N0} " +
                $"{median * 1e9 / RequestsPerRound,8:F1} {each,7:F3}");
        }

        Console.WriteLine($"gen-2 collections {GC.CollectionCount(2) - full}; target {Target:N0} requests/s and 0 bytes: " +
            (good ? "met" : "missed"));
        foreach (var lane in lanes) lane.Dispose();
        return good ? 0 : 1;
    }

    private sealed class Lane : IDisposable
    {
        private const ushort QueueSize = 128;

        private readonly GuestMemory _memory = GuestMemory.Create(32 << 20);
        private readonly VirtioDriver _driver;
        private readonly GuestBuffer[][] _requests;
        private readonly int _batch;

        public Lane(string name, bool copies, int batch, ulong features)
        {
            Name = name;
            _batch = batch;
            var type = new MemoryDevice(copies);
            var mmio = new VirtioMmio(type, new VirtioLedger(type.QueueSizes), _memory, new NoLine());
            _driver = new VirtioDriver(mmio, _memory);
            _driver.Start(features);
            var header = _driver.Readable(new byte[16]);
            _requests = [.. Enumerable.Range(0, batch).Select(_ =>
                (GuestBuffer[])[header, new(_driver.Allocate(BlockSize, BlockSize), BlockSize, Writable: true), _driver.Writable(1)])];
        }

        public string Name { get; }

        public void Round()
        {
            var ring = _driver.Rings[0];
            for (var done = 0; done < RequestsPerRound;)
            {
                for (var i = 0; i < _batch; i++) ring.Add(_requests[i]);
                _driver.Kick(0);
                _driver.HandleInterrupt();
                while (ring.TryCollect(out _)) done++;
            }
        }

        public void Dispose() => _memory.Dispose();

        private sealed class NoLine : IInterruptLine { public void Drive(bool level) { } }

        /// <summary>A disk without the rules of one.</summary>
        private sealed class MemoryDevice(bool copies) : IVirtioDevice
        {
            private readonly byte[] _disk = new byte[1 << 20];
            private IVirtioPort? _port;

            public uint DeviceId => 2;
            public ulong Features => 0;
            public IReadOnlyList<ushort> QueueSizes { get; } = [QueueSize];
            public void ReadConfig(int offset, Span<byte> into) => into.Clear();
            public void WriteConfig(int offset, ReadOnlySpan<byte> from) { }
            public void Activate(ulong features, IVirtioPort port) => _port = port;
            public void Reset() => _port = null;
            public void OnBackend() { }

            public void OnNotify(int index)
            {
                var queue = _port!.Queue(0);
                while (queue.TryTake(out var chain))
                {
                    if (!chain.TryRead(8, out ulong sector)) sector = 0;
                    if (copies) chain.TryWrite(0, _disk.AsSpan((int)(sector * 512), BlockSize));
                    chain.TryWrite(BlockSize, (byte)0);
                    queue.Complete(chain, BlockSize + 1);
                }
            }
        }
    }
}
