using System.Buffers.Binary;

namespace ActorVmm.Testing.Guests;

/// <summary>The least kernel: an ELF64 of one segment that prints <c>!</c> on the serial port and halts with interrupts on, for ever.</summary>
public static class HaltingKernel
{
    private const ulong Entry = 0x10_0000;

    /// <summary>The file.</summary>
    public static byte[] Elf()
    {
        // mov dx, 0x3f8; mov al, '!'; out dx, al; sti; hlt; jmp back to hlt
        byte[] code = [0x66, 0xBA, 0xF8, 0x03, 0xB0, (byte)'!', 0xEE, 0xFB, 0xF4, 0xEB, 0xFD];
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
        code.CopyTo(elf, at);
        return elf;
    }
}
