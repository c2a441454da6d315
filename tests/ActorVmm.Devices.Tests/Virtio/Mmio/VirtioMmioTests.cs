using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Mmio;

/// <summary>Every register of virtio over MMIO (virtio 1.2 §4.2.2), told by a driver.</summary>
public sealed class VirtioMmioTests : IDisposable
{
    private readonly VirtioRig<EchoDevice> _rig = new(() => new EchoDevice(64, 16));

    private VirtioDriver Driver => _rig.Driver;

    public void Dispose() => _rig.Dispose();

    [Fact]
    public void The_identity_is_magic_version_2_type_and_vendor()
    {
        Assert.Equal(0x7472_6976u, Driver.Read(MmioRegister.MagicValue));
        Assert.Equal(2u, Driver.Read(MmioRegister.Version));
        Assert.Equal(0x42u, Driver.Read(MmioRegister.DeviceId));
        Assert.Equal(0x564D_5641u, Driver.Read(MmioRegister.VendorId));
    }

    [Fact]
    public void Offered_features_are_the_types_and_the_transports_and_pages_beyond_are_empty()
    {
        Assert.Equal(_rig.Device.Features | VirtioFeatures.Transport, Driver.Offered);
        Assert.NotEqual(0UL, Driver.Offered & VirtioFeatures.Version1);
        foreach (var page in (uint[])[2, 3, uint.MaxValue])
        {
            Driver.Write(MmioRegister.DeviceFeaturesSel, page);
            Assert.Equal(0u, Driver.Read(MmioRegister.DeviceFeatures));
        }
    }

    [Fact]
    public void The_status_goes_one_step_at_a_time_and_never_back()
    {
        Assert.Equal(DeviceStatus.None, Driver.Status);
        Driver.Write(MmioRegister.Status, (uint)DeviceStatus.Driver); // skips ACKNOWLEDGE
        Assert.Equal(DeviceStatus.None, Driver.Status);
        Driver.Write(MmioRegister.Status, 3); // two at once
        Assert.Equal(DeviceStatus.None, Driver.Status);
        Driver.AddStatus(DeviceStatus.Acknowledge);
        Driver.AddStatus(DeviceStatus.DriverOk); // too early
        Assert.Equal(DeviceStatus.Acknowledge, Driver.Status);
        Driver.AddStatus(DeviceStatus.Driver);
        Driver.Choose(VirtioFeatures.Version1);
        Driver.AddStatus(DeviceStatus.FeaturesOk);
        Driver.Write(MmioRegister.Status, 1); // back
        Driver.Write(MmioRegister.Status, 0x10F); // more than a byte
        Assert.Equal((DeviceStatus)0xB, Driver.Status);
        Driver.AddStatus(DeviceStatus.DriverOk);
        Assert.Equal((DeviceStatus)0xF, Driver.Status);
        Assert.Equal(1, _rig.Device.Activations);
        Driver.AddStatus(DeviceStatus.DriverOk); // again: nothing
        Assert.Equal(1, _rig.Device.Activations);
    }

    [Fact]
    public void Failed_sticks_until_reset()
    {
        Driver.Start();
        Driver.AddStatus(DeviceStatus.Failed);
        Assert.Equal((DeviceStatus)0x8F, Driver.Status);
        Driver.Write(MmioRegister.Status, 0xF);
        Assert.Equal((DeviceStatus)0x8F, Driver.Status);
        Driver.Write(MmioRegister.Status, 0);
        Assert.Equal(DeviceStatus.None, Driver.Status);
    }

