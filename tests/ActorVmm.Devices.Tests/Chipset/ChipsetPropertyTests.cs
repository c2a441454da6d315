using ActorVmm.Devices.Chipset;
using ActorVmm.Testing.Devices;
using CsCheck;
using Xunit;

namespace ActorVmm.Devices.Tests.Chipset;

/// <summary>Whatever a guest does to the chips throws nothing, and their state is all there is to them.</summary>
public sealed class ChipsetPropertyTests
{
    static readonly int[] Sizes = [0, 1, 2, 4, 4, 4, 8];

    static readonly Gen<(int Kind, ulong At, int Size, ulong Value)[]> Steps = Gen.Select(
        Gen.Int[0, 9],
        Gen.Frequency((9, Gen.ULong[0, 0x400]), (1, Gen.ULong)),
        Gen.Int[0, 6].Select(i => Sizes[i]),
        Gen.Frequency((3, Gen.ULong[0, 0x1FFFF]), (1, Gen.ULong))).Array[0, 150];

    [Fact]
    public void Local_apic_and_io_apic() => Steps.Sample(steps =>
    {
        var rig = new ApicRig(2, 2_000_000_000).Enable();
        foreach (var (kind, at, size, value) in steps)
        {
            var apic = rig.Apics[(int)(value & 1)];
            switch (kind)
            {
                case 0 or 1: apic.WriteMmio(at, size, value); break;
                case 2: apic.WriteMmio(at & 0x3F0, 4, value); break;
                case 3: apic.ReadMmio(at, size); break;
                case 4: apic.TryWriteMsr(0x800 + (uint)(at & 0xFF), value); break;
                case 5: apic.TrySetApicBase((apic.ApicBase & ~0xC00UL) | (value & 0xC00)); break;
                case 6:
                    rig.IoApic.Write(at & 0x1F, size, value);
                    rig.IoApic.Read(at & 0x1F, size);
                    break;
                case 7: rig.IoApic.SetLine((int)(at % 26), (value & 1) != 0); break;
                case 8: rig.Bus.DeliverMsi(0xFEE0_0000 | (value & 0xFFFFC), (uint)at); break;
                default:
                    if (apic.PendingVector is { } pending) Assert.Equal(pending, apic.Acknowledge());
                    apic.TscDeadline = value;
                    rig.Clock.Advance(value & 0xFFFF);
                    foreach (var each in rig.Apics) each.Advance(rig.Clock.Nanoseconds);
                    break;
            }
        }

        foreach (var apic in rig.Apics)
        {
            var copy = new LocalApic(apic.Id, rig.Bus, new RecordingApicCore(), rig.Clock, 2_000_000_000, false) { State = apic.State };
            Assert.Equal(apic.State, copy.State);
            Assert.Equal(apic.PendingVector, copy.PendingVector);
            Assert.Equal(apic.ProcessorPriority, copy.ProcessorPriority);
            Assert.Equal(apic.Deadline, copy.Deadline);
            Assert.NotEmpty(apic.ToString());

            var page = new byte[1024];
            apic.ExportRegisters(page);
            copy.ImportRegisters(page);
            var again = new byte[1024];
            copy.ExportRegisters(again);
            Assert.Equal(page, again);
        }

        var ioApic = new IoApic(rig.Bus) { State = rig.IoApic.State };
        Assert.Equal(rig.IoApic.State, ioApic.State);
        Assert.NotEmpty(ioApic.ToString());
    });

    [Fact]
    public void Dual_pic() => Steps.Sample(steps =>
    {
        ushort[] ports = [0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x22];
        var line = new RecordingLine();
        var pic = new DualPic(line);
        foreach (var (kind, at, _, value) in steps)
        {
            var port = ports[at % 7];
            switch (kind)
            {
                case <= 3: pic.WritePort(port, (byte)value); break;
                case <= 5: pic.ReadPort(port); break;
                case <= 8: pic.SetLine((int)(at % 18) - 1, (value & 1) != 0); break;
                default: pic.Acknowledge(); break;
            }

            Assert.Equal(pic.InterruptRequested, line.Asserted);
        }

        var copyLine = new RecordingLine();
        var copy = new DualPic(copyLine) { State = pic.State };
        Assert.Equal(pic.State, copy.State);
        Assert.Equal(line.Asserted, copyLine.Asserted);
        Assert.NotEmpty(pic.ToString());
    });

    [Fact]
    public void Timer_and_clock() => Steps.Sample(steps =>
    {
        ushort[] ports = [0x40, 0x41, 0x42, 0x43, 0x43, 0x61, 0x44];
        var clock = new ManualClock();
        var (irq0, irq8) = (new RecordingLine(), new RecordingLine());
        var pit = new Pit8254(irq0, clock);
        var rtc = new CmosRtc(irq8, clock);
        foreach (var (kind, at, size, value) in steps)
        {
            switch (kind)
            {
                case <= 2: pit.WritePort(ports[at % 7], (byte)value); break;
                case 3: pit.ReadPort(ports[at % 7]); break;
                case <= 5:
                    rtc.Write(0, 1, at & 0x7F);
                    rtc.Write(1, 1, value);
                    break;
                case 6: rtc.Read(at, size); break;
                case 7: rtc.Write(at, size, value); break;
                default:
                    clock.Advance(value & 0xFFFF_FFFF_FFFF);
                    pit.Advance(clock.Nanoseconds);
                    rtc.Advance(clock.Nanoseconds);
                    break;
            }

            // What is due is in the future once it was served.
            Assert.True(pit.Deadline is not { } due || due > clock.Nanoseconds || NotServed(pit, clock));
        }

        var pitLine = new RecordingLine();
        var pitCopy = new Pit8254(pitLine, clock) { State = pit.State };
        Assert.Equal(pit.State, pitCopy.State);
        Assert.Equal(irq0.Asserted, pitLine.Asserted);
        var rtcLine = new RecordingLine();
        var rtcCopy = new CmosRtc(rtcLine, clock) { State = rtc.State };
        Assert.Equal(rtc.State, rtcCopy.State);
        Assert.Equal(irq8.Asserted, rtcLine.Asserted);
        Assert.Equal(rtc.Deadline, rtcCopy.Deadline);
        Assert.NotEmpty(pit.ToString() + rtc);
    });

    static bool NotServed(Pit8254 pit, ManualClock clock)
    {
        pit.Advance(clock.Nanoseconds);
        return pit.Deadline is not { } due || due > clock.Nanoseconds;
    }
}
