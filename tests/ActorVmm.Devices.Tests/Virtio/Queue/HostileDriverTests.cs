using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Memory;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Devices.Tests.Virtio.Queue;

/// <summary>
/// What a hostile driver does to its queue: that queue is broken, the device asks for a reset and says so by a config interrupt, the other
/// queue and the rest of RAM are untouched, and after a reset everything works.
/// </summary>
public sealed class HostileDriverTests : IDisposable
{
    private const ushort Size = 16;
    private const ulong RamEnd = 16 << 20;

    private readonly VirtioRig<EchoDevice> _rig = new(() => new EchoDevice(Size, Size));

    public void Dispose() => _rig.Dispose();

    private VirtioDriver Driver => _rig.Driver;
    private GuestRing Ring => Driver.Rings[0];

    [Theory]
    [InlineData(8UL, 0UL, 0UL, QueueFault.RingMisaligned)]
    [InlineData(0UL, 1UL, 0UL, QueueFault.RingMisaligned)]
    [InlineData(0UL, 0UL, 2UL, QueueFault.RingMisaligned)]
    [InlineData(RamEnd, 0UL, 0UL, QueueFault.RingOutsideRam)]
    [InlineData(RamEnd - 16, 0UL, 0UL, QueueFault.RingOutsideRam)] // begins inside, ends outside
    [InlineData(0UL, RamEnd - 4, 0UL, QueueFault.RingOutsideRam)]
    [InlineData(0UL, 0UL, RamEnd - 4, QueueFault.RingOutsideRam)]
    [InlineData(0xFFFF_FFFF_FFFF_FFF0UL, 0UL, 0UL, QueueFault.RingOutsideRam)] // wraps
    [InlineData(0UL, 0xFFFF_FFFF_FFFF_FFFEUL, 0UL, QueueFault.RingOutsideRam)]
    [InlineData(0UL, 0UL, 0xFFFF_FFFF_FFFF_FFFCUL, QueueFault.RingOutsideRam)]
    [InlineData(GuestMemory.GapStart, 0UL, 0UL, QueueFault.RingOutsideRam)]
    public void Rings_in_the_wrong_place(ulong descriptors, ulong available, ulong used, QueueFault fault)
    {
        Driver.Negotiate(0);
        Driver.SetUpQueues();
        Driver.Write(MmioRegister.QueueSel, 0);
        Driver.Write(MmioRegister.QueueReady, 0);
        var offsets = ((MmioRegister, ulong, GuestAddress)[])
        [
            (MmioRegister.QueueDescLow, descriptors, Ring.Descriptors), (MmioRegister.QueueDriverLow, available, Ring.Available),
            (MmioRegister.QueueDeviceLow, used, Ring.Used),
        ];
        foreach (var (register, wrong, right) in offsets)
        {
            // Small numbers are added to the right place, large ones are the place.
            var at = wrong < 16 ? right.Value + wrong : wrong;
            Driver.Write(register, (uint)at);
            Driver.Write(register + 4, (uint)(at >> 32));
        }

        Driver.Write(MmioRegister.QueueReady, 1);
        Driver.AddStatus(DeviceStatus.DriverOk);
        AssertBroken(fault);
    }

    [Theory]
    [InlineData(Size + 1), InlineData(0x8000), InlineData(0xFFFF)]
    public void An_available_index_too_far_ahead_or_behind(int index)
    {
        Driver.Start(0);
        Ring.SetAvailableIndex((ushort)index);
        Driver.Ring(0);
        AssertBroken(QueueFault.AvailableIndexTooFar);
    }

    [Fact]
    public void A_driver_that_does_not_wait_for_its_answers()
    {
        // More requests than the queue has entries, made available while the device works on them and has published none.
        Driver.Start(0);
        for (var slot = 0; slot < Size; slot++)
        {
            Ring.SetDescriptor(slot, Ring.Tables, 4, GuestRing.Write, 0);
            Ring.SetAvailable(slot, (ushort)slot);
        }

        Ring.SetAvailableIndex(Size);
        _rig.Device.Hold = true;
        Driver.Ring(0);
        Ring.SetAvailableIndex(Size + 1);
        Driver.Ring(0);
        AssertBroken(QueueFault.AvailableIndexTooFar);
    }

