using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Kvm.Tests;

/// <summary>ioeventfd and irqfd.</summary>
public class EventTests
{
    private static (TinyGuest Guest, KvmMachine Machine) Guest(Action<Assembler> code)
    {
        var guest = new TinyGuest(new KvmHypervisor());
        guest.Code(code).Start64();
        return (guest, (KvmMachine)guest.Machine);
    }

    private static void StoreThree(Assembler c)
    {
        c.mov(ebx, (uint)GuestLayout.Mmio + 0x50);
        for (var value = 1; value <= 3; value++) c.mov(__dword_ptr[rbx], value);
        c.mov(__word_ptr[rbx], 9);
        c.Done();
    }

    private static GuestRun Done(TinyGuest guest)
    {
        var run = guest.Run();
        Assert.True(run.End == GuestEnd.Done, run.ToString());
        return run;
    }

    [KvmFact]
    public void A_doorbell_with_a_value_counts_its_value_only()
    {
        var (guest, machine) = Guest(StoreThree);
        using (guest)
        {
            using var doorbell = (KvmDoorbell)machine.TryCreateDoorbell(new DoorbellAddress(GuestLayout.Mmio + 0x50, false, 4, 2))!;
            Assert.Equal([1UL, 3, 9], Done(guest).Accesses.Select(access => access.Data));
            Assert.Equal(1UL, doorbell.TakeCount());
            Assert.Equal(0UL, doorbell.TakeCount());
        }
    }

    [KvmFact]
    public void Two_values_of_one_address_ring_two_doorbells()
    {
        var (guest, machine) = Guest(StoreThree);
        using (guest)
        {
            using var one = (KvmDoorbell)machine.TryCreateDoorbell(new DoorbellAddress(GuestLayout.Mmio + 0x50, false, 4, 1))!;
            using var three = (KvmDoorbell)machine.TryCreateDoorbell(new DoorbellAddress(GuestLayout.Mmio + 0x50, false, 4, 3))!;
            Assert.Equal([2UL, 9], Done(guest).Accesses.Select(access => access.Data));
            Assert.Equal((1UL, 1UL), (one.TakeCount(), three.TakeCount()));
        }
    }

    [KvmFact]
    public void A_doorbell_without_a_value_counts_every_write_of_its_size()
    {
        var (guest, machine) = Guest(StoreThree);
        using (guest)
        {
            using var doorbell = (KvmDoorbell)machine.TryCreateDoorbell(new DoorbellAddress(GuestLayout.Mmio + 0x50, false, 4, null))!;
            Assert.Equal([9UL], Done(guest).Accesses.Select(access => access.Data));
            Assert.Equal(3UL, doorbell.TakeCount());
        }
    }

    [KvmFact]
    public void A_doorbell_of_any_size_counts_every_write()
    {
        var (guest, machine) = Guest(StoreThree);
        using (guest)
        {
            using var doorbell = (KvmDoorbell)machine.TryCreateDoorbell(new DoorbellAddress(GuestLayout.Mmio + 0x50, false, 0, null))!;
            Assert.Empty(Done(guest).Accesses);
            Assert.Equal(4UL, doorbell.TakeCount());
        }
    }

    [KvmFact]
    public void A_port_doorbell_counts_and_its_descriptor_polls_readable()
    {
        var (guest, machine) = Guest(c =>
        {
            c.mov(dx, 0x510);
            c.mov(eax, 7);
            c.@out(dx, ax);
            c.@out(dx, ax);
            c.Done();
        });
        using (guest)
        {
            using var doorbell = (KvmDoorbell)machine.TryCreateDoorbell(new DoorbellAddress(0x510, true, 2, 7))!;
            Assert.Empty(Done(guest).Accesses);
            Assert.Equal(2UL, doorbell.TakeCount());
        }
    }

    [KvmFact]
    public void A_doorbell_taken_down_and_put_up_again_works_and_a_double_is_refused()
    {
        var (guest, machine) = Guest(StoreThree);
        using (guest)
        {
            var address = new DoorbellAddress(GuestLayout.Mmio + 0x50, false, 4, 2);
            machine.TryCreateDoorbell(address)!.Dispose();
            using var doorbell = (KvmDoorbell)machine.TryCreateDoorbell(address)!;
            Assert.Throws<HypervisorException>(() => machine.TryCreateDoorbell(address));
            Done(guest);
            Assert.Equal(1UL, doorbell.TakeCount());
        }
    }

