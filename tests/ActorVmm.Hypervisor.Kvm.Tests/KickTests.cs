using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Kvm.Tests;

public class KickTests
{
    private static void Endless(Assembler c, Action act)
    {
        var again = c.CreateLabel();
        c.MaskPic();
        c.sti();
        c.Label(ref again);
        act();
        c.jmp(again);
    }

    [Fact]
    public void The_c_library_has_the_function_that_makes_kicks_cheap() => Assert.Equal(KickMethod.Handler, KickSignal.Method);

    [KvmTheory]
    [InlineData("Handler", true)]
    [InlineData("Handler", false)]
    [InlineData("Mask", true)]
    [InlineData("Mask", false)]
    public void Ten_thousand_kicks_none_lost_none_doubled_while_the_collector_runs(string method, bool halted)
    {
        const int kicks = 10_000;
        using var guest = new TinyGuest(new KvmHypervisor { KickMethod = Enum.Parse<KickMethod>(method) });
        guest.Code(c => Endless(c, () =>
        {
            if (halted) c.hlt();
            else c.@out(0x80, al);
        })).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        using var seen = new SemaphoreSlim(0);
        var reported = 0;
        var over = false;
        var runner = new Thread(() =>
        {
            while (reported < kicks)
            {
                if (vcpu.Run() != VcpuExitKind.Kicked) continue;
                reported++;
                seen.Release();
            }
        }) { IsBackground = true };
        var collections = 0;
        var collector = new Thread(() =>
        {
            while (!Volatile.Read(ref over))
            {
                for (var i = 0; i < 64; i++) GC.KeepAlive(new byte[4096]);
                GC.Collect(0);
                collections++;
                Thread.Yield();
            }
        }) { IsBackground = true };
        runner.Start();
        collector.Start();
        for (var i = 0; i < kicks; i++)
        {
            vcpu.Kick();
            Assert.True(seen.Wait(TimeSpan.FromSeconds(90)), $"kick {i} of {kicks} was lost");
        }
        Volatile.Write(ref over, true);
        Assert.True(runner.Join(TimeSpan.FromSeconds(90)));
        collector.Join();
        Assert.Equal(kicks, reported);
        Assert.Equal(0, seen.CurrentCount);
        Assert.True(collections > 0);
    }

    [KvmTheory]
    [InlineData("Handler")]
    [InlineData("Mask")]
    public void A_vcpu_can_move_to_another_thread_and_is_still_kicked_there(string method)
    {
        using var guest = new TinyGuest(new KvmHypervisor { KickMethod = Enum.Parse<KickMethod>(method) });
        guest.Code(c => Endless(c, () => c.hlt())).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        for (var round = 0; round < 5; round++)
        {
            using var kicked = new ManualResetEventSlim();
            var thread = new Thread(() =>
            {
                while (vcpu.Run() != VcpuExitKind.Kicked) { }
                kicked.Set();
            }) { IsBackground = true };
            thread.Start();
            vcpu.Kick();
            Assert.True(kicked.Wait(TimeSpan.FromSeconds(90)));
            thread.Join();
        }
    }

    [KvmFact]
    public void A_kick_given_before_run_is_reported_once_and_one_after_the_end_does_no_harm()
    {
        var guest = new TinyGuest(new KvmHypervisor());
        guest.Code(c => Endless(c, () => c.@out(0x80, al))).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        vcpu.Kick();
        vcpu.Kick();
        Assert.Equal(VcpuExitKind.Kicked, vcpu.Run());
        for (var i = 0; i < 3; i++) Assert.Equal(VcpuExitKind.PortWrite, vcpu.Run());
        guest.Dispose();
        vcpu.Kick(); // its page is unmapped
    }

    [KvmFact]
    public void A_kick_survives_the_completion_of_an_access()
    {
        using var guest = new TinyGuest(new KvmHypervisor());
        guest.Code(c => Endless(c, () => c.@in(al, 0x71))).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        for (var i = 0; i < 200; i++)
        {
            Assert.Equal(VcpuExitKind.PortRead, vcpu.Run());
            var kicker = Task.Run(vcpu.Kick);
            Assert.Equal(VcpuExitKind.None, vcpu.CompletePending());
            kicker.GetAwaiter().GetResult();
            Assert.Equal(VcpuExitKind.Kicked, vcpu.Run());
        }
    }

    [KvmFact]
    public void The_exit_path_allocates_nothing()
    {
        using var guest = new TinyGuest(new KvmHypervisor());
        guest.Code(c =>
        {
            c.mov(ebx, (uint)GuestLayout.Mmio);
            Endless(c, () =>
            {
                c.@out(0x80, al);
                c.@in(al, 0x71);
                c.mov(__dword_ptr[rbx], eax);
                c.mov(ecx, __dword_ptr[rbx]);
            });
        }).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        for (var i = 0; i < 1000; i++) Step();
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 4000; i++) Step();
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());

        void Step()
        {
            if (vcpu.Run() is VcpuExitKind.PortRead or VcpuExitKind.MmioRead) vcpu.Exit.Data = 1;
        }
    }
}