    [Theory]
    [InlineData((int)Size), InlineData(0xFFFF)]
    public void A_head_beyond_the_table(int head)
    {
        Driver.Start(0);
        MakeAvailable((ushort)head);
        AssertBroken(QueueFault.DescriptorOutOfRange);
    }

    [Theory]
    [InlineData((int)Size), InlineData(0xFFFF)]
    public void A_next_beyond_the_table(int next)
    {
        Driver.Start(0);
        Ring.SetDescriptor(0, Ring.Tables, 4, GuestRing.Next, (ushort)next);
        MakeAvailable(0);
        AssertBroken(QueueFault.DescriptorOutOfRange);
    }

    [Fact]
    public void The_same_head_twice()
    {
        Driver.Start(0);
        Ring.SetDescriptor(0, Ring.Tables, 4, GuestRing.Write, 0);
        _rig.Device.Hold = true;
        MakeAvailable(0, 0);
        Assert.Single(_rig.Device.Held); // the first of them was sound
        AssertBroken(QueueFault.HeadInFlight);
    }

    [Theory]
    [InlineData(1), InlineData(2), InlineData((int)Size)]
    public void A_chain_that_is_a_loop(int length)
    {
        Driver.Start(0);
        for (var i = 0; i < length; i++) Ring.SetDescriptor(i, Ring.Tables, 4, GuestRing.Next, (ushort)((i + 1) % length));
        MakeAvailable(0);
        AssertBroken(QueueFault.ChainTooLong);
    }

    [Theory]
    [InlineData(0x100_0000UL, 1u)]                  // the first byte after RAM
    [InlineData(RamEnd - 4, 5u)]
    [InlineData(0UL, uint.MaxValue)]
    [InlineData(0xFFFF_FFFF_FFFF_FFFFUL, 1u)]
    [InlineData(0xFFFF_FFFF_FFFF_FF00UL, 0x200u)]   // wraps
    [InlineData(GuestMemory.GapStart, 16u)]
    public void A_buffer_outside_ram(ulong address, uint length)
    {
        foreach (var direction in (ushort[])[0, GuestRing.Write])
        {
            Driver.Start(0);
            Ring.SetDescriptor(0, new GuestAddress(address), length, direction, 0);
            MakeAvailable(0);
            AssertBroken(QueueFault.BufferOutsideRam);
        }
    }

    [Fact]
    public void A_readable_buffer_after_a_writable_one()
    {
        Driver.Start(0);
        Ring.SetDescriptor(0, Ring.Tables, 4, GuestRing.Write | GuestRing.Next, 1);
        Ring.SetDescriptor(1, Ring.Tables, 4, 0, 0);
        MakeAvailable(0);
        AssertBroken(QueueFault.ReadableAfterWritable);
    }

