using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Testing.Virtio;
using CsCheck;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Queue;

/// <summary>
/// Whatever a rule-abiding driver, a backend that answers in any order, and crashes at any point do together: each request is answered
/// once, with its own bytes, and an interrupt comes for what the driver has not seen.
/// </summary>
public sealed class QueuePropertyTests
{
    private static readonly Gen<(int Kind, int Count, int Shape)[]> s_steps =
        Gen.Select(Gen.Int[0, 6], Gen.Int[1, 8], Gen.Int[0, 255]).Array[1, 60];

    private static readonly ulong[] s_choices =
    [
        0, VirtioFeatures.EventIndex, VirtioFeatures.IndirectDescriptors, VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors,
        VirtioFeatures.EventIndex | VirtioFeatures.InOrder, VirtioFeatures.InOrder,
    ];

    private static readonly Gen<ulong> s_features = Gen.Int[0, 5].Select(index => s_choices[index]);

    [Fact]
    public void Each_request_is_answered_once_with_its_own_bytes_whatever_crashes_when() =>
        Gen.Select(s_steps, s_features, Gen.Int[1, 40], Gen.Int).Sample((steps, features, rarity, seed) =>
        {
            var random = new Random(seed);
            using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(32) { Features = VirtioFeatures.InOrder, Hold = true },
                memoryMib: 4);
            var driver = rig.Driver;
            driver.Start(features);
            var expected = new Dictionary<uint, (byte[] Bytes, GuestBuffer[] Answer)>();
            rig.Ledger.CrashHook = new CrashSometimes(random, rarity);
            var number = 0;
            foreach (var (kind, count, shape) in steps)
            {
                switch (kind)
                {
                    case 0 or 1:
                        for (var i = 0; i < count; i++) Add(driver, expected, shape + i, ref number);
                        driver.Kick(0);
                        break;
                    case 2: rig.Backend(); break;
                    case 3: FinishOne(rig, random); break;
                    case 4: rig.Restart(); break;
                    case 5: driver.HandleInterrupt(); Collect(driver, expected, features); break;
                    default: driver.Ring(0); break;
                }
            }

            // The faults end: everything that was asked for is answered.
            rig.Ledger.CrashHook = null;
            driver.Ring(0);
            rig.Backend();
            Assert.True(rig.Line.Asserted || driver.Rings[0].UsedIndex == driver.Rings[0].LastUsed,
                "answers wait and no interrupt says so");
            Collect(driver, expected, features);
            Assert.True(expected.Count == 0, $"{expected.Count} are missing: {rig.Mmio}, {rig.Mmio.Queue(0)}, {rig.LastFailure}");
            Assert.Equal(0, rig.Mmio.Queue(0).InFlight);
            Assert.Equal(32, driver.Rings[0].FreeCount);
            Assert.Equal((DeviceStatus)0xF, driver.Status);
        }, iter: 2000);

    [Fact]
    public void A_copy_of_the_saved_state_goes_on_like_the_original() =>
        Gen.Select(s_steps, s_features, Gen.Int).Sample((steps, features, seed) =>
        {
            var random = new Random(seed);
            using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(32) { Features = VirtioFeatures.InOrder, Hold = true },
                memoryMib: 4);
            rig.Driver.Start(features);
            var expected = new Dictionary<uint, (byte[] Bytes, GuestBuffer[] Answer)>();
            var number = 0;
            foreach (var (kind, count, shape) in steps)
            {
                if (kind < 3) for (var i = 0; i < count; i++) Add(rig.Driver, expected, shape + i, ref number);
                if (kind < 4) rig.Driver.Kick(0);
                if (kind == 4) FinishOne(rig, random);
                if (kind == 5) Collect(rig.Driver, expected, features);
            }

            var saved = rig.Mmio.Save();
            Assert.Equivalent(saved, rig.Mmio.Save()); // saving changes nothing
            var type = new EchoDevice(32) { Features = VirtioFeatures.InOrder };
            var ledger = new VirtioLedger(type.QueueSizes);
            var copy = new VirtioMmio(type, ledger, rig.Memory, rig.Line);
            Assert.Null(copy.Restore(saved));
            Assert.Equivalent(saved, copy.Save());
            copy.Resume();
            Assert.True(rig.Line.Asserted || rig.Driver.Rings[0].UsedIndex == rig.Driver.Rings[0].LastUsed);
            Collect(rig.Driver, expected, features);
            Assert.Empty(expected);
            Assert.Equal(0, copy.Queue(0).InFlight);
        }, iter: 500);

    private static void FinishOne(VirtioRig<EchoDevice> rig, Random random)
    {
        if (rig.Device.Held.Count == 0) return;
        var held = rig.Device.Held[random.Next(rig.Device.Held.Count)];
        rig.Device.Chosen = held;
        rig.Backend();
    }

    /// <summary>A request of one to four readable and as many writable buffers.</summary>
    private static void Add(VirtioDriver driver, Dictionary<uint, (byte[], GuestBuffer[])> expected, int shape, ref int number)
    {
        var parts = 1 + (shape & 3);
        var bytes = new byte[4 * parts];
        for (var i = 0; i < parts; i++) BitConverter.TryWriteBytes(bytes.AsSpan(4 * i), number * 7919 + i);
        var buffers = new GuestBuffer[2 * parts];
        for (var i = 0; i < parts; i++)
        {
            buffers[i] = driver.Readable(bytes.AsSpan(4 * i, 4));
            buffers[parts + i] = driver.Writable(4);
        }

        if (driver.Rings[0].Add(buffers) is >= 0 and var head) expected.Add((uint)head, (bytes, buffers[parts..]));
        number++;
    }

    private static void Collect(VirtioDriver driver, Dictionary<uint, (byte[] Bytes, GuestBuffer[] Answer)> expected, ulong features)
    {
        while (driver.Rings[0].TryCollect(out var used))
        {
            Assert.True(expected.Remove(used.Head, out var request), $"{used.Head} is answered, and nobody asked");
            Assert.Equal((uint)request.Bytes.Length, used.Written);
            Assert.Equal(request.Bytes, request.Answer.SelectMany(driver.Bytes));
        }
    }

    private sealed class CrashSometimes(Random random, int rarity) : ICrashHook
    {
        public void Reached(CrashPoint point, int queue, ushort head)
        {
            if (random.Next(rarity + 2) == 0) throw new InvalidOperationException($"a crash at {point}");
        }
    }
}
