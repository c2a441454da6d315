using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;
using ActorVmm.Testing;
using ActorVmm.Testing.Virtio;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Devices.Tests.Virtio.Queue;

/// <summary>
/// Rings, descriptors and register accesses made of random bytes: nothing throws, nothing outside the rings and buffers that the driver
/// named is touched, and a reset mends everything. The seed is printed; <c>ACTORVMM_FUZZ_SEED</c> repeats a run.
/// </summary>
public sealed class QueueFuzzTests(ITestOutputHelper output)
{
    private const ushort Size = 8;
    private const ulong Ram = 1 << 20;
    private const ulong RingsAt = 0x1_0000;
    private const ulong Canary = 0xC_0000;

    /// <summary>The faults that a driver can cause with a ring that lies where it should.</summary>
    private static readonly QueueFault[] s_faults =
    [
        QueueFault.AvailableIndexTooFar, QueueFault.DescriptorOutOfRange, QueueFault.HeadInFlight, QueueFault.ChainTooLong,
        QueueFault.ReadableAfterWritable, QueueFault.BufferOutsideRam, QueueFault.IndirectNotNegotiated, QueueFault.IndirectNested,
        QueueFault.IndirectWithNext, QueueFault.IndirectLength, QueueFault.IndirectOutsideRam,
    ];

    [Fact]
    public void Random_rings_break_their_queue_at_worst()
    {
        var executions = Nightly.Count(200_000, 10_000_000);
        var (sound, taken, faults) = Rings(Seeded(), executions);
        output.WriteLine($"{executions} executions, {sound} of them sound, {taken} requests, {faults.Count} faults");
        Assert.InRange(sound, executions / 50, executions); // it is no test where everything breaks at the first look
        Assert.True(taken > executions / 50);
    }

    /// <summary>The corpus: a few seeds that cause, between them and in a moment, every fault there is.</summary>
    [Fact]
    public void A_few_seeds_cause_every_fault()
    {
        var caused = new HashSet<QueueFault>();
        foreach (var seed in (ReadOnlySpan<int>)[1, 2, 3]) caused.UnionWith(Rings(new Random(seed), 1000).Faults);
        Assert.Equal(s_faults, caused.Order());
    }

    private (long Sound, long Taken, HashSet<QueueFault> Faults) Rings(Random random, long executions)
    {
        using var memory = GuestMemory.Create(Ram);
        var type = new Chewer();
        var ledger = new VirtioLedger(type.QueueSizes);
        var mmio = new VirtioMmio(type, ledger, memory, new NoLine());
        var driver = new VirtioDriver(mmio, memory, RingsAt);
        memory.TrySliceForWrite(new GuestAddress(Canary), 4096, out var canary);
        canary.Fill(0xA5);
        var heap = new HeapWatch(executions);
        var faults = new HashSet<QueueFault>();
        long sound = 0;
        GuestRing? ring = null;
        for (long n = 0; n < executions; n++)
        {
            if (n % 8 == 0 || ring is null || mmio.Queue(0).Fault != QueueFault.None)
            {
                ring ??= new GuestRing(memory, new GuestAddress(RingsAt), Size, eventIndex: true, indirect: true);
                driver.Negotiate((random.Next(4) == 0 ? 0 : VirtioFeatures.EventIndex)
                    | (random.Next(2) == 0 ? 0 : VirtioFeatures.IndirectDescriptors)
                    | (random.Next(4) == 0 ? VirtioFeatures.InOrder : 0));
                ring.Clear();
                driver.SetUpQueue(0, ring);
                driver.AddStatus(DeviceStatus.DriverOk);
            }

            Scramble(random, ring);
            driver.Ring(0);
            if (random.Next(4) == 0) mmio.OnBackend();
            if (mmio.Queue(0).Fault == QueueFault.None) sound++;
            else faults.Add(mmio.Queue(0).Fault);
            Assert.InRange(mmio.Queue(0).InFlight, 0, Size);
            heap.At(n);
        }

        memory.TrySlice(new GuestAddress(Canary), 4096, out var after);
        Assert.Equal(-1, after.IndexOfAnyExcept((byte)0xA5));
        Assert.InRange(heap.Growth, long.MinValue, HeapWatch.Bound);
        return (sound, type.Taken, faults);
    }

