using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Testing.Guests;

/// <summary>Bits of a page table entry (SDM Vol. 3 §4.5).</summary>
[Flags]
public enum PageBits : ulong
{
    None = 0,
    Present = 1,
    Writable = 2,
    User = 4,
    Accessed = 0x20,
    Dirty = 0x40,
    Large = 0x80,
    Global = 0x100,
    NoExecute = 1UL << 63,
    KernelData = Present | Writable,
    UserData = Present | Writable | User,
}

/// <summary>Descriptor tables, page tables, and the handler that reports exceptions.</summary>
public sealed partial class TinyGuest
{
    // 104 bytes, 8 KiB of I/O permission bits, and the byte of ones that ends them (SDM Vol. 1 §19.5.2).
    private const uint TssLimit = 0x68 + 0x2000;
    private static readonly byte[] VectorsWithErrorCode = [8, 10, 11, 12, 13, 14, 17, 21];

    /// <summary>Sets a descriptor of the GDT.</summary>
    public void SetDescriptor(ushort selector, ulong descriptor) => Write(GuestLayout.Gdt + (ulong)(selector & ~7), descriptor);

    /// <summary>Maps the page at linear <paramref name="at"/> (of <see cref="GuestLayout.MappedArea"/>) and returns the address of its
    /// entry.</summary>
    /// <param name="size">4 KiB, 2 MiB or 1 GiB.</param>
    public ulong Map(ulong at, ulong physical, PageBits bits, ulong size = 4096)
    {
        var table = GuestLayout.Pml4;
        for (var level = 3; ; level--)
        {
            var slot = table + ((at >> (12 + (9 * level)) & 511) * 8);
            if (size == 1UL << (12 + (9 * level)))
            {
                Write(slot, physical | (ulong)(level > 0 ? bits | PageBits.Large : bits));
                return slot;
            }
            var next = Read<ulong>(slot);
            if ((next & 1) == 0)
            {
                next = _nextTable | (ulong)PageBits.UserData;
                _tables.Add(_nextTable);
                _nextTable += 4096;
                Write(slot, next);
            }
            table = next & 0x000F_FFFF_FFFF_F000;
        }
    }

    /// <summary>Lets ring 3 use a port (with IOPL 0), or forbids it again.</summary>
    public void AllowPort(ushort port, bool allow = true)
    {
        var at = GuestLayout.Tss + 0x68 + (ulong)(port / 8);
        var bit = (byte)(1 << (port % 8));
        var bits = Read<byte>(at);
        Write(at, (byte)(allow ? bits & ~bit : bits | bit));
    }

    private void WriteDescriptors()
    {
        SetDescriptor(GuestLayout.KernelCode, 0x00AF9B000000FFFF);
        SetDescriptor(GuestLayout.KernelData, 0x00CF93000000FFFF);
        SetDescriptor(GuestLayout.TaskState, 0x00008B000000_0000UL | (TssLimit & 0xFFFF) | (GuestLayout.Tss << 16));
        SetDescriptor(GuestLayout.TaskState + 8, 0);
        SetDescriptor(GuestLayout.KernelCode32, 0x00CF9B000000FFFF);
        SetDescriptor(GuestLayout.UserCode32, 0x00CFFB000000FFFF);
        SetDescriptor(GuestLayout.UserData, 0x00CFF3000000FFFF);
        SetDescriptor(GuestLayout.UserCode, 0x00AFFB000000FFFF);
        SetDescriptor(GuestLayout.AbsentCode, 0x00AF1B000000FFFF);
        SetDescriptor(GuestLayout.AbsentData, 0x00CF13000000FFFF);
        SetDescriptor(GuestLayout.KernelCode16, 0x00009B000000FFFF);
        SetDescriptor(GuestLayout.KernelData16, 0x000093000000FFFF);
        SetDescriptor(GuestLayout.ReadOnlyData, 0x00CF91000000FFFF);

        Write(GuestLayout.Tss + 0x04, GuestLayout.TrapStack);
        Write(GuestLayout.Tss + 0x24, GuestLayout.IstStack);
        Write(GuestLayout.Tss + 0x66, (ushort)0x68);
        for (ulong i = 0; i <= 0x2000; i++) Write<byte>(GuestLayout.Tss + 0x68 + i, 0xFF);
    }

    private void WriteIdentityMap()
    {
        const ulong table = (ulong)PageBits.KernelData;
        Write(GuestLayout.Pml4, GuestLayout.IdentityTables | table);
        for (ulong gib = 0; gib < 4; gib++)
        {
            var directory = GuestLayout.IdentityTables + 0x1000 + (gib * 0x1000);
            Write(GuestLayout.IdentityTables + (gib * 8), directory | table);
            for (ulong i = 0; i < 512; i++)
                Write(directory + (i * 8), (gib << 30) | (i << 21) | table | (ulong)PageBits.Large);
        }
    }

    /// <summary>Each exception reports eleven words and then goes on where <see cref="GuestCode.ExpectFault"/> said, or ends the
    /// run.</summary>
    private void WriteFaultHandler()
    {
        for (byte vector = 0; vector < 32; vector++)
        {
            var at = GuestLayout.FaultStubs + ((ulong)vector * 0x20);
            var number = vector;
            Place(at, c =>
            {
                if (Array.IndexOf(VectorsWithErrorCode, number) < 0) c.push(0);
                c.push((sbyte)number);
                c.jmp(GuestLayout.FaultHandler);
            });
            SetGate(vector, at);
        }
        Place(GuestLayout.FaultHandler, c =>
        {
            // Stack: rax, vector, error code, RIP, CS, RFLAGS, RSP, SS.
            c.push(rax);
            Word(8, high: false);
            Word(16, high: false);
            Quad(24);
            Word(32, high: false);
            c.mov(rax, cr2);
            c.@out((byte)GuestLayout.FaultPort, eax);
            c.shr(rax, 32);
            c.@out((byte)GuestLayout.FaultPort, eax);
            Quad(48);
            Quad(40);

            var stop = c.CreateLabel();
            c.mov(rax, __qword_ptr[GuestLayout.ResumeRip]);
            c.test(rax, rax);
            c.je(stop);
            c.mov(__qword_ptr[rsp + 24], rax);
            c.mov(__qword_ptr[rsp + 32], GuestLayout.KernelCode);
            c.mov(__qword_ptr[rsp + 40], 2);
            c.mov(rax, __qword_ptr[GuestLayout.ResumeRsp]);
            c.mov(__qword_ptr[rsp + 48], rax);
            c.mov(__qword_ptr[rsp + 56], GuestLayout.KernelData);
            c.xor(eax, eax);
            c.mov(__qword_ptr[GuestLayout.ResumeRip], rax);
            c.pop(rax);
            c.add(rsp, 16);
            c.iretq();
            c.Label(ref stop);
            c.@out((byte)GuestLayout.FaultEndPort, al);
            c.hlt();

            void Word(int offset, bool high)
            {
                c.mov(eax, __dword_ptr[rsp + offset + (high ? 4 : 0)]);
                c.@out((byte)GuestLayout.FaultPort, eax);
            }
            void Quad(int offset)
            {
                Word(offset, high: false);
                Word(offset, high: true);
            }
        });
    }
}
