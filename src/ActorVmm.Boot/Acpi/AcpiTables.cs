using System.Buffers.Binary;
using System.Text;

namespace ActorVmm.Boot.Acpi;

/// <summary>
/// The ACPI tables of the machine as one block: RSDP first (ACPI 6.5 §5.2.5), then FACS, XSDT, FADT, MADT and DSDT. Not hardware-reduced:
/// the 8259, the 8254 and the PM registers exist.
/// </summary>
public static class AcpiTables
{
    /// <summary>Most CPUs that the MADT is given; ids from 255 need x2APIC.</summary>
    public const int MaxCpus = 2048;

    private const int RsdpSize = 36;
    private const int HeaderSize = 36;
    private const int FacsSize = 64;
    private const int FadtSize = 276;

    /// <summary>Builds the block for the address it will have.</summary>
    /// <param name="at">Guest physical address, 64-byte aligned; the RSDP lies there.</param>
    /// <param name="machine">What to describe.</param>
    /// <param name="room">Bytes that the block may have.</param>
    /// <exception cref="BootException">A device lies where it cannot be described, or the block is too large.</exception>
    public static byte[] Build(ulong at, AcpiMachine machine, ulong room = MemoryLayout.AcpiEnd - MemoryLayout.Acpi)
    {
        ArgumentNullException.ThrowIfNull(machine);
        ArgumentOutOfRangeException.ThrowIfNotEqual(at % 64, 0UL, nameof(at));
        Check(machine);

        var facsAt = at + 64;
        var dsdtAt = facsAt + FacsSize;
        var dsdt = Table("DSDT", 2, Dsdt.Build(machine));
        var madtAt = AlignUp(dsdtAt + (ulong)dsdt.Length);
        var madt = Table("APIC", 5, Madt(machine));
        var fadtAt = AlignUp(madtAt + (ulong)madt.Length);
        var fadt = Table("FACP", 6, Fadt(machine, facsAt, dsdtAt));
        var xsdtAt = AlignUp(fadtAt + (ulong)fadt.Length);
        var xsdt = Table("XSDT", 1, Xsdt(fadtAt, madtAt));

        var size = xsdtAt + (ulong)xsdt.Length - at;
        if (size > room)
            throw BootException.Hex("ACPI", "size", size, $"the tables have 0x{room:x} bytes of room; describe fewer devices");
        var block = new byte[size];
        Put(at, Rsdp(xsdtAt));
        Put(facsAt, Facs());
        Put(dsdtAt, dsdt);
        Put(madtAt, madt);
        Put(fadtAt, fadt);
        Put(xsdtAt, xsdt);
        return block;

        void Put(ulong address, byte[] table) => table.CopyTo(block.AsSpan((int)(address - at)));
        static ulong AlignUp(ulong value) => (value + 15) & ~15UL;
    }

    private static void Check(AcpiMachine machine)
    {
        if (machine.CpuCount is < 1 or > MaxCpus)
            throw new BootException("ACPI", "cpus", $"{machine.CpuCount}", $"1 to {MaxCpus} CPUs can be described");
        if (machine.VirtioMmio.Count > 0x1000)
            throw new BootException("ACPI", "virtio-mmio", $"{machine.VirtioMmio.Count}", "at most 4096 devices have names");
        var taken = new List<(string Name, ulong Start, ulong Size)>
        {
            ("the I/O APIC", MemoryLayout.IoApic, 0x1000), ("the local APIC", MemoryLayout.LocalApic, 0x1000),
        };
        if (machine.Pvpanic is { } panic) Claim("pvpanic", panic, 0x1000);
        for (var i = 0; i < machine.VirtioMmio.Count; i++)
        {
            var slot = machine.VirtioMmio[i];
            Claim($"virtio-mmio {i}", slot.Address.Value, slot.Size);
            if (slot.Gsi is < 0 or >= InterruptRouting.IoApicPins)
                throw new BootException("ACPI", $"virtio-mmio {i} GSI", $"{slot.Gsi}", $"GSIs are 0 to {InterruptRouting.IoApicPins - 1}");
        }

        void Claim(string name, ulong start, ulong size)
        {
            if (size == 0 || start > uint.MaxValue || size > 0x1_0000_0000 - start || start % 4 != 0)
                throw BootException.Hex("ACPI", name, start, $"0x{size:x} bytes must lie 4-byte aligned below 4 GiB");
            foreach (var other in taken)
                if (start < other.Start + other.Size && other.Start < start + size)
                    throw BootException.Hex("ACPI", name, start, $"overlaps {other.Name} at 0x{other.Start:x}");
            taken.Add((name, start, size));
        }
    }