    [Fact]
    public void Random_register_accesses_are_answered()
    {
        var random = Seeded();
        using var memory = GuestMemory.Create(Ram);
        var type = new Chewer();
        var mmio = new VirtioMmio(type, new VirtioLedger(type.QueueSizes), memory, new NoLine());
        var executions = Nightly.Count(200_000, 10_000_000);
        var values = (uint[])[0, 1, 2, 3, 0xB, 0xF, 8, 0x80, (uint)RingsAt, (uint)RingsAt + 0x1000, (uint)RingsAt + 0x2000, uint.MaxValue];
        var sizes = (int[])[4, 4, 4, 4, 4, 4, 1, 2, 8];
        var heap = new HeapWatch(executions);
        var active = 0L;
        for (long n = 0; n < executions; n++)
        {
            var offset = random.Next(16) == 0 ? (ulong)random.NextInt64(0x1000) : (ulong)(random.Next(0x44) * 4);
            var size = sizes[random.Next(sizes.Length)];
            var value = random.Next(3) == 0 ? (ulong)random.NextInt64() : values[random.Next(values.Length)];
            // Now and then a driver that knows its way, so that what lies behind DRIVER_OK is reached too.
            if (random.Next(200) == 0) Start(mmio, random);
            if (random.Next(3) == 0) mmio.Read(offset, size);
            else mmio.Write(offset, size, value);
            if (mmio.IsActive) active++;
            if (random.Next(64) == 0) mmio.OnBackend();
            if (random.Next(64) == 0) mmio.OnDoorbell(random.Next(-1, 3));
            if (random.Next(256) == 0)
                Assert.Equal(mmio.State, new VirtioMmio(new Chewer(), Copy(mmio), memory, new NoLine()).Restored(mmio.Save()).State);
            heap.At(n);
        }

        output.WriteLine($"{executions} executions, {active} while active, {heap.Growth} bytes kept");
        Assert.InRange(heap.Growth, long.MinValue, HeapWatch.Bound);
        Assert.True(active > executions / 20);
    }

    [Fact]
    public void Random_saved_states_are_refused_or_work()
    {
        var random = Seeded();
        using var memory = GuestMemory.Create(Ram);
        var executions = Nightly.Count(200_000, 10_000_000);
        var type = new Chewer();
        var mmio = new VirtioMmio(type, new VirtioLedger(type.QueueSizes), memory, new NoLine());
        var heap = new HeapWatch(executions);
        long accepted = 0;
        for (long n = 0; n < executions; n++)
        {
            heap.At(n);
            var state = RandomState(random);
            if (mmio.Restore(state) is not null) continue;
            accepted++;
            mmio.Resume();
            mmio.OnDoorbell(0);
            mmio.OnBackend();
        }

        output.WriteLine($"{executions} executions, {accepted} accepted, {heap.Growth} bytes kept");
        Assert.InRange(heap.Growth, long.MinValue, HeapWatch.Bound);
        Assert.True(accepted > executions / 100);
        Assert.True(accepted < executions);
    }

    private static VirtioLedger Copy(VirtioMmio mmio) =>
        new([.. Enumerable.Range(0, mmio.QueueCount).Select(index => mmio.Queue(index).Ledger.MaxSize)]);

