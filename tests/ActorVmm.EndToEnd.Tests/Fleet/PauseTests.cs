using System.Diagnostics;
using ActorVmm.Actors;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>
/// A paused VM does nothing and misses nothing: its guest, which watches the ACPI timer and the time stamp counter without a break, sees
/// no time pass, also where the machine is taken apart and put together again meanwhile.
/// </summary>
[Collection(LinuxGuests.Name)]
public sealed class PauseTests : IDisposable
{
    private const uint TimerHz = 3_579_545; // ACPI specification §4.8.2.1
    private const ulong ManyCycles = 2_500_000_000; // less than a pause has, of any processor of 1 GHz and more; soft's is one
    private static readonly TimeSpan s_pause = TimeSpan.FromSeconds(3);

    private readonly string _here = Directory.CreateTempSubdirectory("actorvmm-pause-").FullName;

    public void Dispose() => Directory.Delete(_here, recursive: true);

    [SkippableTheory]
    [InlineData("soft", true)]
    [InlineData("kvm", false)]
    [InlineData("kvm", true)]
    public async Task The_clock_of_a_guest_stops_with_its_vm(string name, bool counter)
    {
        IHypervisor hypervisor = name == "kvm" ? new KvmHypervisor() : new SoftHypervisor();
        Skip.If(name == "kvm" && !File.Exists("/dev/kvm"), "needs /dev/kvm");
        if (name == "kvm" && counter)
        {
            // A KVM below which somebody else runs the processors may have no say in their counters.
            var written = hypervisor.Probe().Items.Single(item => item.Name == "tsc-write");
            Skip.IfNot(written.Works, $"KVM of this host: {written.Name}: {written.Detail}");
        }

        // A host that stops this process for as long looks like a clock that does not stop; it does so once, and a broken clock always.
        for (var attempt = 1; ; attempt++)
        {
            var jumps = await JumpsAsync(hypervisor, counter);
            if (jumps == 0) return;
            Assert.True(attempt < 4, $"the guest saw its clock jump in each of {attempt} runs");
        }
    }

    private async Task<int> JumpsAsync(IHypervisor hypervisor, bool counter)
    {
        var kernel = Path.Combine(_here, "watcher");
        await File.WriteAllBytesAsync(kernel, TinyElf.Of(Watcher(counter)));
        var console = new GuestConsole();
        await using var host = VmHost.Create();
        var vm = await host.StartAsync(
            new VmSpec { Name = "watcher", MemoryMib = 2, Kernel = new KernelSpec { Path = kernel, CommandLine = "" } },
            hypervisor, new VmConsole(console, console));
        await console.Transcript.ExpectAsync("..", Shell.CommandDeadline);

        await vm.PauseAsync().WaitAsync(Shell.CommandDeadline);
        Assert.Equal("paused", (await vm.InspectAsync()).Values["state"]);
        var (printed, clock) = (console.Transcript.Text.Length, await ClockAsync(vm));
        await vm.PulseAsync().WaitAsync(Shell.CommandDeadline);
        var paused = Stopwatch.StartNew();
        while (paused.Elapsed < s_pause) Assert.Equal(clock, await ClockAsync(vm));
        Assert.Equal(printed, console.Transcript.Text.Length);

        await vm.ResumeAsync().WaitAsync(Shell.CommandDeadline);
        await console.Transcript.ExpectAsync("..", Shell.CommandDeadline);
        Assert.NotEqual(clock, await ClockAsync(vm));
        vm.Stop();
        await vm.Completion.WaitAsync(Shell.CommandDeadline);
        return console.Transcript.Text.Count(c => c == 'J');
    }

    private static async Task<string> ClockAsync(IVmHandle vm) => (await vm.InspectAsync()).Values["clock-ns"];

    /// <summary>
    /// Reads the timer, and if wanted the counter, for ever: a dot every 4096 reads, and a J where two reads are more than 1.5 seconds apart, or 2.5e9 cycles.
    /// </summary>
    private static byte[] Watcher(bool counter)
    {
        var c = new Assembler(64);
        var (again, quiet, calm) = (c.CreateLabel(), c.CreateLabel(), c.CreateLabel());
        c.rdtsc();
        c.shl(rdx, 32);
        c.or(rdx, rax);
        c.mov(r8, rdx);
        c.mov(dx, 0x608);
        c.@in(eax, dx);
        c.mov(ebx, eax);
        c.xor(ecx, ecx);
        c.Label(ref again);
        c.mov(dx, 0x608);
        c.@in(eax, dx);
        c.mov(esi, eax);
        c.sub(esi, ebx);
        c.and(esi, 0xFF_FFFF); // 24 bits: 4.7 seconds
        c.mov(ebx, eax);
        c.mov(dx, 0x3F8);
        c.cmp(esi, (int)(TimerHz * 3 / 2));
        c.jb(quiet);
        c.mov(al, (int)'J');
        c.@out(dx, al);
        c.Label(ref quiet);
        c.rdtsc();
        c.shl(rdx, 32);
        c.or(rdx, rax);
        c.mov(r9, rdx);
        c.sub(rdx, r8);
        c.mov(r8, r9);
        c.mov(r10, ManyCycles);
        c.cmp(rdx, r10);
        c.mov(dx, 0x3F8);
        if (counter) c.jb(calm);
        else c.jmp(calm);
        c.mov(al, (int)'J');
        c.@out(dx, al);
        c.Label(ref calm);
        c.inc(ecx);
        c.test(ecx, 0xFFF);
        c.jne(again);
        c.mov(al, (int)'.');
        c.@out(dx, al);
        c.jmp(again);
        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), 0x10_0000);
        return code.ToArray();
    }
}
