using System.Buffers.Binary;
using ActorVmm.Memory;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>
/// Runs cases in a guest: ring 3, 64-bit, the same addresses as natively. One machine serves all cases; the exception that ends a case goes
/// through the guest's IDT to a stub that does nothing but OUT to the port with the vector's number.
/// </summary>
internal sealed class GuestRunner : IDisposable
{
    private const ulong Pml4 = 0x1000, Pdpt = 0x2000, Pd = 0x3000, CodePt = 0x4000, ScratchPt = 0x5000;
    private const ulong Gdt = 0x8000, Idt = 0x9000, Tss = 0xA000, Stubs = 0xB000, KernelStack = 0xF000;
    private const ulong CodePhysical = 0x10_0000, ScratchPhysical = 0x14_0000;
    private const ulong RamSize = 0x20_0000;
    private const ushort KernelCode = 0x08, KernelData = 0x10, UserData = 0x1B, UserCode = 0x23, TssSelector = 0x28;

    private const ulong Present = 1, Writable = 2, User = 4, LargePage = 0x80;
    private const uint XsaveHeader = 512;

    private readonly GuestMemory _memory = GuestMemory.Create(RamSize);
    private readonly IMachine _machine;
    private readonly IVcpu _vcpu;
    private readonly VcpuState _start;
    private readonly bool _warm;

    /// <param name="hypervisor">What runs the guest.</param>
    /// <param name="warm">Most cases find the scratch pages in the TLB, so that compiled code need not leave for its first access.</param>
    public GuestRunner(IHypervisor hypervisor, bool warm = false)
    {
        _warm = warm;
        _machine = hypervisor.CreateMachine(new MachineOptions(_memory, 1, ClockMode.Virtual));
        _vcpu = _machine.Vcpus[0];
        WriteTables();
        _start = Prepare(_vcpu.GetState());
    }

    /// <summary>What the CPU counts: how much was compiled, and what compiled code left for.</summary>
    public string Counters => _vcpu.Counters ?? "";

    /// <summary>Writes the code of all cases, as <see cref="Native.NativeRunner"/> does, then runs one after the other.</summary>
    public void Run(ReadOnlySpan<TestCase> cases)
    {
        foreach (var test in cases) WriteCode(test);
        foreach (var test in cases) Run(test.Input, test.Soft, _warm && test.Slot % 4 != 0);
    }

    private void WriteCode(TestCase test)
    {
        var slot = new byte[Layout.CodeSlot];
        slot.AsSpan().Fill(0xCC);
        test.Code.CopyTo(slot, 0);
        Write(CodePhysical + (ulong)(test.Slot * Layout.CodeSlot), slot);
    }

    private void Run(CpuImage input, CpuImage output, bool warm)
    {
        Write(ScratchPhysical, input.Memory);
        _vcpu.SetState(Enter(input));
        if (warm) FillTlb();
        var kind = _vcpu.Run();
        if (kind != VcpuExitKind.PortWrite)
            throw new InvalidOperationException($"the guest left with {_vcpu.Exit} instead of an exception");
        output.Vector = (int)_vcpu.Exit.Address;
        _vcpu.CompletePending();
        Leave(_vcpu.GetState(), output);
    }

    private unsafe void FillTlb()
    {
        var cpu = ((SoftVcpu)_vcpu).Cpu;
        for (var page = Layout.Scratch; page < Layout.Scratch + 0x3000; page += 0x1000)
        {
            // SAFETY: the op is read in faults only, and these pages are there.
            var value = cpu.ReadSlow(null, page, 1, forWrite: false);
            if (page < Layout.Scratch + 0x2000) cpu.WriteSlow(null, page, value, 1);
        }
    }

    private VcpuState Enter(CpuImage input)
    {
        var xsave = (byte[])_start.Xsave.Clone();
        input.Fx.AsSpan(0, 416).CopyTo(xsave);
        BinaryPrimitives.WriteUInt64LittleEndian(xsave.AsSpan((int)XsaveHeader), 3); // x87 and SSE are in the image
        var g = input.Gpr;
        return _start with
        {
            Xsave = xsave,
            General = new GeneralRegisters
            {
                Rax = g[0], Rcx = g[1], Rdx = g[2], Rbx = g[3], Rsp = g[4], Rbp = g[5], Rsi = g[6], Rdi = g[7],
                R8 = g[8], R9 = g[9], R10 = g[10], R11 = g[11], R12 = g[12], R13 = g[13], R14 = g[14], R15 = g[15],
                Rip = input.Rip, Rflags = input.Rflags | 0x202,
            },
        };
    }