    private static void Start(VirtioMmio mmio, Random random)
    {
        foreach (var (register, value) in ((MmioRegister, uint)[])
        [
            (MmioRegister.Status, 0), (MmioRegister.Status, 1), (MmioRegister.Status, 3), (MmioRegister.DriverFeaturesSel, 1),
            (MmioRegister.DriverFeatures, 1), (MmioRegister.Status, 0xB), (MmioRegister.QueueSel, 0), (MmioRegister.QueueNum, Size),
            (MmioRegister.QueueDescLow, (uint)RingsAt), (MmioRegister.QueueDriverLow, (uint)RingsAt + 0x1000),
            (MmioRegister.QueueDeviceLow, (uint)RingsAt + 0x2000), (MmioRegister.QueueReady, 1), (MmioRegister.Status, 0xF),
        ])
        {
            if (random.Next(64) != 0) mmio.Write((ulong)register, 4, value);
        }
    }

    /// <summary>A ring as a driver leaves it, with some of it replaced by other values.</summary>
    private static void Scramble(Random random, GuestRing ring)
    {
        for (var i = 0; i < Size; i++)
        {
            if (random.Next(3) == 0) continue;
            ring.SetDescriptor(i, Address(random), Length(random), Flags(random), (ushort)random.Next(random.Next(8) == 0 ? 65536 : Size));
        }

        for (var i = 0; i < 4; i++)
            ring.SetDescriptor(new GuestAddress(0x2_0000 + 16UL * (ulong)random.Next(16)), Address(random), Length(random), Flags(random),
                (ushort)random.Next(Size + 1));
        var index = ring.AvailableIndex;
        var more = random.Next(32) == 0 ? random.Next(65536) : random.Next(3);
        for (var i = 0; i < Math.Min(more, (int)Size); i++)
            ring.SetAvailable(index + i, (ushort)random.Next(random.Next(16) == 0 ? 65536 : Size));
        ring.SetAvailableIndex((ushort)(index + more));
        ring.SetUsedEvent((ushort)random.Next(65536));
        if (random.Next(4) == 0) ring.SetAvailableFlags((ushort)random.Next(65536));
    }

    private static GuestAddress Address(Random random) => new(random.Next(24) switch
    {
        0 => (ulong)random.NextInt64(long.MinValue, long.MaxValue),
        1 => Ram - (ulong)random.Next(64),
        _ => 0x2_0000 + 16UL * (ulong)random.Next(64), // indirect tables lie there as well
    });

    private static uint Length(Random random) => random.Next(24) switch
    {
        0 => (uint)random.Next(),
        1 => 0,
        2 => uint.MaxValue,
        _ => 16u * (uint)random.Next(1, 8),
    };

    private static ushort Flags(Random random) => random.Next(12) switch
    {
        0 => (ushort)random.Next(65536),
        1 or 2 => GuestRing.Indirect,
        3 or 4 => GuestRing.Next,
        5 => GuestRing.Next | GuestRing.Write,
        6 or 7 => 0,
        _ => GuestRing.Write,
    };

    private static VirtioState RandomState(Random random)
    {
        var registers = new VirtioRegisters
        {
            Status = random.Next(3) == 0 ? (DeviceStatus)random.Next(256) : (DeviceStatus)0xF,
            DriverFeatures = random.Next(4) == 0 ? (ulong)random.NextInt64() : VirtioFeatures.Version1 | VirtioFeatures.EventIndex,
            Interrupt = (InterruptCause)random.Next(random.Next(4) == 0 ? 256 : 4),
            QueueSel = (uint)random.Next(4),
        };
        return new VirtioState(Chewer.Type, registers, [RandomQueue(random), RandomQueue(random)],
            random.Next(8) == 0 ? new byte[random.Next(4)] : null, (uint)random.Next(), random.Next(8) == 0 ? "why" : null);
    }

