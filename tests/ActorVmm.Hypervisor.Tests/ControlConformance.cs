using ActorVmm.Actors;
using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Virtio;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>A whole VM obeys whatever its guest does: pause, resume, questions about its state, and stop.</summary>
public abstract class ControlConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    private const int Rounds = 20;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(90);

    [SkippableTheory]
    [InlineData("computes", 1), InlineData("computes", 4), InlineData("halts", 1), InlineData("halts", 2)]
    [InlineData("exits", 1), InlineData("waits for a device", 1)]
    public async Task A_vm_is_asked_paused_resumed_and_stopped_while_its_guest(string act, int vcpus)
    {
        Needs();
        var (host, vm) = await TinyVm.StartAsync(Subject.Hypervisor, TinyVm.Spec with { Vcpus = vcpus }, guest => Load(guest, act));
        await using (host)
        {
            for (var round = 0; round < Rounds; round++)
            {
                Assert.Contains("state = running", (await vm.InspectAsync().WaitAsync(s_patience)).ToString(), StringComparison.Ordinal);
                await vm.PauseAsync().WaitAsync(s_patience);
                var (first, second) = (await PausedStateAsync(), await PausedStateAsync());
                Assert.Equal(first, second); // nothing runs: registers and exits stand still
                await vm.ResumeAsync().WaitAsync(s_patience);
            }
            vm.Stop();
            Assert.Equal(StopReason.Requested, (await vm.Completion.WaitAsync(s_patience)).Reason);
        }

        async Task<string> PausedStateAsync()
        {
            var tree = (await vm.InspectAsync().WaitAsync(s_patience)).ToString();
            var vcpu = tree.IndexOf("vcpus", StringComparison.Ordinal);
            Assert.Contains("state = paused", tree[..tree.IndexOf("bus", StringComparison.Ordinal)], StringComparison.Ordinal); // the VM's own
            string[] kept = ["state = ", "rip = ", "rcx = ", "exits = ", "activity = "];
            return string.Join('\n', tree[vcpu..].Split('\n').Where(line => kept.Any(key => line.Contains(key, StringComparison.Ordinal))));
        }
    }

    private static void Load(TinyGuest guest, string act) => guest.Code(c =>
    {
        var again = c.CreateLabel();
        c.MaskPic();
        c.sti();
        c.Label(ref again);
        Do(c, act);
        c.jmp(again);
    }).Start64();

    private static void Do(Assembler c, string act)
    {
        switch (act)
        {
            case "computes": c.inc(rcx); break;
            case "halts": c.hlt(); break;
            case "exits": c.@out(0x80, al); break;
            default: c.@in(al, 0x50); break;
        }
    }
}
