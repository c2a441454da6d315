using System.Buffers.Binary;
using System.Text;
using ActorVmm.Memory;

namespace ActorVmm.Boot;

/// <summary>
/// The MP floating pointer and configuration table (Intel MultiProcessor Specification 1.4, chapter 4), for kernels that read no ACPI.
/// Interrupts follow <see cref="InterruptRouting"/>: ISA IRQ 0 arrives at pin 2, IRQ 2 has no entry, every other IRQ i arrives at pin i;
/// edge triggered and active high, as the bus says.
/// </summary>
public sealed class MpTable
{
    public const int PointerSize = 16;
    public const int HeaderSize = 44;
    public const int ProcessorSize = 20;
    public const int EntrySize = 8;

    /// <summary>Most CPUs: their APIC ids and the I/O APIC's must fit a byte below the broadcast id.</summary>
    public const int MaxCpus = 254;

    private readonly int _cpus;
    private readonly int _irqs;

    /// <param name="cpus">Processors; APIC ids 0 to <paramref name="cpus"/> - 1.</param>
    /// <param name="maxIrq">Highest interrupt line, 23 for a standard I/O APIC.</param>
    /// <exception cref="BootException">More than <see cref="MaxCpus"/> CPUs, or line 255, whose count passes a byte.</exception>
    public MpTable(int cpus, byte maxIrq = InterruptRouting.IoApicPins - 1)
    {
        if (cpus is < 0 or > MaxCpus) throw new BootException("MP table", "cpus", $"{cpus}", $"at most {MaxCpus} CPUs can be described");
        if (maxIrq == byte.MaxValue) throw new BootException("MP table", "max irq", $"{maxIrq}", "interrupt lines end at 254");
        (_cpus, _irqs) = (cpus, maxIrq + 1);
    }

    /// <summary>Interrupt source entries: one per line save the cascade.</summary>
    public int InterruptEntries => Enumerable.Range(0, _irqs).Count(irq => InterruptRouting.PinOf(irq) is not null);

    /// <summary>Bytes of the configuration table, without the floating pointer.</summary>
    public int TableSize => HeaderSize + ProcessorSize * _cpus + EntrySize * (2 + InterruptEntries + 2);

    /// <summary>
    /// Writes the pointer to the start of the EBDA, and the table behind it where it fits the EBDA's one KiB, else to
    /// <see cref="MemoryLayout.BigMpTable"/>. Both places are reserved in e820.
    /// </summary>
    /// <exception cref="BootException">The place is not RAM.</exception>
    public void Write(GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        const ulong Behind = MemoryLayout.Ebda + PointerSize;
        Write(memory, new GuestAddress(MemoryLayout.Ebda),
            new GuestAddress(Behind + (ulong)TableSize <= MemoryLayout.EbdaEnd ? Behind : MemoryLayout.BigMpTable));
    }

    /// <summary>Writes the floating pointer and the table to given places.</summary>
    /// <exception cref="BootException">A place is not RAM, or the table lies above 4 GiB.</exception>
    public void Write(GuestMemory memory, GuestAddress pointerAt, GuestAddress tableAt)
    {
        ArgumentNullException.ThrowIfNull(memory);
        var table = BuildTable();
        if (tableAt.Value > uint.MaxValue || !memory.Contains(tableAt, (ulong)table.Length) || !memory.Contains(pointerAt, PointerSize))
            throw new BootException("MP table", "address", $"{pointerAt}",
                $"0x{PointerSize + table.Length:x} bytes of RAM are needed there");
        memory.TryWrite(tableAt, table);
        memory.TryWrite(pointerAt, BuildPointer((uint)tableAt.Value));
    }

    /// <summary>The floating pointer structure (§4.1).</summary>
    public static byte[] BuildPointer(uint tableAddress)
    {
        var pointer = new byte[PointerSize];
        "_MP_"u8.CopyTo(pointer);
        BinaryPrimitives.WriteUInt32LittleEndian(pointer.AsSpan(4), tableAddress);
        pointer[8] = PointerSize / 16;
        pointer[9] = 4; // specification 1.4
        pointer[10] = Checksum.Complement(pointer);
        return pointer;
    }

    /// <summary>The configuration table (§4.2, §4.3).</summary>
    public byte[] BuildTable()
    {
        var table = new byte[TableSize];
        var at = HeaderSize;
        var entries = 0;
        for (var cpu = 0; cpu < _cpus; cpu++)
        {
            var entry = Next(ProcessorSize);
            entry[0] = 0;
            entry[1] = (byte)cpu;
            entry[2] = 0x14;                                                    // local APIC version
            entry[3] = (byte)(cpu == 0 ? 3 : 1);                                // enabled, boot processor
            BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], 0x600);        // family 6
            BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], 0x201);        // FPU, APIC
        }

        var bus = Next(EntrySize);
        bus[0] = 1;
        "ISA   "u8.CopyTo(bus[2..]);

        var ioApicId = (byte)(_cpus + 1);
        var ioApic = Next(EntrySize);
        (ioApic[0], ioApic[1], ioApic[2], ioApic[3]) = (2, ioApicId, 0x14, 1);  // version, enabled
        BinaryPrimitives.WriteUInt32LittleEndian(ioApic[4..], (uint)MemoryLayout.IoApic);

        for (var irq = 0; irq < _irqs; irq++)
        {
            if (InterruptRouting.PinOf(irq) is not { } pin) continue;
            var source = Next(EntrySize);
            (source[0], source[1], source[5], source[6], source[7]) = (3, 0, (byte)irq, ioApicId, (byte)pin);
        }

        Local(type: 3, apic: 0, lint: 0);       // ExtINT from the 8259 to LINT0 of the boot processor
        Local(type: 1, apic: 0xFF, lint: 1);    // NMI to LINT1 of every processor

        var header = table.AsSpan(0, HeaderSize);
        "PCMP"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt16LittleEndian(header[4..], (ushort)table.Length);
        header[6] = 4;
        Encoding.ASCII.GetBytes("ACTORVMM").CopyTo(header[8..]);
        Encoding.ASCII.GetBytes("MICROVM     ").CopyTo(header[16..]);
        BinaryPrimitives.WriteUInt16LittleEndian(header[34..], (ushort)entries);
        BinaryPrimitives.WriteUInt32LittleEndian(header[36..], (uint)MemoryLayout.LocalApic);
        header[7] = Checksum.Complement(table);
        return table;

        Span<byte> Next(int size)
        {
            var entry = table.AsSpan(at, size);
            at += size;
            entries++;
            return entry;
        }

        void Local(byte type, byte apic, byte lint)
        {
            var local = Next(EntrySize);
            (local[0], local[1], local[6], local[7]) = (4, type, apic, lint);
        }
    }
}