    /// <summary>System description table header (§5.2.6) around <paramref name="body"/>.</summary>
    private static byte[] Table(string signature, byte revision, byte[] body)
    {
        var table = new byte[HeaderSize + body.Length];
        Encoding.ASCII.GetBytes(signature).CopyTo(table, 0);
        BinaryPrimitives.WriteUInt32LittleEndian(table.AsSpan(4), (uint)table.Length);
        table[8] = revision;
        "ACTVMM"u8.CopyTo(table.AsSpan(10));
        "ACTORVMM"u8.CopyTo(table.AsSpan(16));
        BinaryPrimitives.WriteUInt32LittleEndian(table.AsSpan(24), 1);
        "AVMM"u8.CopyTo(table.AsSpan(28));
        BinaryPrimitives.WriteUInt32LittleEndian(table.AsSpan(32), 1);
        body.CopyTo(table, HeaderSize);
        table[9] = Checksum.Complement(table);
        return table;
    }

    /// <summary>Root system description pointer, revision 2 (§5.2.5.3): a checksum over the first 20 bytes and one over all.</summary>
    private static byte[] Rsdp(ulong xsdt)
    {
        var rsdp = new byte[RsdpSize];
        "RSD PTR "u8.CopyTo(rsdp);
        "ACTVMM"u8.CopyTo(rsdp.AsSpan(9));
        rsdp[15] = 2;
        BinaryPrimitives.WriteUInt32LittleEndian(rsdp.AsSpan(20), RsdpSize);
        BinaryPrimitives.WriteUInt64LittleEndian(rsdp.AsSpan(24), xsdt);
        rsdp[8] = Checksum.Complement(rsdp.AsSpan(0, 20));
        rsdp[32] = Checksum.Complement(rsdp);
        return rsdp;
    }

    /// <summary>Firmware control structure (§5.2.10); it has no checksum.</summary>
    private static byte[] Facs()
    {
        var facs = new byte[FacsSize];
        "FACS"u8.CopyTo(facs);
        BinaryPrimitives.WriteUInt32LittleEndian(facs.AsSpan(4), FacsSize);
        facs[32] = 2;
        return facs;
    }

    private static byte[] Xsdt(params ReadOnlySpan<ulong> tables)
    {
        var body = new byte[8 * tables.Length];
        for (var i = 0; i < tables.Length; i++) BinaryPrimitives.WriteUInt64LittleEndian(body.AsSpan(8 * i), tables[i]);
        return body;
    }

