using ActorVmm.Backends.Polling;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Hypervisor.Tests.Kvm;

/// <summary>
/// The same ring guest with event file descriptors both ways: the doorbell is an ioeventfd, the interrupt an irqfd that falls at the end of
/// interrupt and rises again where the device still wants service. The device runs on the poller's thread alone.
/// </summary>
public sealed class KvmRingByEvents : Conformance<KvmSubject>
{
    private const ulong Window = 0xD000_0000;
    private const int Gsi = 10;
    private const int Rounds = 300;

    [SkippableTheory]
    [InlineData(false), InlineData(true)]
    public void Doorbell_by_ioeventfd_and_interrupt_by_irqfd(bool polls)
    {
        var guest = Guest();
        var machine = (KvmMachine)guest.Machine;
        using var poller = new EventPoller(static loop => new Thread(() => loop()) { IsBackground = true, Name = "poller" }.Start());
        using var line = new IrqfdLine(machine.CreateInterruptEvent(Gsi, resample: true), poller);
        var type = new EchoDevice(RingGuest.QueueSize);
        var device = new VirtioMmio(type, new VirtioLedger(type.QueueSizes), guest.Memory, line);
        using var doorbell = machine.TryCreateDoorbell(new DoorbellAddress(Window + (ulong)MmioRegister.QueueNotify, IsPort: false,
            Size: 4, Match: 0))
            ?? throw new InvalidOperationException("KVM makes doorbells");
        using var watch = poller.Watch(doorbell.FileDescriptor, () => { lock (device) device.OnDoorbell(0); });

        var notifyExits = 0;
        guest.Answer = access =>
        {
            lock (device) return device.Read(access.Address - Window, access.Size);
        };
        RingGuest.Load(guest, Window, Gsi, Rounds, polls);
        var run = RunTo(GuestEnd.Done, guest, access =>
        {
            if (access.Kind != VcpuExitKind.MmioWrite) return false;
            if (access.Address == Window + (ulong)MmioRegister.QueueNotify) notifyExits++;
            lock (device) device.Write(access.Address - Window, access.Size, access.Data);
            return false;
        });

        Assert.Equal([(ulong)Rounds, polls ? 0UL : Rounds], run.Reports);
        Assert.Equal(0, notifyExits);
        Assert.Equal(Rounds, device.Notifications);
    }
}