    private static QueueState RandomQueue(Random random)
    {
        var published = (ulong)random.Next(100);
        var answered = published + (ulong)random.Next(4);
        var taken = answered + (ulong)random.Next(4);
        var slip = random.Next(20) == 0 ? 1 : 0;
        var setup = new QueueSetup(random.Next(16) == 0 ? (ushort)random.Next(65536) : Size, Ready: random.Next(4) != 0,
            random.Next(8) == 0 ? Address(random) : new GuestAddress(RingsAt), new GuestAddress(RingsAt + 0x1000),
                new GuestAddress(RingsAt + 0x2000));
        var inFlight = Enumerable.Range(0, (int)(taken - answered) + slip).Select(i => new InFlightRequest(
            (ushort)(random.Next(32) == 0 ? random.Next(65536) : i), taken - 1 - (ulong)i,
            random.Next(8) == 0 ? (uint)random.Next() : null)).ToArray();
        var answers = Enumerable.Range(0, (int)(answered - published)).Select(_ =>
            new Answer((ushort)(random.Next(32) == 0 ? random.Next(65536) : random.Next(Size)), (uint)random.Next())).ToArray();
        return new QueueState(Size, setup, random.Next(16) == 0 ? (QueueFault)random.Next(256) : QueueFault.None, taken, answered,
            published,
            random.Next(2) == 0, inFlight, answers);
    }

    private Random Seeded()
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("ACTORVMM_FUZZ_SEED"), out var given)
            ? given
            : System.Security.Cryptography.RandomNumberGenerator.GetInt32(int.MaxValue);
        output.WriteLine($"ACTORVMM_FUZZ_SEED={seed}");
        return new Random(seed);
    }

    private sealed class NoLine : IInterruptLine { public void Drive(bool level) { } }

    /// <summary>Uses every way in which a device type can use its queues.</summary>
    private sealed class Chewer : IVirtioDevice
    {
        public const uint Type = 7;
        private readonly List<RequestId> _held = [];
        private readonly GuestSegment[] _segments = new GuestSegment[Size];
        private IVirtioPort? _port;

        public long Taken { get; private set; }
        public uint DeviceId => Type;
        public ulong Features => VirtioFeatures.InOrder;
        public IReadOnlyList<ushort> QueueSizes { get; } = [Size, Size];
        public void ReadConfig(int offset, Span<byte> into) => into.Clear();
        public void WriteConfig(int offset, ReadOnlySpan<byte> from) { }
        public void Activate(ulong features, IVirtioPort port) => _port = port;
        public void Reset() => _held.Clear();
        public void OnQueueReset(int index) => _held.RemoveAll(held => held.Queue == index);

        public void OnNotify(int index)
        {
            var queue = _port!.Queue(index);
            Span<byte> bytes = stackalloc byte[48];
            while (queue.TryTake(out var chain))
            {
                Taken++;
                var count = (int)Math.Min((ulong)bytes.Length, Math.Min(chain.ReadableLength, chain.WritableLength));
                Assert.True(chain.TryRead(0, bytes[..count]));
                Assert.True(chain.TryWrite(chain.WritableLength - (ulong)count, bytes[..count]));
                Assert.False(chain.TryRead(chain.ReadableLength, bytes[..1]));
                Assert.False(chain.TryWrite(ulong.MaxValue, bytes[..1]));
                Assert.InRange(chain.CopyReadable(0, chain.ReadableLength, _segments), 0, Size);
                Assert.Equal(-1, chain.CopyWritable(1, chain.WritableLength, _segments));
                chain.Written(0, chain.WritableLength);
                switch ((Taken + (long)chain.WritableLength) % 5)
                {
                    case 0: _held.Add(chain.Id); break;
                    case 1 when chain.Attempts < 2: queue.Untake(chain); _held.Add(chain.Id); return;
                    default: queue.Complete(chain, (uint)count); break;
                }
            }
        }

        public void OnBackend()
        {
            foreach (var held in _held)
            {
                var queue = _port!.Queue(held.Queue);
                if (queue.TryFind(held, out var chain)) chain.TryWrite(0, (byte)1);
                queue.Complete(held, 1);
                Assert.False(queue.Complete(held, 1)); // never twice
            }

            _held.Clear();
        }
    }
}

internal static class RestoredDevice
{
    /// <summary>The device after it has taken over a state that must be acceptable.</summary>
    public static VirtioMmio Restored(this VirtioMmio mmio, VirtioState state)
    {
        Assert.Null(mmio.Restore(state));
        return mmio;
    }
}
