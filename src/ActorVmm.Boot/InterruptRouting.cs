namespace ActorVmm.Boot;

/// <summary>
/// The one rule of how interrupt lines reach the I/O APIC, told alike by the MP table and the MADT: line n is GSI n is pin n, save that the
/// interval timer (ISA IRQ 0) arrives at pin 2, as on every PC since the 440FX. The cascade (ISA IRQ 2) is no interrupt of its own. A
/// machine whose timer output drives line 0 therefore delivers it to 8259 input 0 and to I/O APIC pin <see cref="TimerPin"/>; on KVM that
/// is a KVM_SET_GSI_ROUTING entry, because KVM's default table sends GSI 0 to pin 0.
/// </summary>
public static class InterruptRouting
{
    /// <summary>I/O APIC pin, and so GSI, of ISA IRQ 0.</summary>
    public const int TimerPin = 2;

    /// <summary>System control interrupt of ACPI: ISA IRQ 9 = GSI 9, level triggered, active high.</summary>
    public const int Sci = 9;

    /// <summary>Pins of the I/O APIC.</summary>
    public const int IoApicPins = 24;

    /// <summary>The I/O APIC pin of a line; null for the cascade, which has none.</summary>
    public static int? PinOf(int line) => line switch { 0 => TimerPin, TimerPin => null, _ => line };
}
