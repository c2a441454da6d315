using System.Buffers.Binary;

namespace ActorVmm.Boot.Acpi;

/// <summary>Resource descriptors of a _CRS (ACPI 6.5 §6.4).</summary>
public sealed class ResourceWriter
{
    private readonly List<byte> _bytes = [];

    /// <summary>I/O port range with 16-bit decoding (§6.4.2.5).</summary>
    /// <param name="port">First port.</param>
    /// <param name="length">Ports.</param>
    public ResourceWriter Io(ushort port, byte length)
    {
        Span<byte> io = [0x47, 0x01, 0, 0, 0, 0, 1, length];
        BinaryPrimitives.WriteUInt16LittleEndian(io[2..], port);
        BinaryPrimitives.WriteUInt16LittleEndian(io[4..], port);
        _bytes.AddRange(io);
        return this;
    }

    /// <summary>ISA interrupt, edge triggered, active high, exclusive (§6.4.2.1).</summary>
    /// <param name="irq">0 to 15.</param>
    public ResourceWriter IsaIrq(int irq)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)irq, 15u, nameof(irq));
        _bytes.AddRange([0x22, (byte)(1 << irq), (byte)((1 << irq) >> 8)]);
        return this;
    }

    /// <summary>Fixed 32-bit memory range, read-write (§6.4.3.4).</summary>
    public ResourceWriter Memory32Fixed(uint address, uint length)
    {
        Span<byte> memory = [0x86, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        BinaryPrimitives.WriteUInt32LittleEndian(memory[4..], address);
        BinaryPrimitives.WriteUInt32LittleEndian(memory[8..], length);
        _bytes.AddRange(memory);
        return this;
    }

    /// <summary>Extended interrupt for its consumer, active high, exclusive (§6.4.3.6).</summary>
    /// <param name="gsi">Global system interrupt.</param>
    /// <param name="edge">Edge instead of level triggered.</param>
    public ResourceWriter Interrupt(uint gsi, bool edge = false)
    {
        Span<byte> interrupt = [0x89, 6, 0, (byte)(edge ? 0b0011 : 0b0001), 1, 0, 0, 0, 0];
        BinaryPrimitives.WriteUInt32LittleEndian(interrupt[5..], gsi);
        _bytes.AddRange(interrupt);
        return this;
    }

    /// <summary>All descriptors and the end tag, its checksum 0 = not used (§6.4.2.9).</summary>
    public byte[] ToArray() => [.. _bytes.ToArray(), 0x79, 0];
}
