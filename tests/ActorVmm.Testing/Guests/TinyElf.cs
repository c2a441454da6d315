using System.Buffers.Binary;

namespace ActorVmm.Testing.Guests;

/// <summary>An ELF64 executable of one segment: a kernel for guests of a few instructions.</summary>
public static class TinyElf
{
    private const ulong Entry = 0x10_0000;

    /// <summary>
    /// The same for monitors that enter an ELF by the PVH protocol only: with the note that names the entry, in 32-bit protected mode.
    /// </summary>
    public static byte[] WithPvhNote(ReadOnlySpan<byte> code)
    {
        const int note = 64 + 2 * 56;
        var elf = Of(code);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(56), 2);
        var segment = elf.AsSpan(64 + 56);
        BinaryPrimitives.WriteUInt32LittleEndian(segment, 4); // PT_NOTE
        BinaryPrimitives.WriteUInt64LittleEndian(segment[8..], note);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[32..], 20);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[40..], 20);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[48..], 4);
        var content = elf.AsSpan(note);
        BinaryPrimitives.WriteUInt32LittleEndian(content, 4); // "Xen" with its end
        BinaryPrimitives.WriteUInt32LittleEndian(content[4..], 4);
        BinaryPrimitives.WriteUInt32LittleEndian(content[8..], 18); // XEN_ELFNOTE_PHYS32_ENTRY
        "Xen\0"u8.CopyTo(content[12..]);
        BinaryPrimitives.WriteUInt32LittleEndian(content[16..], (uint)Entry);
        return elf;
    }

    /// <summary>The file that loads <paramref name="code"/> at 1 MiB and enters it there, in 64-bit mode.</summary>
    public static byte[] Of(ReadOnlySpan<byte> code)
    {
        const int header = 64, segment = 56, at = 0x1000;
        var elf = new byte[at + code.Length];
        byte[] ident = [0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1];
        ident.CopyTo(elf, 0);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(16), 2); // ET_EXEC
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(18), 62); // x86-64
        BinaryPrimitives.WriteUInt32LittleEndian(elf.AsSpan(20), 1);
        BinaryPrimitives.WriteUInt64LittleEndian(elf.AsSpan(24), Entry);
        BinaryPrimitives.WriteUInt64LittleEndian(elf.AsSpan(32), header);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(52), header);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(54), segment);
        BinaryPrimitives.WriteUInt16LittleEndian(elf.AsSpan(56), 1);
        var load = elf.AsSpan(header);
        BinaryPrimitives.WriteUInt32LittleEndian(load, 1); // PT_LOAD
        BinaryPrimitives.WriteUInt32LittleEndian(load[4..], 5); // R X
        BinaryPrimitives.WriteUInt64LittleEndian(load[8..], at);
        BinaryPrimitives.WriteUInt64LittleEndian(load[16..], Entry);
        BinaryPrimitives.WriteUInt64LittleEndian(load[24..], Entry);
        BinaryPrimitives.WriteUInt64LittleEndian(load[32..], (ulong)code.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(load[40..], (ulong)code.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(load[48..], at);
        code.CopyTo(elf.AsSpan(at));
        return elf;
    }
}
