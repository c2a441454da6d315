using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Soft.Cpu;
using ActorVmm.Memory;
using Iced.Intel;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

/// <summary>One core with descriptor tables in RAM, brought into the mode that a test wants through the CPU's own rules.</summary>
internal sealed unsafe class SystemBench : IDisposable
{
    public const ulong Pml4 = 0x1000, Gdt = 0x4000, Idt = 0x5000, Tss = 0x6000, Code = 0x1_0000, Stack = 0x2_0000, Stack0 = 0x3_0000, Ist1 = 0x3_8000, UserStack = 0x4_0000;

    public const ushort Code64 = 0x08, Data = 0x10, Code32 = 0x18, UserCode32 = 0x20, UserData = 0x28, UserCode64 = 0x30, AbsentData = 0x38,
        TaskState = 0x40, FreshData = 0x50, ReadOnlyData = 0x58, Code16 = 0x60, Gate = 0x68, Conforming = 0x78, GdtLimit = 0x7F;

    private readonly GuestMemory _memory = GuestMemory.Create(16 << 20);
    private readonly SoftMachine _machine;
    private readonly Op* _op;

    /// <param name="compileThreshold">See <see cref="SoftOptions.CompileThreshold"/>.</param>
    /// <param name="lockStep">See <see cref="MachineOptions.LockStep"/>; then under virtual time.</param>
    public SystemBench(int compileThreshold = SoftOptions.DefaultThreshold, bool lockStep = false, int vcpus = 1, ClockMode mode = ClockMode.Host, SoftOptions? settings = null)
    {
        var clock = lockStep ? ClockMode.Virtual : mode;
        _machine = new SoftMachine(
            new MachineOptions(_memory, vcpus, clock) { CompileThreshold = settings == null ? compileThreshold : null, LockStep = lockStep }, settings);
        Cpu = ((SoftVcpu)_machine.Vcpus[0]).Cpu;
        // SAFETY: one zeroed op, freed in Dispose; the code under test reads its address fields only.
        _op = (Op*)NativeMemory.AllocZeroed((nuint)sizeof(Op));
        ulong[] descriptors =
        [
            0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_9B00_0000_FFFF, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF,
            0x00AF_FB00_0000_FFFF, 0x00CF_1300_0000_FFFF, 0x0000_8900_6000_0067, 0, 0x00CF_9200_0000_FFFF, 0x00CF_9100_0000_FFFF,
            0x0000_9B00_0000_FFFF, 0, 0, 0x00CF_9F00_0000_FFFF,
        ];
        for (var i = 0; i < descriptors.Length; i++) Write(Gdt + (ulong)i * 8, descriptors[i]);
        Write(Pml4, 0x2007UL);
        Write(0x2000, 0x3007UL);
        for (ulong i = 0; i < 8; i++) Write(0x3000 + i * 8, i << 21 | 0x87);
        Write(Tss + 4, Stack0);
        Write(Tss + 36, Ist1);
    }

    public SoftCpu Cpu { get; }

    public CpuState* S => Cpu.State;

    public Op* Op => _op;

    public IMachine Machine => _machine;

    public IVcpu Vcpu => _machine.Vcpus[0];

    public void Write<T>(ulong at, T value) where T : unmanaged => Assert.True(_memory.TryWrite(new GuestAddress(at), value));

    public T Read<T>(ulong at) where T : unmanaged
    {
        Assert.True(_memory.TryRead(new GuestAddress(at), out T value));
        return value;
    }

    /// <summary>32-bit protected mode, flat, ring 0, without paging.</summary>
    public SystemBench Protected()
    {
        (S->GdtBase, S->GdtLimit, S->IdtBase, S->IdtLimit) = (Gdt, GdtLimit, Idt, 0xFFF);
        Ok(Cpu.WriteControl(0, Cr0Bits.Pe));
        Ok(Cpu.FarJump(Code32, Code));
        LoadData(Data);
        Ok(Cpu.LoadTaskRegister(TaskState));
        S->Regs[4] = Stack;
        // The 32-bit TSS keeps ESP0 and SS0 where the 64-bit one keeps RSP0.
        Write(Tss + 4, (uint)Stack0);
        Write(Tss + 8, (uint)Data);
        return this;
    }

