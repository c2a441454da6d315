using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Testing.Guests;

/// <summary>What nearly every tiny guest does, as macros for Iced's assembler.</summary>
public static class GuestCode
{
    /// <summary>Reports EAX.</summary>
    public static void ReportEax(this Assembler c) => c.@out((byte)GuestLayout.ReportPort, eax);

    /// <summary>Reports RAX; clobbers CF and OF.</summary>
    public static void ReportRax(this Assembler c)
    {
        c.@out((byte)GuestLayout.ReportLowPort, eax);
        c.ror(rax, 32);
        c.@out((byte)GuestLayout.ReportHighPort, eax);
        c.ror(rax, 32);
    }

    /// <summary>Reports a constant; clobbers RAX.</summary>
    public static void Report(this Assembler c, uint value)
    {
        c.mov(eax, value);
        c.ReportEax();
    }

    /// <summary>Ends the run. A whole VM stays to be looked at: with interrupts off its halt would be for good, and end it.</summary>
    public static void Done(this Assembler c)
    {
        c.@out((byte)GuestLayout.DonePort, al);
        var here = c.CreateLabel();
        c.Label(ref here);
        c.sti();
        c.hlt();
        c.jmp(here);
    }

    /// <summary>Asks the test for action <paramref name="number"/>; clobbers AL.</summary>
    public static void Act(this Assembler c, byte number)
    {
        c.mov(al, number);
        c.@out((byte)GuestLayout.ActionPort, al);
    }

    /// <summary>After the next fault (in whatever ring) go on at <paramref name="label"/> in ring 0 with this RSP; clobbers RAX.</summary>
    public static void ExpectFault(this Assembler c, Label label)
    {
        c.lea(rax, __[label]);
        c.mov(__qword_ptr[GuestLayout.ResumeRip], rax);
        c.mov(__qword_ptr[GuestLayout.ResumeRsp], rsp);
    }

    /// <summary>WRMSR; clobbers RAX, RCX, RDX.</summary>
    public static void WriteMsr(this Assembler c, uint index, ulong value)
    {
        c.mov(ecx, index);
        c.mov(eax, (uint)value);
        c.mov(edx, (uint)(value >> 32));
        c.wrmsr();
    }

    /// <summary>RDMSR into RAX; clobbers RCX, RDX.</summary>
    public static void ReadMsr(this Assembler c, uint index)
    {
        c.mov(ecx, index);
        c.rdmsr();
        c.shl(rdx, 32);
        c.or(rax, rdx);
    }

    /// <summary>Stores to a register of the local or I/O APIC page; clobbers RAX, RDX.</summary>
    public static void WriteMmio32(this Assembler c, ulong address, uint value)
    {
        c.mov(edx, (uint)address);
        c.mov(eax, value);
        c.mov(__dword_ptr[rdx], eax);
    }

    /// <summary>Loads such a register into EAX; clobbers RDX.</summary>
    public static void ReadMmio32(this Assembler c, ulong address)
    {
        c.mov(edx, (uint)address);
        c.mov(eax, __dword_ptr[rdx]);
    }

    /// <summary>Sets an entry of the I/O APIC's redirection table; clobbers RAX, RDX.</summary>
    public static void WriteIoApic(this Assembler c, int pin, ulong entry)
    {
        c.WriteMmio32(GuestLayout.IoApic, (uint)(0x10 + (pin * 2) + 1));
        c.WriteMmio32(GuestLayout.IoApic + 0x10, (uint)(entry >> 32));
        c.WriteMmio32(GuestLayout.IoApic, (uint)(0x10 + (pin * 2)));
        c.WriteMmio32(GuestLayout.IoApic + 0x10, (uint)entry);
    }

    /// <summary>Switches the local APIC on (spurious vector 0xFF); clobbers RAX, RDX.</summary>
    public static void EnableLocalApic(this Assembler c) => c.WriteMmio32(GuestLayout.LocalApic + 0xF0, 0x1FF);

    /// <summary>End of interrupt; clobbers RAX, RDX.</summary>
    public static void EndOfInterrupt(this Assembler c) => c.WriteMmio32(GuestLayout.LocalApic + 0xB0, 0);

    /// <summary>Masks all inputs of both 8259s; clobbers AL.</summary>
    public static void MaskPic(this Assembler c)
    {
        c.mov(al, 0xFF);
        c.@out(0x21, al);
        c.@out(0xA1, al);
    }

    /// <summary>Puts a byte to a port below 256; clobbers AL.</summary>
    public static void OutByte(this Assembler c, byte port, byte value)
    {
        c.mov(al, value);
        c.@out(port, al);
    }
}
