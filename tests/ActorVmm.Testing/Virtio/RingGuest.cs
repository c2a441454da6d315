using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// Machine code that drives a ring of an echo device by itself: initializes it, and then, round by round, makes one request available,
/// rings the doorbell, waits for the answer, and looks at it. It reports the rounds that were right, then the interrupts that it served.
/// </summary>
public static class RingGuest
{
    /// <summary>Entries of the ring that it sets up.</summary>
    public const int QueueSize = VirtioCode.QueueSize;

    private const byte Vector = 0x40;
    private const ulong Question = GuestLayout.Free + 0x3000;
    private const ulong Answer = GuestLayout.Free + 0x3100;

    private static readonly GuestQueue s_queue = new(0, GuestLayout.Free);

    /// <summary>Puts the program into a machine, ready to run.</summary>
    /// <param name="guest">The machine's pages.</param>
    /// <param name="window">The device's registers.</param>
    /// <param name="gsi">Its interrupt input; level-triggered.</param>
    /// <param name="rounds">Requests.</param>
    /// <param name="polls">Looks at the used index instead of waiting for interrupts, which it switches off.</param>
    public static void Load(TinyGuest guest, ulong window, int gsi, int rounds, bool polls)
    {
        ArgumentNullException.ThrowIfNull(guest);
        s_queue.Describe(guest, 0, Question, 8, GuestRing.Next, 1);
        s_queue.Describe(guest, 1, Answer, 8, GuestRing.Write);
        if (polls) guest.Write<ushort>(s_queue.Available, 1); // VIRTQ_AVAIL_F_NO_INTERRUPT
        guest.Handler(Vector, c => c.VirtioInterrupt(window));
        guest.Code(c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.WriteIoApic(gsi, Vector | VirtioCode.LevelTriggered);
            c.InitializeVirtio(window, 0, s_queue);
            c.xor(ebx, ebx);  // interrupts
            c.xor(r12d, r12d); // rounds that were right
            c.xor(r13d, r13d); // the round
            Rounds(c, window, rounds, polls);
            c.mov(eax, r12d);
            c.ReportEax();
            c.mov(eax, ebx);
            c.ReportEax();
            c.Done();
        });
        guest.Start64();
    }

    private static void Rounds(Assembler c, ulong window, int rounds, bool polls)
    {
        var (next, end, wrong) = (c.CreateLabel(), c.CreateLabel(), c.CreateLabel());
        c.Label(ref next);
        c.inc(r13d);
        // Another question each time, and an answer that is none.
        c.mov(rax, 0x1_0001_0001);
        c.imul(rax, r13);
        c.mov(__qword_ptr[Question], rax);
        c.xor(eax, eax);
        c.mov(__qword_ptr[Answer], rax);
        // The same head in every slot; those of the ring are zero from the start.
        c.mov(__word_ptr[s_queue.Available + 2], r13w);
        c.NotifyVirtio(window, s_queue);
        if (polls) WaitForUsed(c);
        else WaitForInterrupt(c);
        c.cmp(__word_ptr[s_queue.UsedIndex], r13w);
        c.jne(wrong);
        c.mov(rax, __qword_ptr[Question]);
        c.cmp(__qword_ptr[Answer], rax);
        c.jne(wrong);
        c.inc(r12d);
        c.Label(ref wrong);
        c.cmp(r13d, rounds);
        c.jb(next);
        c.jmp(end);
        c.Label(ref end);
        c.nop();
    }

    private static void WaitForUsed(Assembler c)
    {
        var wait = c.CreateLabel();
        c.Label(ref wait);
        c.pause();
        c.cmp(__word_ptr[s_queue.UsedIndex], r13w);
        c.jne(wait);
    }

    private static void WaitForInterrupt(Assembler c)
    {
        var (wait, come) = (c.CreateLabel(), c.CreateLabel());
        c.Label(ref wait);
        c.cli();
        c.cmp(ebx, r13d);
        c.jae(come);
        c.sti();
        c.hlt();
        c.jmp(wait);
        c.Label(ref come);
    }
}
