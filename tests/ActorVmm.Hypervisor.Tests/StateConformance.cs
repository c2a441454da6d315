using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Memory;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>Reading and replacing state, saving and restoring, kicks, doorbells, clock.</summary>
public abstract class StateConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    /// <summary>A sum over many rounds with an exit in each: saving anywhere must not change it.</summary>
    private static void Computation(Assembler c)
    {
        var again = c.CreateLabel();
        c.mov(ecx, 200);
        c.xor(ebx, ebx);
        c.mov(rsi, 0x9E3779B97F4A7C15);
        c.Label(ref again);
        c.imul(rbx, rsi);
        c.add(rbx, rcx);
        c.mov(__qword_ptr[GuestLayout.Data], rbx);
        c.@out(0x80, al);
        c.xor(rbx, __qword_ptr[GuestLayout.Data]);
        c.lea(rbx, __[rbx + rcx * 4 + 1]);
        c.dec(ecx);
        c.jne(again);
        c.mov(rax, rbx);
        c.ReportRax();
        c.Done();
    }

    private static void CopyMemory(GuestMemory from, GuestMemory to)
    {
        foreach (var region in from.Regions)
            for (ulong at = 0; at < region.Size; at += 1 << 20)
            {
                Assert.True(from.TrySlice(region.Start + at, 1 << 20, out var bytes));
                if (bytes.ContainsAnyExcept((byte)0)) Assert.True(to.TryWrite(region.Start + at, bytes));
            }
    }

    [SkippableFact]
    public void Setting_the_state_just_read_changes_nothing()
    {
        var guest = Guest().Code(Computation).Start64();
        var expected = RunToDone(Guest().Code(Computation).Start64()).Reports;
        var seen = 0;
        RunTo(GuestEnd.Stopped, guest, _ => ++seen == 77);
        var vcpu = guest.Machine.Vcpus[0];
        vcpu.CompletePending();
        var before = vcpu.GetState();
        vcpu.SetState(before);
        var after = vcpu.GetState();
        Assert.Equal(before.General, after.General);
        Assert.Equal(before.Special, after.Special);
        Assert.Equal(before.Xcr0, after.Xcr0);
        Assert.Equal(before.Debug, after.Debug);
        Assert.Equal(before.Events, after.Events);
        Assert.Equal(before.Activity, after.Activity);
        Assert.Equal(before.Msrs.Select(msr => msr.Index), after.Msrs.Select(msr => msr.Index));
        Assert.Equal(expected, RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Registers_that_are_set_are_the_registers_the_guest_sees()
    {
        var guest = Guest().Code(c =>
        {
            foreach (var register in new[] { rbx, rcx, rdx, rsi, rdi, rbp, r8, r15 })
            {
                c.mov(rax, register);
                c.ReportRax();
            }
            c.Done();
        });
        guest.Start64(change: state => state with
        {
            General = state.General with { Rbx = 1, Rcx = 2, Rdx = 3, Rsi = 4, Rdi = 5, Rbp = 6, R8 = 7, R15 = 0x8888_8888_8888_8888 },
        });
        Assert.Equal([1UL, 2, 3, 4, 5, 6, 7, 0x8888_8888_8888_8888], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Registers_that_the_guest_sets_are_the_registers_that_are_read()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(rbx, 0x1111_2222_3333_4444);
            c.mov(r14, 0x5555_6666_7777_8888);
            c.WriteMsr(0xC000_0102, 0x7F00_1234_5000);
            c.mov(eax, 0x3);
            c.mov(cr8, rax);
            c.std();
            c.@out(0x80, al);
            c.Done();
        }).Start64();
        RunTo(GuestEnd.Stopped, guest, access => access.Address == 0x80);
        var vcpu = guest.Machine.Vcpus[0];
        vcpu.CompletePending();
        var state = vcpu.GetState();
        Assert.Equal((0x1111_2222_3333_4444UL, 0x5555_6666_7777_8888UL), (state.General.Rbx, state.General.R14));
        Assert.Equal(0x7F00_1234_5000UL, state.Msrs.Single(msr => msr.Index == 0xC000_0102).Value);
        Assert.Equal(3UL, state.Special.Cr8);
        Assert.Equal(0x400UL, state.General.Rflags & 0x400);
        Assert.Equal(GuestLayout.KernelCode, state.Special.Cs.Selector);
        Assert.True(state.Special.Cs.Long);
    }

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(50)]
    [InlineData(199)]
    public void A_machine_saved_in_the_middle_of_work_and_restored_elsewhere_comes_to_the_same_result(int exits)
    {
        var expected = RunToDone(Guest().Code(Computation).Start64()).Reports;
        var first = Guest().Code(Computation).Start64();
        var seen = 0;
        RunTo(GuestEnd.Stopped, first, _ => ++seen == exits);
        foreach (var vcpu in first.Machine.Vcpus) vcpu.CompletePending();
        first.Machine.PauseClock();
        var saved = first.Machine.Save();

        var second = Guest();
        CopyMemory(first.Memory, second.Memory);
        second.Machine.Restore(saved);
        second.Machine.ResumeClock();
        Assert.Equal(expected, RunToDone(second).Reports);
        Assert.True(second.Machine.Clock.Nanoseconds >= saved.ClockNanoseconds);
    }

    [SkippableFact]
    public void Interrupt_controllers_travel_with_the_machine()
    {
        var first = Guest();
        Action<TinyGuest> wire = guest =>
        {
            guest.Actions[1] = () => guest.Machine.SetInterruptLine(10, true);
            guest.Handler(0x40, c =>
            {
                c.Report(0x40);
                c.Done();
            });
        };
        wire(first);
        first.Code(c =>
        {
            c.MaskPic();
            c.EnableLocalApic();
            c.WriteIoApic(10, 0x40);
            c.@out(0x80, al);
            c.Act(1);
            c.sti();
            c.hlt();
        }).Start64();
        RunTo(GuestEnd.Stopped, first, access => access.Address == 0x80);
        first.Machine.Vcpus[0].CompletePending();
        var saved = first.Machine.Save();

        var second = Guest();
        wire(second);
        CopyMemory(first.Memory, second.Memory);
        second.Machine.Restore(saved);
        Assert.Equal([0x40UL], RunToDone(second).Reports);
    }

    [SkippableFact]
    public void Saving_changes_nothing_and_two_saves_agree()
    {
        var guest = Guest().Code(Computation).Start64();
        guest.Machine.PauseClock();
        var first = guest.Machine.Save();
        var second = guest.Machine.Save();
        Assert.Equal(first.ClockNanoseconds, second.ClockNanoseconds);
        Assert.Equal(first.Vcpus[0].General, second.Vcpus[0].General);
        Assert.Equal(first.Vcpus[0].Special, second.Vcpus[0].Special);
        Assert.Equal(first.Chips.Keys, second.Chips.Keys);
        // Timers may have moved on; the controllers have not.
        foreach (var name in first.Chips.Keys.Where(name => name.Contains("pic", StringComparison.Ordinal)))
            Assert.Equal(first.Chips[name], second.Chips[name]);
    }

    [SkippableFact]
    public void A_state_of_another_shape_is_refused_by_name()
    {
        var guest = Guest();
        var saved = guest.Machine.Save();
        var other = Guest(vcpus: 2);
        Assert.Contains("vCPU", Assert.Throws<HypervisorException>(() => other.Machine.Restore(saved)).Message, StringComparison.Ordinal);
        var strange = saved with { Chips = new Dictionary<string, byte[]>(saved.Chips, StringComparer.Ordinal) { ["warp-core"] = [1] } };
        Assert.Contains("warp-core", Assert.Throws<HypervisorException>(() => guest.Machine.Restore(strange)).Message,
            StringComparison.Ordinal);
        Assert.Throws<HypervisorException>(() => guest.Machine.Restore(saved with { Hypervisor = "other" }));
    }

    [SkippableFact]
    public void Reset_brings_power_on_back_and_leaves_ram()
    {
        var guest = Guest();
        var powerOn = guest.Machine.Vcpus[0].GetState();
        guest.Code(Computation).Start64();
        var expected = RunToDone(guest).Reports;
        guest.Machine.Reset();
        var state = guest.Machine.Vcpus[0].GetState();
        Assert.Equal(powerOn.General, state.General);
        Assert.Equal(powerOn.Special, state.Special);
        Assert.Equal(0xFFF0UL, state.General.Rip);
        Assert.Equal(0x6000_0010UL, state.Special.Cr0);
        Assert.NotEqual(0UL, guest.Read<ulong>(GuestLayout.Data));
        Assert.Equal(expected, RunToDone(guest.Start64()).Reports);
    }

    [SkippableFact]
    public void A_kick_before_run_is_reported_once_by_the_next_run()
    {
        var guest = Guest().Code(c =>
        {
            c.@out(0x80, al);
            c.Done();
        }).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        vcpu.Kick();
        vcpu.Kick();
        Assert.Equal(VcpuExitKind.Kicked, vcpu.Run());
        Assert.Equal(VcpuExitKind.PortWrite, vcpu.Run());
        Assert.Equal(0x80UL, vcpu.Exit.Address);
    }

    [SkippableTheory]
    [InlineData("hlt")]
    [InlineData("loop")]
    [InlineData("ports")]
    [InlineData("mmio")]
    public void Every_kick_is_reported_exactly_once_whatever_the_guest_does(string work)
    {
        const int kicks = 300;
        var guest = Guest().Code(c =>
        {
            var again = c.CreateLabel();
            c.mov(ebx, (uint)GuestLayout.Mmio);
            c.sti();
            c.MaskPic();
            c.Label(ref again);
            switch (work)
            {
                case "hlt": c.hlt(); break;
                case "ports": c.@out(0x80, al); break;
                case "mmio": c.mov(__dword_ptr[rbx], eax); break;
                default: c.inc(rcx); break;
            }
            c.jmp(again);
        }).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        using var seen = new SemaphoreSlim(0);
        var reported = 0;
        var running = Task.Factory.StartNew(() =>
        {
            while (reported < kicks)
            {
                if (vcpu.Run() != VcpuExitKind.Kicked) continue;
                reported++;
                seen.Release();
            }
        }, TaskCreationOptions.LongRunning);
        for (var i = 0; i < kicks; i++)
        {
            vcpu.Kick();
            Assert.True(seen.Wait(TimeSpan.FromSeconds(120)), $"kick {i} was lost; {running.Exception}");
        }
        Assert.True(running.Wait(TimeSpan.FromSeconds(120)));
        Assert.Equal(kicks, reported);
        Assert.Equal(0, seen.CurrentCount);
    }

    [SkippableFact]
    public void A_doorbell_takes_matching_writes_and_lets_others_through()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(ebx, (uint)GuestLayout.Mmio + 0x50);
            c.mov(__dword_ptr[rbx], 3);
            c.mov(__dword_ptr[rbx], 4);
            c.mov(__dword_ptr[rbx], 3);
            c.Done();
        }).Start64();
        using var doorbell = guest.Machine.TryCreateDoorbell(new DoorbellAddress(GuestLayout.Mmio + 0x50, IsPort: false, 4, Match: 3));
        var run = RunToDone(guest);
        if (doorbell is null) Assert.Equal([3UL, 4, 3], run.Accesses.Select(access => access.Data));
        else Assert.Equal([4UL], run.Accesses.Select(access => access.Data));
    }

    [SkippableFact]
    public void A_doorbell_that_is_taken_down_lets_everything_through()
    {
        var guest = Guest().Code(c =>
        {
            c.mov(dx, 0x510);
            c.mov(eax, 7);
            c.@out(dx, ax);
            c.Done();
        }).Start64();
        guest.Machine.TryCreateDoorbell(new DoorbellAddress(0x510, IsPort: true, 2, Match: 7))?.Dispose();
        Assert.Equal([7UL], RunToDone(guest).Accesses.Select(access => access.Data));
    }

    [SkippableFact]
    public void Machine_time_stands_still_while_paused_and_never_goes_back()
    {
        var guest = Guest();
        var clock = guest.Machine.Clock;
        var first = clock.Nanoseconds;
        guest.Machine.PauseClock();
        var paused = clock.Nanoseconds;
        Assert.True(paused >= first);
        Assert.Equal(paused, clock.Nanoseconds);
        guest.Machine.ResumeClock();
        Assert.True(clock.Nanoseconds >= paused);
    }

    [SkippableFact]
    public void An_alarm_is_reported_on_the_first_vcpu_when_its_time_has_come_and_once()
    {
        var guest = Guest().Code(c =>
        {
            var again = c.CreateLabel();
            c.MaskPic();
            c.sti();
            c.Label(ref again);
            c.hlt();
            c.jmp(again);
        }).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        var clock = guest.Machine.Clock;
        var due = clock.Nanoseconds + 3_000_000;
        clock.SetAlarm(due);
        VcpuExitKind kind;
        do kind = vcpu.Run();
        while (kind is VcpuExitKind.PortWrite);
        Assert.Equal(VcpuExitKind.Alarm, kind);
        Assert.True(clock.Nanoseconds >= due);
        vcpu.Kick();
        Assert.Equal(VcpuExitKind.Kicked, vcpu.Run());
    }
}