    [Theory]
    [InlineData(1UL << 60, 0u)]             // not offered
    [InlineData(0UL, 0u)]                   // without VERSION_1
    [InlineData(1UL << 32, 2u)]             // a feature of page 2
    [InlineData(1UL << 32, 3u)]
    public void Features_that_cannot_be_are_refused(ulong features, uint page)
    {
        Driver.AddStatus(DeviceStatus.Acknowledge);
        Driver.AddStatus(DeviceStatus.Driver);
        Driver.Choose(features);
        if (page != 0)
        {
            Driver.Write(MmioRegister.DriverFeaturesSel, page);
            Driver.Write(MmioRegister.DriverFeatures, 1);
        }

        Driver.AddStatus(DeviceStatus.FeaturesOk);
        Assert.Equal((DeviceStatus)3, Driver.Status);
        Driver.AddStatus(DeviceStatus.DriverOk);
        Assert.Equal((DeviceStatus)3, Driver.Status);
        Assert.Equal(0, _rig.Device.Activations);
        // It may choose again, without a reset.
        Driver.Choose(VirtioFeatures.Version1);
        if (page != 0)
        {
            Driver.Write(MmioRegister.DriverFeaturesSel, page);
            Driver.Write(MmioRegister.DriverFeatures, 0);
        }

        Driver.AddStatus(DeviceStatus.FeaturesOk);
        Assert.Equal((DeviceStatus)0xB, Driver.Status);
    }

    [Fact]
    public void The_type_may_refuse_a_combination_of_features()
    {
        using var rig = new VirtioRig<EchoDevice>(() => new EchoDevice(16) { Accepts = features => (features & 8) != 0 });
        Assert.Throws<InvalidOperationException>(() => rig.Driver.Negotiate(0));
        rig.Driver.Negotiate(8);
        Assert.Equal((DeviceStatus)0xB, rig.Driver.Status);
    }

    [Fact]
    public void Driver_features_are_taken_between_driver_and_features_ok_only()
    {
        Driver.Choose(ulong.MaxValue); // too early: ignored
        Driver.Negotiate(VirtioFeatures.EventIndex);
        Driver.Choose(VirtioFeatures.Version1); // too late: ignored
        Driver.SetUpQueues();
        Driver.AddStatus(DeviceStatus.DriverOk);
        Assert.Equal(VirtioFeatures.Version1 | VirtioFeatures.EventIndex, _rig.Device.Negotiated);
    }

    [Fact]
    public void Each_queue_says_its_size_and_queues_that_are_not_there_are_empty()
    {
        foreach (var (queue, size) in ((uint, uint)[])[(0, 64), (1, 16), (2, 0), (uint.MaxValue, 0)])
        {
            Driver.Write(MmioRegister.QueueSel, queue);
            Assert.Equal(size, Driver.Read(MmioRegister.QueueNumMax));
            Assert.Equal(0u, Driver.Read(MmioRegister.QueueReady));
        }

        Driver.Negotiate(0);
        Driver.Write(MmioRegister.QueueSel, 2);
        Driver.Write(MmioRegister.QueueReady, 1);
        Assert.Equal(0u, Driver.Read(MmioRegister.QueueReady));
    }

    [Theory]
    [InlineData(0u, 64), InlineData(3u, 64), InlineData(128u, 64), InlineData(0x1_0000u, 64), InlineData(32u, 32), InlineData(1u, 1)]
    public void A_queues_size_is_a_power_of_two_up_to_its_maximum(uint written, int size)
    {
        Driver.Negotiate(0);
        Driver.Write(MmioRegister.QueueNum, written);
        Assert.Equal(size, _rig.Mmio.Queue(0).Size);
    }

    [Fact]
    public void Queue_registers_are_taken_between_features_ok_and_driver_ok_and_not_while_ready()
    {
        var setup = _rig.Ledger.Queues[0].Setup;
        WriteAddresses(0x1234_5000);
        Assert.Equal(setup, _rig.Ledger.Queues[0].Setup); // before FEATURES_OK
        Driver.Negotiate(0); // without RING_RESET
        WriteAddresses(0x1_0020_0000);
        var taken = _rig.Ledger.Queues[0].Setup;
        Assert.Equal((0x1_0020_0000UL, 0x1_0020_1000UL, 0x1_0020_2000UL), (taken.Descriptors.Value, taken.Available.Value,
            taken.Used.Value));
        WriteAddresses(0x20_0000);
        Driver.Write(MmioRegister.QueueReady, 1);
        Assert.Equal(1u, Driver.Read(MmioRegister.QueueReady));
        WriteAddresses(0x30_0000);
        Assert.Equal(0x20_0000UL, _rig.Ledger.Queues[0].Setup.Descriptors.Value); // ready
        Driver.AddStatus(DeviceStatus.DriverOk);
        Driver.Write(MmioRegister.QueueSel, 1);
        WriteAddresses(0x40_0000);
        Driver.Write(MmioRegister.QueueReady, 1);
        Assert.Equal(0u, Driver.Read(MmioRegister.QueueReady)); // after DRIVER_OK
        Assert.False(_rig.Mmio.Queue(1).IsLive);
    }