    private void Leave(VcpuState state, CpuImage output)
    {
        var r = state.General;
        ulong[] values = [r.Rax, r.Rcx, r.Rdx, r.Rbx, r.Rsp, r.Rbp, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15];
        values.CopyTo(output.Gpr, 0);
        state.Xsave.AsSpan(0, 512).CopyTo(output.Fx);

        // The exception's frame: error code (some vectors), RIP, CS, RFLAGS, RSP, SS.
        var frame = new GuestAddress(r.Rsp);
        output.ErrorCode = 0;
        if (output.Vector is 8 or 10 or 11 or 12 or 13 or 14 or 17)
        {
            output.ErrorCode = Read(frame);
            frame += 8;
        }
        output.Rip = Read(frame);
        output.Rflags = Read(frame + 16);
        output.Gpr[4] = Read(frame + 24);
        output.FaultAddress = state.Special.Cr2;
        if (!_memory.TryRead(new GuestAddress(ScratchPhysical), output.Memory)) throw new InvalidOperationException("no scratch memory");
    }

    private VcpuState Prepare(VcpuState reset)
    {
        static SegmentState Code(ushort selector, byte dpl) =>
            new(selector, 0, 0xFFFF_FFFF, 11, true, dpl, System: true, Long: true, Db: false, Granularity: true);
        static SegmentState Data(ushort selector, byte dpl) =>
            new(selector, 0, 0xFFFF_FFFF, 3, true, dpl, System: true, Long: false, Db: true, Granularity: true);
        var data = Data(UserData, 3);
        return reset with
        {
            Activity = VcpuActivity.Running,
            Events = new VcpuEvents(),
            Special = reset.Special with
            {
                Cs = Code(UserCode, 3), Ss = data, Ds = data, Es = data, Fs = data, Gs = data,
                Tr = new SegmentState(TssSelector, Tss, 0x67, 11, true, 0, System: false, Long: false, Db: false, Granularity: false),
                Ldt = new SegmentState(0, 0, 0, 2, false, 0, System: false, Long: false, Db: false, Granularity: false),
                Gdt = new TableRegister(Gdt, 0x37),
                Idt = new TableRegister(Idt, 0xFFF),
                Cr0 = 0x8005_0033, // PG AM WP NE ET MP PE
                Cr3 = Pml4,
                Cr4 = 0x6A0 & ~0x80UL, // PAE OSFXSR OSXMMEXCPT
                Efer = 0xD01, // NXE LMA LME SCE
            },
        };
    }

    private void WriteTables()
    {
        // The kernel's part: 2 MiB, identity-mapped, not for ring 3.
        Write(Pml4, Pdpt | Present | Writable | User);
        Write(Pdpt, Pd | Present | Writable | User);
        Write(Pd, LargePage | Present | Writable);
        Write(Pd + 8 * (Layout.CodeBase >> 21), CodePt | Present | Writable | User);
        Write(Pd + 8 * (Layout.Scratch >> 21), ScratchPt | Present | Writable | User);
        for (var page = 0UL; page < Layout.BatchSize * Layout.CodeSlot / 0x1000; page++)
            Write(CodePt + 8 * page, (CodePhysical + page * 0x1000) | Present | Writable | User);
        Write(ScratchPt, ScratchPhysical | Present | Writable | User);
        Write(ScratchPt + 8, (ScratchPhysical + 0x1000) | Present | Writable | User);
        Write(ScratchPt + 16, (ScratchPhysical + 0x2000) | Present | User);
        Write(ScratchPhysical + 0x2000, [.. Enumerable.Range(0, 0x1000).Select(Layout.ReadOnlyByte)]);

        Write(Gdt + KernelCode, 0x00AF_9B00_0000_FFFF);
        Write(Gdt + KernelData, 0x00CF_9300_0000_FFFF);
        Write(Gdt + 0x18, 0x00CF_F300_0000_FFFF);
        Write(Gdt + 0x20, 0x00AF_FB00_0000_FFFF);
        Write(Gdt + TssSelector, 0x0000_8B00_0000_0067 | (Tss << 16));
        Write(Tss + 4, KernelStack);
        Write<ushort>(Tss + 0x66, 0x68); // no I/O bitmap

        for (var vector = 0UL; vector < 256; vector++)
        {
            var stub = Stubs + vector * 4;
            var dpl = vector == 3 ? 3UL : 0;
            Write(Idt + vector * 16, (stub & 0xFFFF) | (ulong)KernelCode << 16 | (0x8E00 | dpl << 13) << 32);
            Write(stub, [0xE6, (byte)vector, 0xEB, 0xFE]); // out vector, al; then itself again
        }
    }

    private ulong Read(GuestAddress at) =>
        _memory.TryRead<ulong>(at, out var value) ? value : throw new InvalidOperationException($"no RAM at {at}");

    private void Write<T>(ulong at, T value) where T : unmanaged
    {
        if (!_memory.TryWrite(new GuestAddress(at), value)) throw new InvalidOperationException($"no RAM at 0x{at:x}");
    }

    private void Write(ulong at, byte[] bytes)
    {
        if (!_memory.TryWrite(new GuestAddress(at), bytes)) throw new InvalidOperationException($"no RAM at 0x{at:x}");
    }

    public void Dispose()
    {
        _machine.Dispose();
        _memory.Dispose();
    }
}