    /// <summary>Fixed description table, revision 6 (§5.2.9). Offsets are those of the specification; the body begins at 36.</summary>
    private static byte[] Fadt(AcpiMachine machine, ulong facs, ulong dsdt)
    {
        var t = new byte[FadtSize]; // with room for the header, so that offsets read as in the specification
        U32(36, (uint)facs);
        U32(40, (uint)dsdt);
        t[45] = 0;                                              // preferred PM profile: unspecified
        U16(46, InterruptRouting.Sci);
        U32(56, AcpiMachine.Pm1aEvent);
        U32(64, AcpiMachine.Pm1aControl);
        U32(76, AcpiMachine.PmTimer);
        t[88] = 4;                                              // PM1_EVT_LEN
        t[89] = 2;                                              // PM1_CNT_LEN
        t[91] = 4;                                              // PM_TMR_LEN
        U16(96, 0xFFFF);                                        // no C2
        U16(98, 0xFFFF);                                        // no C3
        t[108] = machine.Rtc ? (byte)0x32 : (byte)0;            // CENTURY in CMOS
        // IAPC_BOOT_ARCH (table 5.10): legacy devices, 8042, no VGA, CMOS clock absent.
        const int LegacyDevices = 1, Has8042 = 1 << 1, NoVga = 1 << 2, NoCmosClock = 1 << 5;
        U16(109, (ushort)(LegacyDevices | NoVga | (machine.Keyboard ? Has8042 : 0) | (machine.Rtc ? 0 : NoCmosClock)));
        // Flags (table 5.9): WBINVD works, C1 everywhere, no fixed sleep button, no fixed RTC wake, reset register. Bit 4 stays clear: the
        // PM1 event block has a power button.
        const uint Wbinvd = 1, C1 = 1 << 2, NoSleepButton = 1 << 5, NoFixedRtc = 1 << 6, ResetRegister = 1 << 10;
        U32(112, Wbinvd | C1 | NoSleepButton | NoFixedRtc | ResetRegister);
        Port(116, AcpiMachine.ResetPort, bits: 8, access: 1);
        t[128] = AcpiMachine.ResetValue;
        t[131] = 5;                                             // minor version: 6.5
        BinaryPrimitives.WriteUInt64LittleEndian(t.AsSpan(140), dsdt);
        Port(148, AcpiMachine.Pm1aEvent, bits: 32, access: 2);
        Port(172, AcpiMachine.Pm1aControl, bits: 16, access: 2);
        Port(208, AcpiMachine.PmTimer, bits: 32, access: 3);
        return t[HeaderSize..];

        void U16(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(t.AsSpan(at), value);
        void U32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(t.AsSpan(at), value);

        // Generic address structure (§5.2.3.2): space 1 = system I/O, width, offset 0, access size (1 byte, 2 word, 3 doubleword).
        void Port(int at, ushort port, byte bits, byte access)
        {
            (t[at], t[at + 1], t[at + 2], t[at + 3]) = (1, bits, 0, access);
            BinaryPrimitives.WriteUInt64LittleEndian(t.AsSpan(at + 4), port);
        }
    }

    /// <summary>Interrupt controllers (§5.2.12) after <see cref="InterruptRouting"/>; with 8259s (PCAT_COMPAT).</summary>
    private static byte[] Madt(AcpiMachine machine)
    {
        using var bytes = new MemoryStream();
        U32((uint)MemoryLayout.LocalApic);
        U32(1); // PCAT_COMPAT
        const uint Enabled = 1;
        for (var cpu = 0u; cpu < machine.CpuCount; cpu++)
        {
            // An APIC id of 255 is the broadcast address of xAPIC: from there on only x2APIC entries can say it.
            if (cpu < 255) bytes.Write([0, 8, (byte)cpu, (byte)cpu]);
            else bytes.Write([9, 16, 0, 0]);
            if (cpu >= 255) U32(cpu);
            U32(Enabled);
            if (cpu >= 255) U32(cpu);
        }

        bytes.Write([1, 12, 0, 0]);
        U32((uint)MemoryLayout.IoApic);
        U32(0); // first GSI

        const byte ConformsToBus = 0, LevelActiveHigh = 0b1101;
        Override(irq: 0, gsi: InterruptRouting.TimerPin, flags: ConformsToBus);
        Override(irq: InterruptRouting.Sci, gsi: InterruptRouting.Sci, flags: LevelActiveHigh);
        bytes.Write([4, 6, 0xFF, 0, 0, 1]); // NMI at LINT1 of every processor
        return bytes.ToArray();

        void Override(byte irq, uint gsi, byte flags)
        {
            bytes.Write([2, 10, 0, irq]);
            U32(gsi);
            bytes.Write([flags, 0]);
        }

        void U32(uint value)
        {
            Span<byte> raw = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(raw, value);
            bytes.Write(raw);
        }
    }
}