    [Fact]
    public void A_request_is_answered_and_its_interrupt_is_raised_shown_and_acknowledged()
    {
        Driver.Start();
        var answer = Driver.Writable(5);
        var head = Driver.Rings[0].Add(Driver.Readable("hello"u8), answer);
        Assert.True(Driver.Kick(0));
        Assert.True(_rig.Line.Asserted);
        Assert.Equal(1u, Driver.Read(MmioRegister.InterruptStatus));
        Driver.Write(MmioRegister.InterruptAck, 2); // the other bit
        Assert.True(_rig.Line.Asserted);
        Driver.Write(MmioRegister.InterruptAck, 1);
        Assert.False(_rig.Line.Asserted);
        Assert.Equal(0u, Driver.Read(MmioRegister.InterruptStatus));
        Assert.Equal([new UsedBuffer((uint)head, 5)], Driver.Rings[0].Collect());
        Assert.Equal("hello"u8.ToArray(), Driver.Bytes(answer));
    }

    [Fact]
    public void A_doorbell_before_driver_ok_or_of_no_queue_rings_nothing()
    {
        Driver.Negotiate(0);
        Driver.SetUpQueues();
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Rings[0].Publish();
        Driver.Ring(0);
        Assert.Equal(0UL, _rig.Ledger.Queues[0].Taken);
        Driver.AddStatus(DeviceStatus.DriverOk);
        Driver.Ring(2);
        Driver.Write(MmioRegister.QueueNotify, uint.MaxValue);
        Assert.Equal(0UL, _rig.Ledger.Queues[0].Taken);
        Driver.Ring(0);
        Assert.Equal(1UL, _rig.Ledger.Queues[0].Taken);
    }

    [Fact]
    public void Status_0_resets_everything_and_the_device_can_be_initialized_again()
    {
        for (var round = 0; round < 3; round++)
        {
            Driver.Start();
            Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
            Driver.Kick(0);
            Assert.True(_rig.Line.Asserted);
            Assert.Single(Driver.Rings[0].Collect());
            Driver.Write(MmioRegister.Status, 0);
            Assert.False(_rig.Line.Asserted);
            Assert.Equal(0u, Driver.Read(MmioRegister.InterruptStatus));
            Assert.Equal(0u, Driver.Read(MmioRegister.QueueReady));
            Assert.Equal(0UL, _rig.Mmio.Features);
            Assert.False(_rig.Mmio.Queue(0).IsLive);
            Driver.Ring(0); // nobody is there
        }

        Assert.Equal(3, _rig.Device.Activations);
        // The driver resets once more before each initialization.
        Assert.Equal(6, _rig.Device.Resets);
    }

    [Fact]
    public void A_reset_with_requests_in_flight_forgets_them_and_their_late_answers()
    {
        _rig.Device.Hold = true;
        Driver.Start();
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Kick(0);
        var late = Assert.Single(_rig.Device.Held);
        Driver.Start();
        Assert.False(_rig.Mmio.Queue(0).Complete(late, 1));
        Driver.Rings[0].Add(Driver.Readable("y"u8), Driver.Writable(1));
        Driver.Kick(0); // the same head is in flight again
        Assert.Equal(late.Head, Assert.Single(_rig.Device.Held).Head);
        Assert.False(_rig.Mmio.Queue(0).Complete(late, 1));
        _rig.Backend();
        Assert.Single(Driver.Rings[0].Collect());
    }

