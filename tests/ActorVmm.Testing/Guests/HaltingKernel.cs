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
}
