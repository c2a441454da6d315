using System.Buffers.Binary;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// Machine code that is its own driver of a virtio disk and trusts nothing. In each round it makes four requests available at once: it
/// writes a sector, reads the two that it wrote in the rounds before, and flushes. It then halts until the used index has come to where it
/// must, and looks at the status of each, at the used elements (each head once, each length), and at every byte that was read. A round in
/// which anything is wrong is reported: what (1 a status, 2 the used elements, 3 or 4 what was read) in the uppermost byte, its number below,
/// and the four status bytes in the lower half. At the end come the number of rounds that were right, and that of the interrupts.
/// </summary>
public static class BlockGuest
{
    /// <summary>Sectors that it uses; all of them are written every <see cref="Sectors"/> rounds.</summary>
    public const int Sectors = 1024;

    /// <summary>Requests of a round.</summary>
    public const int Requests = 4;

    private const int SectorSize = 512;
    private const ulong Stride = 7;
    private const ulong Factor = 0x9E37_79B9_7F4A_7C15; // odd: no two rounds write the same
    private const byte Vector = 0x40;

    private const ulong WriteHeader = GuestLayout.Free + 0x4000, ReadHeader = WriteHeader + 0x20, FlushHeader = WriteHeader + 0x40,
        AgainHeader = WriteHeader + 0x60, Statuses = WriteHeader + 0x80;
    private const ulong WriteData = GuestLayout.Free + 0x5000, ReadData = WriteData + SectorSize, AgainData = ReadData + SectorSize;
    private const ushort WriteHead = 0, ReadHead = 3, FlushHead = 6, AgainHead = 8;
    private const uint Heads = 1 << WriteHead | 1 << ReadHead | 1 << FlushHead | 1 << AgainHead;
    private const uint Lengths = 1 + (SectorSize + 1) + 1 + (SectorSize + 1);

    private static readonly GuestQueue s_queue = new(0, GuestLayout.Free);

    /// <summary>What the sectors are before round 1: the two that round 1 reads have what rounds 0 and -1 would have written.</summary>
    public static byte[] Before() => After(0);

