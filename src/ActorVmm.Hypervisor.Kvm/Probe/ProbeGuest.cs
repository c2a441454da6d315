using System.Diagnostics;
using ActorVmm.Memory;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Kvm.Probe;

/// <summary>What came out of a probe guest.</summary>
/// <param name="Done">It said that it was done.</param>
/// <param name="Values">What it reported.</param>
/// <param name="Elapsed">From its first exit to its end.</param>
/// <param name="Failure">How it ended otherwise, for people.</param>
internal sealed record ProbeRun(bool Done, IReadOnlyList<uint> Values, TimeSpan Elapsed, string? Failure);

/// <summary>
/// A machine of 4 MiB that runs a few instructions and reports by OUT: 64-bit, all memory mapped one to one for rings 0 and 3, every
/// exception ends the run with its number.
/// </summary>
internal sealed class ProbeGuest : IDisposable
{
    public const ulong Program = 0x10000, UserCode = 0x20000, Handlers = 0x30000, Stack = 0x40000, TrapStack = 0x48000, UserStack = 0x50000,
        ApCode = 0x8000, Data = 0x60000;
    public const ulong LocalApic = 0xFEE0_0000, IoApic = 0xFEC0_0000;
    public const ushort KernelCode = 0x08, KernelData = 0x10, TaskState = 0x18, UserCode32 = 0x28, UserData = 0x30, UserCode64 = 0x38;
    public const byte ReportPort = 0xF4, DonePort = 0xF5, FaultPort = 0xFA, IdlePort = 0xFC;

    private const ulong Gdt = 0x1000, Idt = 0x2000, Tss = 0x3000, Pml4 = 0x9000;
    private const uint TssLimit = 0x67;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly GuestMemory _memory = GuestMemory.Create(4 << 20);

    public ProbeGuest(KvmHypervisor hypervisor, int vcpus = 1)
    {
        try
        {
            Machine = hypervisor.Create(new MachineOptions(_memory, vcpus));
        }
        catch
        {
            _memory.Dispose();
            throw;
        }
        WriteTables();
    }

    public KvmMachine Machine { get; }

    /// <summary>Called, on the vCPU's thread, for writes to ports that are not the probe's own.</summary>
    public Action<VcpuExit>? OnWrite { get; set; }

