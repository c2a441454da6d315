using ActorVmm.Devices.Chipset;

namespace ActorVmm.Testing.Devices;

/// <summary>A machine's interrupt hardware without its processors: n local APICs, an I/O APIC and the bus, on a manual clock.</summary>
public sealed class ApicRig
{
    public ApicRig(int cpus = 1, ulong tscFrequencyHz = 1_000_000_000)
    {
        Bus = new ApicBus(new Lock());
        IoApic = new IoApic(Bus);
        Bus.Attach(IoApic);
        Cores = [.. Enumerable.Range(0, cpus).Select(_ => new RecordingApicCore())];
        Apics = [.. Cores.Select((core, i) => new LocalApic((uint)i, Bus, core, Clock, tscFrequencyHz, bootProcessor: i == 0))];
        foreach (var apic in Apics) Bus.Attach(apic);
    }

    public ManualClock Clock { get; } = new();
    public ApicBus Bus { get; }
    public IoApic IoApic { get; }
    public LocalApic[] Apics { get; }
    public RecordingApicCore[] Cores { get; }

    /// <summary>Switches every local APIC on, spurious vector 0xFF, as an operating system does.</summary>
    public ApicRig Enable()
    {
        foreach (var apic in Apics) Write(apic, LocalApicRegister.SpuriousVector, 0x1FF);
        return this;
    }

    /// <summary>Goes to x2APIC mode everywhere.</summary>
    public ApicRig EnableX2Apic()
    {
        foreach (var apic in Apics)
        {
            apic.TrySetApicBase(apic.ApicBase | (1 << 10));
            apic.TryWriteMsr(0x80F, 0x1FF);
        }

        return this;
    }

    public static void Write(LocalApic apic, LocalApicRegister register, uint value) => apic.WriteMmio((ulong)register << 4, 4, value);

    public static uint Read(LocalApic apic, LocalApicRegister register) => (uint)apic.ReadMmio((ulong)register << 4, 4);

    /// <summary>Writes both halves of a redirection entry, high first, as drivers do.</summary>
    public void Redirect(int pin, ulong entry)
    {
        IoApic.Write(0, 4, (ulong)(0x11 + 2 * pin));
        IoApic.Write(0x10, 4, entry >> 32);
        IoApic.Write(0, 4, (ulong)(0x10 + 2 * pin));
        IoApic.Write(0x10, 4, entry & uint.MaxValue);
    }
}
