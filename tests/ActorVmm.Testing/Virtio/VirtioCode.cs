using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Testing.Virtio;

/// <summary>A virtqueue of <see cref="VirtioCode.QueueSize"/> entries in a tiny guest's RAM: three pages from <paramref name="At"/>.</summary>
/// <param name="Index">Its number in its device.</param>
/// <param name="At">First page.</param>
public readonly record struct GuestQueue(int Index, ulong At)
{
    public ulong Descriptors => At;
    public ulong Available => At + 0x1000;
    public ulong Used => At + 0x2000;

    /// <summary>The used index.</summary>
    public ulong UsedIndex => Used + 2;

    /// <summary>Writes one descriptor; the flags of <see cref="GuestRing"/>.</summary>
    public void Describe(TinyGuest guest, int number, ulong address, uint length, ushort flags, ushort next = 0)
    {
        ArgumentNullException.ThrowIfNull(guest);
        guest.Write(Descriptors + (ulong)(number * 16), address);
        guest.Write(Descriptors + (ulong)(number * 16) + 8, length | ((ulong)flags << 32) | ((ulong)next << 48));
    }

    /// <summary>Fills the available ring with these heads, over and over.</summary>
    public void Offer(TinyGuest guest, params ReadOnlySpan<ushort> heads)
    {
        ArgumentNullException.ThrowIfNull(guest);
        for (var slot = 0; slot < VirtioCode.QueueSize; slot++)
            guest.Write(Available + 4 + (ulong)(slot * 2), heads[slot % heads.Length]);
    }
}

/// <summary>What every tiny guest with a virtio device does (virtio 1.2 §3.1.1, §4.2), as macros for Iced's assembler.</summary>
public static class VirtioCode
{
    /// <summary>Entries of the queues that <see cref="InitializeVirtio"/> sets up.</summary>
    public const int QueueSize = 16;

    /// <summary>Bit 15 of an entry of the I/O APIC's redirection table.</summary>
    public const ulong LevelTriggered = 1 << 15;

    /// <summary>Takes the device from reset to DRIVER_OK; clobbers RAX, RDX.</summary>
    /// <param name="c">Where to.</param>
    /// <param name="window">The device's registers.</param>
    /// <param name="features">What is negotiated beside VERSION_1; below 32.</param>
    /// <param name="queues">What is set up.</param>
    public static void InitializeVirtio(this Assembler c, ulong window, uint features, params ReadOnlySpan<GuestQueue> queues)
    {
        void Write(MmioRegister register, uint value) => c.WriteMmio32(window + (ulong)register, value);

        foreach (var status in (uint[])[0, 1, 3]) Write(MmioRegister.Status, status);
        if (features != 0)
        {
            Write(MmioRegister.DriverFeaturesSel, 0);
            Write(MmioRegister.DriverFeatures, features);
        }
        Write(MmioRegister.DriverFeaturesSel, 1);
        Write(MmioRegister.DriverFeatures, 1); // VERSION_1
        Write(MmioRegister.Status, 0xB);
        foreach (var queue in queues)
        {
            Write(MmioRegister.QueueSel, (uint)queue.Index);
            Write(MmioRegister.QueueNum, QueueSize);
            Write(MmioRegister.QueueDescLow, (uint)queue.Descriptors);
            Write(MmioRegister.QueueDriverLow, (uint)queue.Available);
            Write(MmioRegister.QueueDeviceLow, (uint)queue.Used);
            Write(MmioRegister.QueueReady, 1);
        }
        Write(MmioRegister.Status, 0xF);
    }

    /// <summary>The doorbell of a queue; clobbers RAX, RDX.</summary>
    public static void NotifyVirtio(this Assembler c, ulong window, GuestQueue queue)
    {
        c.mfence(); // what was made available is seen before the doorbell rings
        c.WriteMmio32(window + (ulong)MmioRegister.QueueNotify, (uint)queue.Index);
    }

    /// <summary>
    /// Halts until the 16 bits at <paramref name="at"/> are <paramref name="value"/> and EBX, which counts interrupts, is no longer
    /// <paramref name="before"/>; interrupts are off behind it. With interrupts off since before the doorbell rang, the last publication's
    /// interrupt is still to come, or its count is: a guest that gets none stays here.
    /// </summary>
    public static void HaltUntil(this Assembler c, ulong at, AssemblerRegister16 value, AssemblerRegister32? before = null)
    {
        var (wait, sleep, come) = (c.CreateLabel(), c.CreateLabel(), c.CreateLabel());
        c.Label(ref wait);
        c.cli();
        if (before is { } count)
        {
            c.cmp(ebx, count);
            c.je(sleep);
        }
        c.cmp(__word_ptr[at], value);
        c.je(come);
        c.Label(ref sleep);
        c.sti();
        c.hlt();
        c.jmp(wait);
        c.Label(ref come);
        c.nop(); // the place of the label: what follows may want one of its own
    }

    /// <summary>An interrupt handler that reads and acknowledges the cause and counts in EBX; one without a cause does not count.</summary>
    public static void VirtioInterrupt(this Assembler c, ulong window)
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

    /// <summary>Stores <paramref name="count"/> qwords: RAX, RAX + 1, ...; clobbers RAX, RCX, RDI.</summary>
    public static void StoreRun(this Assembler c, ulong at, int count)
    {
        var next = c.CreateLabel();
        c.mov(edi, (uint)at);
        c.mov(ecx, count);
        c.Label(ref next);
        c.mov(__qword_ptr[rdi], rax);
        c.inc(rax);
        c.add(rdi, 8);
        c.dec(ecx);
        c.jne(next);
    }

    /// <summary>Goes to <paramref name="wrong"/> unless the qwords at <paramref name="at"/> are RAX, RAX + 1, ...; clobbers RAX, RCX,
    /// RDI.</summary>
    public static void CompareRun(this Assembler c, ulong at, int count, Label wrong)
    {
        var next = c.CreateLabel();
        c.mov(edi, (uint)at);
        c.mov(ecx, count);
        c.Label(ref next);
        c.cmp(__qword_ptr[rdi], rax);
        c.jne(wrong);
        c.inc(rax);
        c.add(rdi, 8);
        c.dec(ecx);
        c.jne(next);
    }
}