    public void Place(ulong at, Action<Assembler> write, int bitness = 64)
    {
        var assembler = new Assembler(bitness);
        write(assembler);
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), at);
        _memory.TryWrite(new GuestAddress(at), stream.ToArray());
    }

    public void Gate(byte vector, ulong target, int dpl = 0)
    {
        var at = new GuestAddress(Idt + ((ulong)vector * 16));
        _memory.TryWrite(at,
            (target & 0xFFFF) | ((ulong)KernelCode << 16) | ((0x8EUL | ((ulong)dpl << 5)) << 40) | ((target >> 16 & 0xFFFF) << 48));
    }

    /// <summary>Where vCPU 1 begins, in 64-bit mode as vCPU 0; null: it waits for INIT and SIPI.</summary>
    public ulong? SecondProgram { get; set; }

    /// <summary>Runs vCPU 0 from <see cref="Program"/>; the others wait for its IPIs.</summary>
    public ProbeRun Run()
    {
        Prepare();
        var values = new List<uint>();
        var over = false;
        using var net = new Timer(_ =>
        {
            Volatile.Write(ref over, true);
            foreach (var vcpu in Machine.Vcpus) vcpu.Kick();
        }, null, Patience, Timeout.InfiniteTimeSpan);

        var others = Machine.Vcpus.Skip(1).Select(vcpu => new Thread(() => RunOther(vcpu)) { IsBackground = true,
            Name = $"probe vCPU {vcpu.Id}" }).ToArray();
        foreach (var thread in others) thread.Start();
        var started = Stopwatch.GetTimestamp();
        ProbeRun? result = null;
        while (result is null) result = Step(Machine.Vcpus[0]);
        Volatile.Write(ref over, true);
        foreach (var vcpu in Machine.Vcpus.Skip(1)) vcpu.Kick();
        foreach (var thread in others) thread.Join();
        return result;

        void RunOther(IVcpu vcpu)
        {
            while (!Volatile.Read(ref over))
                if (vcpu.Run() is VcpuExitKind.Failed or VcpuExitKind.Shutdown) return;
        }

        ProbeRun? Step(IVcpu vcpu)
        {
            var kind = vcpu.Run();
            var exit = vcpu.Exit;
            switch (kind)
            {
                case VcpuExitKind.PortWrite when exit.Address == ReportPort:
                    values.Add((uint)exit.Data);
                    return null;
                case VcpuExitKind.PortWrite when exit.Address == DonePort:
                    return new ProbeRun(true, values, Stopwatch.GetElapsedTime(started), null);
                case VcpuExitKind.PortWrite when exit.Address == FaultPort:
                    return End($"exception {exit.Data}");
                case VcpuExitKind.PortRead or VcpuExitKind.MmioRead:
                    exit.Data = ulong.MaxValue;
                    return null;
                case VcpuExitKind.PortWrite or VcpuExitKind.MmioWrite:
                    OnWrite?.Invoke(exit);
                    return null;
                case VcpuExitKind.Failed: return End(exit.Detail ?? "failed");
                case VcpuExitKind.Shutdown: return End("triple fault");
                case VcpuExitKind.Halted: return End("halted for good");
                case VcpuExitKind.Kicked when Volatile.Read(ref over): return End($"no result within {Patience.TotalSeconds:0} s");
                default: return null;
            }
        }

        ProbeRun End(string failure) => new(false, values, Stopwatch.GetElapsedTime(started), failure);
    }

    public void Dispose()
    {
        Machine.Dispose();
        _memory.Dispose();
    }

    private void Prepare()
    {
        Prepare(Machine.Vcpus[0], Program, Stack);
        if (SecondProgram is { } second) Prepare(Machine.Vcpus[1], second, UserStack);
    }

    private static void Prepare(IVcpu vcpu, ulong rip, ulong rsp)
    {
        var state = vcpu.GetState();
        var data = new SegmentState(KernelData, 0, 0xFFFF_FFFF, 3, true, 0, false, false, true, true);
        vcpu.SetState(state with
        {
            Activity = VcpuActivity.Running,
            General = new GeneralRegisters { Rip = rip, Rsp = rsp },
            Special = state.Special with
            {
                Cs = new SegmentState(KernelCode, 0, 0xFFFF_FFFF, 0xB, true, 0, false, true, false, true),
                Ds = data, Es = data, Fs = data, Gs = data, Ss = data,
                Tr = new SegmentState(TaskState, Tss, TssLimit, 0xB, true, 0, true, false, false, false),
                Gdt = new TableRegister(Gdt, 0x3F),
                Idt = new TableRegister(Idt, 0xFFF),
                Cr0 = 0x8001_0033, Cr3 = Pml4, Cr4 = 0x620, Efer = 0xD01,
            },
        });
    }

    private void WriteTables()
    {
        ReadOnlySpan<ulong> gdt =
        [
            0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00008B0000000000 | TssLimit | (Tss << 16), 0, 0x00CFFB000000FFFF,
                0x00CFF3000000FFFF, 0x00AFFB000000FFFF,
        ];
        for (var i = 0; i < gdt.Length; i++) _memory.TryWrite(new GuestAddress(Gdt + ((ulong)i * 8)), gdt[i]);
        _memory.TryWrite(new GuestAddress(Tss + 4), TrapStack);
        _memory.TryWrite(new GuestAddress(Tss + 0x66), (ushort)0x68); // no I/O bitmap

        const ulong user = 7;
        _memory.TryWrite(new GuestAddress(Pml4), 0xA000 | user);
        for (ulong gib = 0; gib < 4; gib++)
        {
            _memory.TryWrite(new GuestAddress(0xA000 + (gib * 8)), (0xB000 + (gib * 0x1000)) | user);
            for (ulong i = 0; i < 512; i++) _memory.TryWrite(new GuestAddress(0xB000 + (gib * 0x1000) + (i * 8)),
                (gib << 30) | (i << 21) | user | 0x80);
        }
        for (byte vector = 0; vector < 32; vector++)
        {
            var number = vector;
            var at = Handlers + ((ulong)vector * 16);
            Place(at, c =>
            {
                c.mov(al, number);
                c.@out(FaultPort, al);
                c.hlt();
            });
            Gate(vector, at);
        }
    }
}