    [Fact]
    public void One_queue_is_reset_and_set_up_again_while_the_other_works()
    {
        _rig.Device.Hold = true;
        Driver.Start(VirtioFeatures.RingReset | VirtioFeatures.EventIndex);
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Kick(0);
        Driver.Rings[1].Add(Driver.Readable("y"u8), Driver.Writable(1));
        Driver.Kick(1);
        var late = _rig.Device.Held[0];

        Driver.Write(MmioRegister.QueueSel, 0);
        Driver.Write(MmioRegister.QueueReset, 1);
        Assert.Equal(0u, Driver.Read(MmioRegister.QueueReset));
        Assert.Equal(0u, Driver.Read(MmioRegister.QueueReady));
        Assert.Equal([0], _rig.Device.QueueResets);
        Assert.False(_rig.Mmio.Queue(0).Complete(late, 1));
        _rig.Backend();
        Assert.Single(Driver.Rings[1].Collect());

        Driver.Rings[0].Clear();
        Driver.Rings[0].Add(Driver.Readable("z"u8), Driver.Writable(1));
        Driver.Rings[0].Publish(); // before it is ready again
        Driver.SetUpQueue(0, Driver.Rings[0]);
        Assert.Single(_rig.Device.Held);
        _rig.Backend();
        Assert.Single(Driver.Rings[0].Collect());
        Assert.Equal((DeviceStatus)0xF, Driver.Status);
    }

    [Fact]
    public void A_queue_reset_that_was_not_negotiated_is_ignored()
    {
        Driver.Start(0);
        Driver.Write(MmioRegister.QueueSel, 0);
        Driver.Write(MmioRegister.QueueReset, 1);
        Assert.Equal(1u, Driver.Read(MmioRegister.QueueReady));
        Assert.Empty(_rig.Device.QueueResets);
    }

    [Fact]
    public void Writing_0_to_queue_ready_stops_the_queue()
    {
        Driver.Start(0);
        Driver.Write(MmioRegister.QueueSel, 0);
        Driver.Write(MmioRegister.QueueReady, 0);
        Assert.Equal(0u, Driver.Read(MmioRegister.QueueReady));
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Rings[0].Publish();
        Driver.Ring(0);
        Assert.Equal(0UL, _rig.Ledger.Queues[0].Taken);
    }

    [Fact]
    public void A_change_of_configuration_counts_the_generation_and_interrupts_an_active_driver()
    {
        var generation = Driver.Read(MmioRegister.ConfigGeneration);
        _rig.Mmio.ConfigChanged(); // nobody to interrupt yet
        Assert.False(_rig.Line.Asserted);
        Assert.Equal(generation + 1, Driver.Read(MmioRegister.ConfigGeneration));
        Driver.Start();
        _rig.Mmio.ConfigChanged();
        Assert.True(_rig.Line.Asserted);
        Assert.Equal(InterruptCause.ConfigChange, Driver.HandleInterrupt());
        Assert.False(_rig.Line.Asserted);
        Assert.Equal(generation + 2, Driver.Read(MmioRegister.ConfigGeneration));
    }

    [Fact]
    public void Configuration_space_is_read_in_any_width_and_is_zero_beyond_its_end()
    {
        Driver.AddStatus(DeviceStatus.Acknowledge);
        Driver.AddStatus(DeviceStatus.Driver);
        _rig.Write(0x100, 8, 0x8877_6655_4433_2211);
        Assert.Equal(0x11UL, _rig.Read(0x100, 1));
        Assert.Equal(0x4433UL, _rig.Read(0x102, 2));
        Assert.Equal(0x5544_3322UL, _rig.Read(0x101, 4));
        Assert.Equal(0x8877_6655_4433_2211UL, _rig.Read(0x100, 8));
        Assert.Equal(0x88UL, _rig.Read(0x107, 4));
        Assert.Equal(0UL, _rig.Read(0xFFC, 4));
    }

    [Fact]
    public void Configuration_is_not_written_before_there_is_a_driver()
    {
        _rig.Write(0x100, 4, 0xFFFF_FFFF);
        Assert.Equal(0UL, _rig.Read(0x100, 4));
        Assert.Equal(1, _rig.Mmio.IgnoredAccesses);
    }

    [Fact]
    public void Shared_memory_regions_do_not_exist()
    {
        Driver.Write(MmioRegister.ShmSel, 3);
        foreach (var register in (MmioRegister[])[MmioRegister.ShmLenLow, MmioRegister.ShmLenHigh, MmioRegister.ShmBaseLow,
            MmioRegister.ShmBaseHigh])
            Assert.Equal(uint.MaxValue, Driver.Read(register));
    }