    /// <summary>What the sectors are after so many rounds.</summary>
    public static byte[] After(int rounds)
    {
        var image = new byte[Sectors * SectorSize];
        for (var round = Math.Max(-1, rounds - Sectors + 1); round <= rounds; round++)
        {
            var number = unchecked((ulong)round);
            var at = (int)(number * Stride % Sectors) * SectorSize;
            for (var i = 0; i < SectorSize / 8; i++)
                BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(at + (i * 8)), unchecked((number * Factor) + (ulong)i));
        }
        return image;
    }

    /// <summary>Puts the program into a machine, ready to run.</summary>
    /// <param name="guest">The machine's pages.</param>
    /// <param name="window">The disk's registers.</param>
    /// <param name="gsi">Its interrupt input; level-triggered.</param>
    /// <param name="rounds">Rounds of <see cref="Requests"/> requests.</param>
    public static void Load(TinyGuest guest, ulong window, int gsi, int rounds)
    {
        ArgumentNullException.ThrowIfNull(guest);
        Request(guest, WriteHead, BlockRequestType.Out, WriteHeader, WriteData, 0);
        Request(guest, ReadHead, BlockRequestType.In, ReadHeader, ReadData, 1);
        Request(guest, FlushHead, BlockRequestType.Flush, FlushHeader, null, 2);
        Request(guest, AgainHead, BlockRequestType.In, AgainHeader, AgainData, 3);
        s_queue.Offer(guest, WriteHead, ReadHead, FlushHead, AgainHead);
        guest.Handler(Vector, c => c.VirtioInterrupt(window));
        guest.Code(c =>
        {
            var (next, wrong, looked) = (c.CreateLabel(), c.CreateLabel(), c.CreateLabel());
            c.MaskPic();
            c.EnableLocalApic();
            c.WriteIoApic(gsi, Vector | VirtioCode.LevelTriggered);
            c.InitializeVirtio(window, (uint)BlockFeatures.Flush, s_queue);
            c.xor(ebx, ebx);   // interrupts
            c.xor(r12d, r12d); // rounds that were right
            c.xor(r13d, r13d); // the round
            c.xor(r14d, r14d); // where the used index must come to
            c.Label(ref next);
            c.inc(r13d);
            Sector(WriteHeader, 0);
            Sector(ReadHeader, 1);
            Sector(AgainHeader, 2);
            c.mov(__dword_ptr[Statuses], -1);
            Pattern(0);
            c.StoreRun(WriteData, SectorSize / 8);
            c.add(r14d, Requests);
            c.mov(__word_ptr[s_queue.Available + 2], r14w);
            c.mov(r15d, ebx);
            c.NotifyVirtio(window, s_queue);
            c.HaltUntil(s_queue.UsedIndex, r14w, before: r15d);
            c.mov(r11d, 1); // what is looked at
            c.cmp(__dword_ptr[Statuses], 0);
            c.jne(wrong);
            c.inc(r11d);
            UsedElements();
            c.inc(r11d);
            Pattern(1);
            c.CompareRun(ReadData, SectorSize / 8, wrong);
            c.inc(r11d);
            Pattern(2);
            c.CompareRun(AgainData, SectorSize / 8, wrong);
            c.inc(r12d);
            c.jmp(looked);
            c.Label(ref wrong);
            c.mov(rax, r11);
            c.shl(rax, 24);
            c.or(rax, r13);
            c.shl(rax, 32);
            c.mov(ecx, __dword_ptr[Statuses]);
            c.or(rax, rcx);
            c.ReportRax();
            c.Label(ref looked);
            c.cmp(r13d, rounds);
            c.jb(next);
            c.mov(eax, r12d);
            c.ReportEax();
            c.mov(eax, ebx);
            c.ReportEax();
            c.Done();

            // The sector of the round before this one, or of the one before that.
            void Sector(ulong header, int back)
            {
                c.lea(rax, __[r13 - back]);
                c.imul(rax, rax, (int)Stride);
                c.and(eax, Sectors - 1);
                c.mov(__qword_ptr[header + 8], rax);
            }

            // Into RAX, what that round wrote first.
            void Pattern(int back)
            {
                c.mov(rax, Factor);
                c.lea(rcx, __[r13 - back]);
                c.imul(rax, rcx);
            }

            // The four elements of this round lie side by side: the ring holds four rounds.
            void UsedElements()
            {
                var element = c.CreateLabel();
                c.lea(rdi, __[r13 - 1]);
                c.and(edi, (VirtioCode.QueueSize / Requests) - 1);
                c.shl(edi, 5);
                c.add(rdi, (int)(s_queue.Used + 4));
                c.xor(esi, esi); // heads
                c.xor(ebp, ebp); // lengths
                c.mov(edx, Requests);
                c.Label(ref element);
                c.mov(ecx, __dword_ptr[rdi]);
                c.mov(eax, 1);
                c.shl(eax, cl);
                c.or(esi, eax);
                c.add(ebp, __dword_ptr[rdi + 4]);
                c.add(rdi, 8);
                c.dec(edx);
                c.jne(element);
                c.cmp(esi, Heads);
                c.jne(wrong);
                c.cmp(ebp, Lengths);
                c.jne(wrong);
            }
        });
        guest.Start64();
    }

    private static void Request(TinyGuest guest, ushort head, BlockRequestType type, ulong header, ulong? data, int status)
    {
        guest.Write(header, (ulong)type);
        var at = head;
        s_queue.Describe(guest, at, header, 16, GuestRing.Next, (ushort)(at + 1));
        at++;
        if (data is { } place)
        {
            var flags = type == BlockRequestType.In ? GuestRing.Next | GuestRing.Write : GuestRing.Next;
            s_queue.Describe(guest, at, place, SectorSize, (ushort)flags, (ushort)(at + 1));
            at++;
        }
        s_queue.Describe(guest, at, Statuses + (ulong)status, 1, GuestRing.Write);
    }
}
