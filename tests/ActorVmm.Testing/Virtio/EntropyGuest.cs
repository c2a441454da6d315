using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// Machine code that asks an entropy device for 64 bytes, round by round, and looks whether it got all of them and whether they are others
/// than last time. It reports the rounds in which that was so, then the interrupts.
/// </summary>
public static class EntropyGuest
{
    private const uint Length = 64;
    private const byte Vector = 0x40;
    private const ulong Bytes = GuestLayout.Free + 0x4000;

    private static readonly GuestQueue s_queue = new(0, GuestLayout.Free);

    /// <summary>Puts the program into a machine, ready to run.</summary>
    /// <param name="guest">The machine's pages.</param>
    /// <param name="window">The device's registers.</param>
    /// <param name="gsi">Its interrupt input; level-triggered.</param>
    /// <param name="rounds">Requests.</param>
    public static void Load(TinyGuest guest, ulong window, int gsi, int rounds)
    {
        ArgumentNullException.ThrowIfNull(guest);
        s_queue.Describe(guest, 0, Bytes, Length, GuestRing.Write);
        guest.Handler(Vector, c => c.VirtioInterrupt(window));
        guest.Code(c =>
        {
            var (next, wrong) = (c.CreateLabel(), c.CreateLabel());
            c.MaskPic();
            c.EnableLocalApic();
            c.WriteIoApic(gsi, Vector | VirtioCode.LevelTriggered);
            c.InitializeVirtio(window, 0, s_queue);
            c.xor(ebx, ebx);   // interrupts
            c.xor(r12d, r12d); // rounds that were right
            c.xor(r13d, r13d); // the round
            c.Label(ref next);
            c.mov(r14, __qword_ptr[Bytes]);
            c.mov(r15, __qword_ptr[Bytes + Length - 8]);
            c.inc(r13d);
            c.mov(__word_ptr[s_queue.Available + 2], r13w);
            c.mov(ebp, ebx);
            c.NotifyVirtio(window, s_queue);
            c.HaltUntil(s_queue.UsedIndex, r13w, before: ebp);
            c.lea(rdi, __[r13 - 1]);
            c.and(edi, VirtioCode.QueueSize - 1);
            c.cmp(__dword_ptr[(rdi * 8) + (int)(s_queue.Used + 8)], Length);
            c.jne(wrong);
            c.cmp(__qword_ptr[Bytes], r14);
            c.je(wrong);
            c.cmp(__qword_ptr[Bytes + Length - 8], r15);
            c.je(wrong);
            c.inc(r12d);
            c.Label(ref wrong);
            c.cmp(r13d, rounds);
            c.jb(next);
            c.mov(eax, r12d);
            c.ReportEax();
            c.mov(eax, ebx);
            c.ReportEax();
            c.Done();
        });
        guest.Start64();
    }
}
