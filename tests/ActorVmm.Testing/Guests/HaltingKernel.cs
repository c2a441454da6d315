namespace ActorVmm.Testing.Guests;

/// <summary>The least kernel: an ELF64 of one segment that prints <c>!</c> on the serial port and halts with interrupts on, for ever.</summary>
public static class HaltingKernel
{
    /// <summary>The file.</summary>
    public static byte[] Elf()
    {
        // mov dx, 0x3f8; mov al, '!'; out dx, al; sti; hlt; jmp back to hlt
        byte[] code = [0x66, 0xBA, 0xF8, 0x03, 0xB0, (byte)'!', 0xEE, 0xFB, 0xF4, 0xEB, 0xFD];
        return TinyElf.Of(code);
    }

    /// <summary>The same for monitors that need a PVH entry; it halts with interrupts off, because it has no table for them.</summary>
    public static byte[] PvhElf()
    {
        // The same bytes in 32-bit mode, with cli for sti.
        byte[] code = [0x66, 0xBA, 0xF8, 0x03, 0xB0, (byte)'!', 0xEE, 0xFA, 0xF4, 0xEB, 0xFD];
        return TinyElf.WithPvhNote(code);
    }
}