    /// <summary>64-bit mode, ring 0, the first 16 MiB mapped for everybody.</summary>
    public SystemBench Long()
    {
        (S->GdtBase, S->GdtLimit, S->IdtBase, S->IdtLimit) = (Gdt, GdtLimit, Idt, 0xFFF);
        Ok(Cpu.WriteControl(0, Cr0Bits.Pe));
        Ok(Cpu.FarJump(Code32, Code));
        LoadData(Data);
        Ok(Cpu.WriteControl(4, Cr4Bits.Pae));
        Ok(Cpu.WriteControl(3, Pml4));
        Ok(Cpu.TryWriteMsr(null, Msr.Efer, EferBits.Lme | EferBits.Sce | EferBits.Nxe));
        Ok(Cpu.WriteControl(0, Cr0Bits.Pe | Cr0Bits.Pg | Cr0Bits.Wp));
        Ok(Cpu.FarJump(Code64, Code));
        Ok(Cpu.LoadTaskRegister(TaskState));
        S->Regs[4] = Stack;
        Assert.Equal(CodeMode.Bits64, S->Mode);
        return this;
    }

    /// <summary>From ring 0 to ring 3 by IRET.</summary>
    public SystemBench Ring3(ushort code)
    {
        Frame(Cpu.Mode64 ? 8 : 4, Code, code | 3u, 0x202, UserStack, UserData | 3u);
        Ok(Cpu.InterruptReturn(Op, Cpu.Mode64 ? 8 : 4));
        Assert.Equal(3, S->Cpl);
        return this;
    }

    private void LoadData(ushort selector)
    {
        foreach (var number in (int[])[SoftCpu.SegDs, SoftCpu.SegEs, SoftCpu.SegSs]) Ok(Cpu.LoadDataSegment(number, selector));
    }

    /// <summary>Puts words on the stack so that the first is on top.</summary>
    public void Frame(int size, params ulong[] words)
    {
        S->Regs[4] -= (ulong)(words.Length * size);
        for (var i = 0; i < words.Length; i++)
        {
            var at = S->Regs[4] + (ulong)(i * size);
            if (size == 8) Write(at, words[i]);
            else if (size == 4) Write(at, (uint)words[i]);
            else Write(at, (ushort)words[i]);
        }
    }

    /// <summary>A 64-bit interrupt or trap gate.</summary>
    public void Gate64(int vector, ushort selector, ulong target, int type = 14, int dpl = 0, int ist = 0, bool present = true)
    {
        Write(Idt + (ulong)vector * 16, GateDescriptor(selector, target, type, dpl, present) | (ulong)ist << 32);
        Write(Idt + (ulong)vector * 16 + 8, target >> 32);
    }

    public void Gate32(int vector, ushort selector, ulong target, int type = 14, int dpl = 0) =>
        Write(Idt + (ulong)vector * 8, GateDescriptor(selector, target, type, dpl, present: true));

    public static ulong GateDescriptor(ushort selector, ulong target, int type, int dpl, bool present, int parameters = 0) =>
        (target & 0xFFFF) | (ulong)selector << 16 | (ulong)parameters << 32 | (ulong)(type | dpl << 5 | (present ? 0x80 : 0)) << 40 | (target & 0xFFFF_0000) << 32;

    public void Ok(bool done)
    {
        Assert.True(done, $"raised vector {S->ExceptionVector} code 0x{S->ExceptionErrorCode:x}");
        Assert.Equal(Abort.None, S->Abort);
    }

    /// <summary>The fault that a method raised; it is taken back afterwards.</summary>
    public (int Vector, uint? Code) Fault(bool done)
    {
        Assert.False(done);
        Assert.Equal(Abort.Exception, S->Abort);
        S->Abort = Abort.None;
        return (S->ExceptionVector, S->HasErrorCode != 0 ? S->ExceptionErrorCode : null);
    }

    /// <summary>Delivers an exception as the run loop does.</summary>
    public void Raise(int vector, uint? code = null)
    {
        (S->Abort, S->ExceptionVector, S->HasErrorCode, S->ExceptionErrorCode) = (Abort.Exception, vector, code.HasValue ? 1 : 0, code ?? 0);
        Cpu.DeliverException();
    }

    /// <summary>Assembles at <see cref="Code"/> (or elsewhere) and runs until the guest halts with interrupts off.</summary>
    public void RunToHalt(int bits, Action<Assembler> program, ulong at = Code)
    {
        Place(bits, program, at);
        S->Rip = at;
        var exit = Vcpu.Run();
        Assert.True(exit == VcpuExitKind.Halted, $"{exit} at 0x{S->Rip:x}: vector {S->ExceptionVector} code 0x{S->ExceptionErrorCode:x} {Vcpu.Exit.Detail}");
    }

    public void Place(int bits, Action<Assembler> program, ulong at)
    {
        var assembler = new Assembler(bits);
        program(assembler);
        using var bytes = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(bytes), at);
        Assert.True(_memory.TryWrite(new GuestAddress(at), bytes.ToArray()));
    }

    public void Dispose()
    {
        NativeMemory.Free(_op);
        _machine.Dispose();
        _memory.Dispose();
    }
}