    [Fact]
    public void Accesses_of_the_wrong_width_or_alignment_and_reserved_offsets_are_ignored_and_counted()
    {
        Driver.Start();
        var state = _rig.Mmio.State;
        long expected = 0;
        foreach (var (offset, size) in ((ulong, int)[])[(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (0x70, 1), (0x72, 2)])
        {
            Assert.Equal(0UL, _rig.Read(offset, size));
            _rig.Write(offset, size, 0);
            Assert.Equal(expected += 2, _rig.Mmio.IgnoredAccesses);
        }

        foreach (var offset in (ulong[])[0x018, 0x01C, 0x028, 0x03C, 0x048, 0x068, 0x0A8, 0x0C4, 0x0F8])
        {
            Assert.Equal(0UL, _rig.Read(offset, 4));
            _rig.Write(offset, 4, uint.MaxValue);
            Assert.Equal(expected += 2, _rig.Mmio.IgnoredAccesses);
        }

        // Registers of the other direction.
        foreach (var register in (MmioRegister[])[MmioRegister.QueueNum, MmioRegister.QueueNotify, MmioRegister.InterruptAck,
            MmioRegister.QueueDescLow])
            Assert.Equal(0u, Driver.Read(register));
        foreach (var register in (MmioRegister[])[MmioRegister.MagicValue, MmioRegister.DeviceFeatures, MmioRegister.InterruptStatus,
            MmioRegister.ConfigGeneration])
            Driver.Write(register, uint.MaxValue);
        Assert.Equal(state, _rig.Mmio.State);
    }

    [Fact]
    public void A_device_that_cannot_go_on_asks_for_a_reset_and_gets_it()
    {
        Driver.Start();
        _rig.Mmio.NeedsReset("the backend is gone");
        Assert.Equal((DeviceStatus)0x4F, Driver.Status);
        Assert.Equal(InterruptCause.ConfigChange, Driver.HandleInterrupt());
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Rings[0].Publish();
        Driver.Ring(0);
        Assert.Equal(0UL, _rig.Ledger.Queues[0].Taken);
        Driver.Start();
        Assert.Equal((DeviceStatus)0xF, Driver.Status);
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Kick(0);
        Assert.Single(Driver.Rings[0].Collect());
    }

    [Fact]
    public void A_device_that_asks_for_a_reset_does_not_go_on_with_a_queue_that_was_reset_alone()
    {
        Driver.Start(VirtioFeatures.RingReset);
        _rig.Mmio.NeedsReset("the backend is gone");
        Driver.Write(MmioRegister.QueueSel, 0);
        Driver.Write(MmioRegister.QueueReset, 1);
        Driver.Rings[0].Clear();
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Rings[0].Publish();
        Driver.SetUpQueue(0, Driver.Rings[0]);
        Assert.Equal(0u, Driver.Read(MmioRegister.QueueReady));
        Driver.Ring(0);
        Assert.Equal(0UL, _rig.Ledger.Queues[0].Taken);
        Driver.Start();
        Driver.Rings[0].Add(Driver.Readable("x"u8), Driver.Writable(1));
        Driver.Kick(0);
        Assert.Single(Driver.Rings[0].Collect());
    }

    [Fact]
    public void A_ledger_for_other_queues_and_features_of_the_transport_are_refused()
    {
        Assert.Throws<ArgumentException>(() => new VirtioMmio(new EchoDevice(16), new VirtioLedger([32]), _rig.Memory, _rig.Line));
        var bold = new EchoDevice(16) { Features = VirtioFeatures.EventIndex };
        Assert.Throws<ArgumentException>(() => new VirtioMmio(bold, new VirtioLedger([16]), _rig.Memory, _rig.Line));
        Assert.Throws<ArgumentOutOfRangeException>(() => new VirtioLedger([2048]));
        Assert.Throws<ArgumentOutOfRangeException>(() => new VirtioLedger([48]));
    }

    private void WriteAddresses(ulong at)
    {
        (MmioRegister, ulong)[] places =
            [(MmioRegister.QueueDescLow, 0), (MmioRegister.QueueDriverLow, 0x1000), (MmioRegister.QueueDeviceLow, 0x2000)];
        foreach (var (register, offset) in places)
        {
            Driver.Write(register, (uint)(at + offset));
            Driver.Write(register + 4, (uint)((at + offset) >> 32));
        }
    }
}
