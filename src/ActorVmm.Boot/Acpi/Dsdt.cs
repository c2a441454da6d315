namespace ActorVmm.Boot.Acpi;

/// <summary>
/// The definition block of the machine: its sleep state and the devices that no bus enumerates. There is no PCI host bridge.
/// </summary>
internal static class Dsdt
{
    private const ulong PresentAndWorking = 0x0F; // _STA: present, decoding, shown, functioning (ACPI 6.5 §6.3.7)

    public static byte[] Build(AcpiMachine machine)
    {
        var aml = new AmlWriter();
        aml.Name("\\_S5", value => value.Package(AcpiMachine.SleepTypeS5, AcpiMachine.SleepTypeS5, 0, 0));
        aml.Scope("\\_SB", sb =>
        {
            IsaDevice(sb, "COM1", "PNP0501", irq: 4, (0x3F8, 8));
            if (machine.Keyboard) IsaDevice(sb, "KBD", "PNP0303", irq: 1, (0x60, 1), (0x64, 1));
            if (machine.Rtc) IsaDevice(sb, "RTC", "PNP0B00", irq: 8, (0x70, 2));
            if (machine.Pvpanic is { } panic)
                sb.Device("PEVT", device => device
                    .Name("_HID", "QEMU0001")
                    .Name("_STA", PresentAndWorking)
                    .Name("_CRS", crs => crs.Resources(r => r.Memory32Fixed((uint)panic, 0x1000))));
            for (var i = 0; i < machine.VirtioMmio.Count; i++) VirtioMmio(sb, i, machine.VirtioMmio[i]);
        });
        return aml.ToArray();
    }

    private static void IsaDevice(AmlWriter sb, string name, string hid, int irq, params (ushort Port, byte Length)[] ports) =>
        sb.Device(name, device =>
        {
            device.Name("_HID", id => id.EisaId(hid)).Name("_UID", 1).Name("_STA", PresentAndWorking);
            device.Name("_CRS", crs => crs.Resources(r =>
            {
                foreach (var (port, length) in ports) r.Io(port, length);
                r.IsaIrq(irq);
            }));
        });

    private static void VirtioMmio(AmlWriter sb, int index, VirtioMmioSlot slot) =>
        sb.Device($"V{index:X3}", device => device
            .Name("_HID", "LNRO0005")
            .Name("_UID", (ulong)index)
            .Name("_CCA", 1) // DMA is cache coherent
            .Name("_STA", PresentAndWorking)
            .Name("_CRS", crs => crs.Resources(r => r
                .Memory32Fixed((uint)slot.Address.Value, slot.Size)
                .Interrupt((uint)slot.Gsi))));
}