    [Fact]
    public void Indirect_tables_that_are_not_allowed()
    {
        BrokenIndirect(0, QueueFault.IndirectNotNegotiated, 16, GuestRing.Indirect);
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.IndirectLength, 0, GuestRing.Indirect);
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.IndirectLength, 17, GuestRing.Indirect);
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.IndirectWithNext, 16, GuestRing.Indirect | GuestRing.Next);
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.IndirectOutsideRam, 0xFFFF_FFF0, GuestRing.Indirect);
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.IndirectOutsideRam, 16, GuestRing.Indirect, 0xFFFF_FFFF_FFFF_FFFF);
        // Inside the table: nested, out of range, and a loop.
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.IndirectNested, 16, GuestRing.Indirect,
            inner: (GuestRing.Indirect, 0));
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.DescriptorOutOfRange, 16, GuestRing.Indirect,
            inner: (GuestRing.Next, 1));
        BrokenIndirect(VirtioFeatures.IndirectDescriptors, QueueFault.ChainTooLong, 16, GuestRing.Indirect, inner: (GuestRing.Next, 0));
    }

    [Fact]
    public void An_indirect_table_longer_than_the_queue_with_a_chain_as_long()
    {
        Driver.Start(VirtioFeatures.IndirectDescriptors);
        for (var i = 0; i <= Size; i++)
            Ring.SetDescriptor(Ring.Tables + (ulong)(16 * i), Ring.Tables, 4, GuestRing.Next, (ushort)(i + 1));
        Ring.SetDescriptor(0, Ring.Tables, 16 * (Size + 2), GuestRing.Indirect, 0);
        MakeAvailable(0);
        AssertBroken(QueueFault.ChainTooLong);
    }

    [Fact]
    public void Chained_descriptors_may_end_in_an_indirect_one()
    {
        Driver.Start(VirtioFeatures.IndirectDescriptors);
        var (text, answer) = (Driver.Readable("mixed"u8), Driver.Writable(5));
        Ring.SetDescriptor(3, text.Address, 5, GuestRing.Next, 7);
        Ring.SetDescriptor(7, Ring.Tables, 16, GuestRing.Indirect | GuestRing.Write, 0); // the write flag means nothing here
        Ring.SetDescriptor(Ring.Tables, answer.Address, 5, GuestRing.Write, 0);
        MakeAvailable(3);
        Assert.Equal(QueueFault.None, _rig.Mmio.Queue(0).Fault);
        Assert.Equal("mixed"u8.ToArray(), Driver.Bytes(answer));
    }

    [Fact]
    public void Empty_buffers_are_no_buffers_wherever_they_lie()
    {
        Driver.Start(0);
        Ring.SetDescriptor(0, new GuestAddress(ulong.MaxValue), 0, GuestRing.Next, 1);
        Ring.SetDescriptor(1, Ring.Tables, 0, GuestRing.Write, 0);
        MakeAvailable(0);
        Assert.Equal(QueueFault.None, _rig.Mmio.Queue(0).Fault);
        Assert.Equal(1, Ring.UsedIndex);
    }

    [Fact]
    public void A_broken_queue_is_mended_by_a_reset_of_that_queue_alone()
    {
        Driver.Start(VirtioFeatures.RingReset);
        MakeAvailable(Size);
        AssertBroken(QueueFault.DescriptorOutOfRange);
        Driver.Write(MmioRegister.QueueSel, 0);
        Driver.Write(MmioRegister.QueueReset, 1);
        Assert.Equal((DeviceStatus)0xF, Driver.Status);
        Ring.Clear();
        Driver.SetUpQueue(0, Ring);
        Assert.True(Works(0));
    }

    private void BrokenIndirect(ulong features, QueueFault fault, uint length, ushort flags, ulong? at = null,
        (ushort Flags, ushort Next)? inner = null)
    {
        Driver.Start(features);
        Ring.SetDescriptor(Ring.Tables, Ring.Tables, 4, inner?.Flags ?? 0, inner?.Next ?? 0);
        Ring.SetDescriptor(0, at is { } elsewhere ? new GuestAddress(elsewhere) : Ring.Tables, length, flags, 0);
        MakeAvailable(0);
        AssertBroken(fault);
    }

    private void MakeAvailable(params ReadOnlySpan<ushort> heads)
    {
        for (var i = 0; i < heads.Length; i++) Ring.SetAvailable(Ring.AvailableIndex + i, heads[i]);
        Ring.SetAvailableIndex((ushort)(Ring.AvailableIndex + heads.Length));
        Driver.Ring(0);
    }

    private void AssertBroken(QueueFault fault)
    {
        Assert.Null(_rig.LastFailure);
        Assert.Equal(fault, _rig.Mmio.Queue(0).Fault);
        Assert.False(_rig.Mmio.Queue(0).IsLive);
        Assert.True((Driver.Status & DeviceStatus.NeedsReset) != 0);
        Assert.Equal(InterruptCause.ConfigChange, Driver.HandleInterrupt());
        Driver.Ring(0); // again, and nothing happens
        Assert.Equal(InterruptCause.None, Driver.HandleInterrupt());
        _rig.Device.Hold = false;
        Assert.True(Works(1)); // the other queue lives on
        _rig.Restart();        // and a restart does not mend the broken one
        Assert.True((Driver.Status & DeviceStatus.NeedsReset) != 0);
        Assert.Equal(fault, _rig.Mmio.Queue(0).Fault);
    }

    private bool Works(int queue)
    {
        var answer = Driver.Writable(2);
        Driver.Rings[queue].Add(Driver.Readable("ok"u8), answer);
        Driver.Rings[queue].Publish();
        Driver.Ring(queue);
        Driver.HandleInterrupt();
        return Driver.Rings[queue].Collect().Count == 1 && Driver.Bytes(answer).AsSpan().SequenceEqual("ok"u8);
    }
}
