using ActorVmm.Devices.Chipset;
using ActorVmm.Devices.I8042;
using ActorVmm.Devices.Power;
using Xunit;

namespace ActorVmm.Devices.Tests.Chipset;

/// <summary>Accesses, interrupts and timers leave nothing for the garbage collector.</summary>
public sealed class ChipsetAllocationTests
{
    readonly Quiet _quiet = new();

    [Fact]
    public void An_interrupts_way_from_line_to_eoi_allocates_nothing()
    {
        var bus = new ApicBus(new Lock());
        var ioApic = new IoApic(bus);
        var apic = new LocalApic(0, bus, _quiet, _quiet, 2_000_000_000, bootProcessor: true);
        bus.Attach(ioApic);
        bus.Attach(apic);
        apic.WriteMmio(0xF0, 4, 0x1FF);
        apic.WriteMmio(0x320, 4, 0x40031);
        ioApic.Write(0, 4, 0x10 + 2 * 10);
        ioApic.Write(0x10, 4, 0x805A);
        AssertAllocatesNothing(() =>
        {
            ioApic.SetLine(10, true);
            var vector = apic.PendingVector;
            apic.Acknowledge();
            ioApic.SetLine(10, false);
            apic.WriteMmio(0xB0, 4, 0);
            apic.WriteMmio(0x300, 4, 0x40041);
            apic.Acknowledge();
            apic.WriteMmio(0xB0, 4, 0);
            apic.TscDeadline = 1 + (ulong)vector!.Value;
            apic.Advance(_quiet.Nanoseconds);
            bus.DeliverMsi(0xFEE0_0000, 0x61);
            _ = apic.State;
        });
    }

    [Fact]
    public void Ports_of_the_other_chips_allocate_nothing()
    {
        var pic = new DualPic(_quiet);
        var pit = new Pit8254(_quiet, _quiet);
        var rtc = new CmosRtc(_quiet, _quiet);
        var acpi = new AcpiPower(_quiet, _quiet, _quiet);
        var i8042 = new KeyboardController(_quiet, _quiet);
        AssertAllocatesNothing(() =>
        {
            pic.SetLine(12, true);
            pic.Acknowledge();
            pic.SetLine(12, false);
            pic.WritePort(DualPic.SlaveCommand, 0x20);
            pic.WritePort(DualPic.MasterCommand, 0x20);
            pit.WritePort(0x43, 0x34);
            pit.WritePort(0x40, 0x10);
            pit.WritePort(0x40, 0x10);
            pit.ReadPort(0x61);
            _quiet.Nanoseconds += 100_000;
            pit.Advance(_quiet.Nanoseconds);
            rtc.Write(0, 1, 0);
            rtc.Read(1, 1);
            rtc.Advance(_quiet.Nanoseconds);
            _ = rtc.Deadline;
            acpi.Read(8, 4);
            acpi.PressPowerButton();
            i8042.Write(4, 1, 0x20);
            i8042.Read(0, 1);
            i8042.PressCtrlAltDel();
            i8042.Read(0, 1);
            _ = (pic.State, pit.State, rtc.State, acpi.State, i8042.State);
        });
    }

    static void AssertAllocatesNothing(Action work)
    {
        work(); // first use
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 1000; i++) work();
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    sealed class Quiet : IInterruptLine, IClock, IApicCore, IPowerControl
    {
        public ulong Nanoseconds { get; set; }
        public ulong BootUnixNanoseconds => 0;
        public void Drive(bool level) { }
        public void InterruptRequested() { }
        public void NmiRequested() { }
        public void InitRequested() { }
        public void StartupRequested(byte vector) { }
        public void SmiRequested() { }
        public void Request(PowerEvent powerEvent) { }
    }
}
