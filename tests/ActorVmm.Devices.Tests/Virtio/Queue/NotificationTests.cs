using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Memory;
using ActorVmm.Testing;
using ActorVmm.Testing.Virtio;
using CsCheck;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Queue;

/// <summary>Who has to ring when, and who has to interrupt when.</summary>
public sealed class NotificationTests
{
    [Fact]
    public void Without_event_idx_the_drivers_flag_suppresses_interrupts()
    {
        using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(16));
        rig.Driver.Start(0);
        var ring = rig.Driver.Rings[0];
        ring.SetAvailableFlags(1);
        Submit(rig, 1);
        Assert.False(rig.Line.Asserted);
        ring.SetAvailableFlags(0);
        Submit(rig, 1);
        Assert.True(rig.Line.Asserted);
        Assert.Equal(2, ring.Collect().Count);
    }

    [Fact]
    public void Without_event_idx_the_device_wants_no_doorbell_while_it_works()
    {
        var seen = new List<ushort>();
        VirtioRig<EchoDevice>? rig = null;
        using var made = rig = new VirtioRig<EchoDevice>(
            () => new EchoDevice(16) { BeforeTake = () => seen.Add(rig!.Driver.Rings[0].UsedFlags) });
        rig.Driver.Start(0);
        Submit(rig, 1);
        Submit(rig, 1);
        Assert.Equal([1, 1], seen);                          // NO_NOTIFY while it looks
        Assert.Equal(0, rig.Driver.Rings[0].UsedFlags);      // and not after it saw the queue empty
    }

    [Fact]
    public void With_event_idx_one_doorbell_serves_what_comes_while_the_device_works()
    {
        using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(16) { Hold = true });
        rig.Driver.Start(VirtioFeatures.EventIndex);
        var ring = rig.Driver.Rings[0];
        ring.Add(rig.Driver.Writable(4));
        Assert.True(ring.Publish());
        ring.Add(rig.Driver.Writable(4));
        Assert.False(ring.Publish()); // the first ring has not been heard: no second is needed
        rig.Driver.Ring(0);
        Assert.Equal(2, rig.Device.Held.Count);
        Assert.Equal(2, ring.AvailableEvent); // the next one is wanted
        ring.Add(rig.Driver.Writable(4));
        Assert.True(ring.Publish());
    }

    [Fact]
    public void Several_answers_of_one_message_make_one_interrupt()
    {
        using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(16));
        rig.Driver.Start();
        Submit(rig, 8);
        Assert.Equal(1, rig.Line.Rises);
        rig.Driver.HandleInterrupt();
        Assert.Equal(8, rig.Driver.Rings[0].Collect().Count);
    }

    [Fact]
    public void With_event_idx_an_interrupt_comes_exactly_when_the_wished_index_is_passed() =>
        Gen.Select(Gen.Int[1, 8].Array[1, 60], Gen.Int[0, 20].Array[60], Gen.Int[0, 65535]).Sample((batches, wishes, start) =>
        {
            using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(8), memoryMib: 2);
            rig.Driver.Start(VirtioFeatures.EventIndex);
            var ring = rig.Driver.Rings[0];
            for (var i = 0; i < batches.Length; i++)
            {
                var before = ring.LastUsed;
                var wish = (ushort)(before + wishes[i] - 4 + (start == 0 ? 0x8000 : 0));
                ring.SetUsedEvent(wish);
                for (var n = 0; n < batches[i]; n++) ring.Add(new GuestBuffer(new GuestAddress(0x1000), 4, Writable: true));
                ring.Publish();
                rig.Driver.Ring(0);
                var passed = Enumerable.Range(0, batches[i]).Any(n => (ushort)(before + n) == wish);
                Assert.Equal(passed, rig.Driver.HandleInterrupt() == InterruptCause.UsedBuffer);
                Assert.Equal(batches[i], ring.Collect().Count);
            }
        }, iter: 300);

    [Fact]
    public void The_indices_wrap()
    {
        using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(256));
        rig.Driver.Start();
        var buffer = new GuestBuffer(new GuestAddress(0x1000), 4, Writable: true);
        for (var done = 0; done < 200_000;)
        {
            for (var i = 0; i < 200; i++) rig.Driver.Rings[0].Add(buffer);
            rig.Driver.Kick(0);
            Assert.Equal(InterruptCause.UsedBuffer, rig.Driver.HandleInterrupt());
            done += rig.Driver.Rings[0].Collect().Count;
        }

        Assert.Equal(200_000UL, rig.Ledger.Queues[0].Published);
        Assert.Equal(0, rig.Restarts);
    }

    /// <summary>
    /// The driver on one thread, the device on another, and nothing between them but RAM, doorbell and line: a wake-up that is lost on
    /// either side ends the test.
    /// </summary>
    [Theory]
    [InlineData(0UL), InlineData(VirtioFeatures.EventIndex)]
    public async Task No_doorbell_and_no_interrupt_is_lost_between_two_threads(ulong features)
    {
        var requests = Nightly.Count(200_000, 20_000_000);
        using var doorbell = new SemaphoreSlim(0);
        using var interrupt = new SemaphoreSlim(0);
        using var memory = GuestMemory.Create(4 << 20);
        var type = new EchoDevice(16);
        var mmio = new VirtioMmio(type, new VirtioLedger(type.QueueSizes), memory, new SemaphoreLine(interrupt));
        var driver = new VirtioDriver(mmio, memory);
        driver.Start(features);
        var ring = driver.Rings[0];
        using var over = new CancellationTokenSource(TimeSpan.FromSeconds(Nightly.Count(60, 600)));
        var stop = false;

        var device = Task.Run(async () =>
        {
            while (true)
            {
                await doorbell.WaitAsync(over.Token);
                if (Volatile.Read(ref stop)) return;
                mmio.OnDoorbell(0);
                // What the interrupt handler does to the registers, on the thread that owns them.
                mmio.Write((ulong)MmioRegister.InterruptAck, 4, 1);
            }
        }, over.Token);

        var buffer = new GuestBuffer(new GuestAddress(0x1000), 4, Writable: true);
        long added = 0, collected = 0;
        while (collected < requests)
        {
            while (added < requests && ring.Add(buffer) >= 0)
            {
                added++;
                if (ring.Publish()) doorbell.Release();
            }

            if (ring.TryCollect(out _))
            {
                collected++;
                continue;
            }

            // Nothing more to do: sleeps until an interrupt, as a driver that has switched them on and looked once more.
            ring.SetUsedEvent(ring.LastUsed);
            if (ring.UsedIndex != ring.LastUsed) continue;
            try
            {
                await interrupt.WaitAsync(over.Token);
            }
            catch (OperationCanceledException)
            {
                var queue = mmio.Queue(0);
                Assert.Fail($"asleep with {added} added and {collected} collected; the device took {queue.Ledger.Taken}, " +
                    $"published {queue.Ledger.Published}, signalled {queue.Ledger.Signalled}, fault {queue.Fault}; " +
                    $"avail_event {ring.AvailableEvent}, used index {ring.UsedIndex}");
            }
        }

        Volatile.Write(ref stop, true);
        doorbell.Release();
        await device;
        Assert.Equal((ulong)requests, mmio.Queue(0).Ledger.Published);
    }

    private static void Submit(VirtioRig<EchoDevice> rig, int count)
    {
        for (var i = 0; i < count; i++) rig.Driver.Rings[0].Add(rig.Driver.Readable("x"u8), rig.Driver.Writable(1));
        rig.Driver.Kick(0);
    }

    private sealed class SemaphoreLine(SemaphoreSlim raised) : IInterruptLine
    {
        private bool _level;

        public void Drive(bool level)
        {
            if (level && !_level) raised.Release();
            _level = level;
        }
    }
}
