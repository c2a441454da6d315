using ActorVmm.Devices.Virtio.Mmio;
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
    public const int QueueSize = 16;

    private const byte Vector = 0x40;
    private const ulong LevelTriggered = 1 << 15;
    private const ulong Descriptors = GuestLayout.Free;
    private const ulong Available = GuestLayout.Free + 0x1000;
    private const ulong Used = GuestLayout.Free + 0x2000;
    private const ulong Question = GuestLayout.Free + 0x3000;
    private const ulong Answer = GuestLayout.Free + 0x3100;

    /// <summary>Puts the program into a machine, ready to run.</summary>
    /// <param name="guest">The machine's pages.</param>
    /// <param name="window">The device's registers.</param>
    /// <param name="gsi">Its interrupt input; level-triggered.</param>
    /// <param name="rounds">Requests.</param>
    /// <param name="polls">Looks at the used index instead of waiting for interrupts, which it switches off.</param>
    public static void Load(TinyGuest guest, ulong window, int gsi, int rounds, bool polls)
    {
        ArgumentNullException.ThrowIfNull(guest);
        guest.Write(Descriptors, Question);
        guest.Write(Descriptors + 8, 8u | ((ulong)GuestRing.Next << 32) | (1UL << 48));
        guest.Write(Descriptors + 16, Answer);
        guest.Write(Descriptors + 24, 8u | ((ulong)GuestRing.Write << 32));
        if (polls) guest.Write<ushort>(Available, 1); // VIRTQ_AVAIL_F_NO_INTERRUPT
        guest.Handler(Vector, c => Interrupt(c, window));
        guest.Code(c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.WriteIoApic(gsi, Vector | LevelTriggered);
            Initialize(c, window);
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

    private static void Initialize(Assembler c, ulong window)
    {
        void Write(MmioRegister register, uint value) => c.WriteMmio32(window + (ulong)register, value);

        foreach (var status in (uint[])[0, 1, 3]) Write(MmioRegister.Status, status);
        Write(MmioRegister.DriverFeaturesSel, 1);
        Write(MmioRegister.DriverFeatures, 1); // VERSION_1
        Write(MmioRegister.Status, 0xB);
        Write(MmioRegister.QueueSel, 0);
        Write(MmioRegister.QueueNum, QueueSize);
        Write(MmioRegister.QueueDescLow, (uint)Descriptors);
        Write(MmioRegister.QueueDriverLow, (uint)Available);
        Write(MmioRegister.QueueDeviceLow, (uint)Used);
        Write(MmioRegister.QueueReady, 1);
        Write(MmioRegister.Status, 0xF);
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
        c.mov(__word_ptr[Available + 2], r13w);
        c.mfence();
        c.WriteMmio32(window + (ulong)MmioRegister.QueueNotify, 0);
        if (polls) WaitForUsed(c);
        else WaitForInterrupt(c);
        c.cmp(__word_ptr[Used + 2], r13w);
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
        c.cmp(__word_ptr[Used + 2], r13w);
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

    /// <summary>Reads and acknowledges the cause; an interrupt without one does not count.</summary>
    private static void Interrupt(Assembler c, ulong window)
    {
        var none = c.CreateLabel();
        c.push(rax);
        c.push(rdx);
        c.ReadMmio32(window + (ulong)MmioRegister.InterruptStatus);
        c.test(eax, eax);
        c.je(none);
        c.mov(edx, (uint)(window + (ulong)MmioRegister.InterruptAck));
        c.mov(__dword_ptr[rdx], eax);
        c.inc(ebx);
        c.Label(ref none);
        c.EndOfInterrupt();
        c.pop(rdx);
        c.pop(rax);
        c.iretq();
    }
}