    private static void WaitForInterrupts(Assembler c, int count)
    {
        var again = c.CreateLabel();
        var done = c.CreateLabel();
        c.Label(ref again);
        c.cli();
        c.cmp(ebx, count);
        c.jae(done);
        c.sti();
        c.hlt();
        c.jmp(again);
        c.Label(ref done);
        c.mov(eax, ebx);
        c.ReportEax();
        c.Done();
    }

    private static void Counting(Assembler c)
    {
        c.push(rax);
        c.push(rdx);
        c.inc(ebx);
        c.EndOfInterrupt();
        c.Act(2);
        c.pop(rdx);
        c.pop(rax);
        c.iretq();
    }

    [KvmFact]
    public void An_eventfd_raises_an_edge_on_its_ioapic_pin_from_any_thread()
    {
        var (guest, machine) = Guest(c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.xor(ebx, ebx);
            c.WriteIoApic(9, 0x40);
            c.Act(1);
            WaitForInterrupts(c, 2);
        });
        using (guest)
        {
            using var interrupt = machine.CreateInterruptEvent(9);
            guest.Actions[1] = () => new Thread(interrupt.Raise) { IsBackground = true }.Start();
            var left = 1;
            guest.Actions[2] = () =>
            {
                if (left-- > 0) interrupt.Raise();
            };
            guest.Handler(0x40, Counting);
            Assert.Equal([2UL], Done(guest).Reports);
        }
    }

    [KvmFact]
    public void An_eventfd_raises_a_message_through_its_route()
    {
        var (guest, machine) = Guest(c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.xor(ebx, ebx);
            c.Act(1);
            WaitForInterrupts(c, 1);
        });
        using (guest)
        {
            machine.SetMessageRoutes(new KvmMessageRoute(24, GuestLayout.LocalApic, 0x41));
            using var interrupt = machine.CreateInterruptEvent(24);
            guest.Actions[1] = interrupt.Raise;
            guest.Actions[2] = () => { };
            guest.Handler(0x41, Counting);
            Assert.Equal([1UL], Done(guest).Reports);
        }
    }

    [KvmFact]
    public void A_resampled_line_falls_at_the_end_of_interrupt_and_tells_so()
    {
        var (guest, machine) = Guest(c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.xor(ebx, ebx);
            c.WriteIoApic(9, 0x40 | (1 << 15));
            c.Act(1);
            WaitForInterrupts(c, 3);
        });
        using (guest)
        {
            using var interrupt = machine.CreateInterruptEvent(9, resample: true);
            Assert.NotEqual(-1, interrupt.ResampleDescriptor);
            var ended = 0UL;
            guest.Actions[1] = interrupt.Raise;
            guest.Actions[2] = () =>
            {
                // The guest has ended the interrupt; the device still wants service until the third time.
                ended += interrupt.TakeEnded();
                if (ended < 3) interrupt.Raise();
            };
            guest.Handler(0x40, Counting);
            Assert.Equal([3UL], Done(guest).Reports);
            Assert.Equal(3UL, ended);
        }
    }

    [KvmFact]
    public void Standard_routes_stay_when_message_routes_are_set()
    {
        var (guest, machine) = Guest(c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.xor(ebx, ebx);
            c.WriteIoApic(20, 0x40);
            c.Act(1);
            WaitForInterrupts(c, 1);
        });
        using (guest)
        {
            machine.SetMessageRoutes(new KvmMessageRoute(24, GuestLayout.LocalApic, 0x41), new KvmMessageRoute(25, GuestLayout.LocalApic,
                0x42));
            guest.Actions[1] = () => machine.SetInterruptLine(20, true);
            guest.Actions[2] = () => { };
            guest.Handler(0x40, Counting);
            Assert.Equal([1UL], Done(guest).Reports);
        }
    }
}
