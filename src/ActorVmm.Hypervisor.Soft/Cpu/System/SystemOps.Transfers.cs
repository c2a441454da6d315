namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Transfers of control that change CS: interrupts, far jumps, fast calls. In <see cref="Op.Aux"/>: vector, operand size or parameter bytes.</summary>
internal static unsafe partial class SystemOps
{
    public static bool Int(SoftCpu cpu, CpuState* s, Op* op) => cpu.SoftwareInterrupt(op, op->Aux, InterruptKind.Software);
    public static bool Int3(SoftCpu cpu, CpuState* s, Op* op) => cpu.SoftwareInterrupt(op, Vector.Bp, InterruptKind.SoftwareException);
    public static bool Int1(SoftCpu cpu, CpuState* s, Op* op) => cpu.SoftwareInterrupt(op, Vector.Db, InterruptKind.PrivilegedSoftware);

    public static bool Into(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (Flags.Overflow(s)) return cpu.SoftwareInterrupt(op, Vector.Of, InterruptKind.SoftwareException);
        s->Rip = cpu.NextRip(op);
        return true;
    }

    public static bool Iret(SoftCpu cpu, CpuState* s, Op* op) => cpu.InterruptReturn(op, op->Aux);

    public static bool Syscall(SoftCpu cpu, CpuState* s, Op* op) => cpu.Syscall(op);
    public static bool Sysret(SoftCpu cpu, CpuState* s, Op* op) => cpu.Sysret(op->Aux == 8);
    public static bool Sysenter(SoftCpu cpu, CpuState* s, Op* op) => cpu.Sysenter();
    public static bool Sysexit(SoftCpu cpu, CpuState* s, Op* op) => cpu.Sysexit(op->Aux == 8);

    /// <summary>JMP ptr16:16/32: selector in Aux, offset in Disp.</summary>
    public static bool JumpFar(SoftCpu cpu, CpuState* s, Op* op) => cpu.FarJump(op->Aux, (uint)op->Disp);

    /// <summary>CALL ptr16:16/32: the operand size in Scale.</summary>
    public static bool CallFar(SoftCpu cpu, CpuState* s, Op* op) => cpu.FarCall(op, op->Aux, (uint)op->Disp, op->Scale);

    public static bool JumpFarMemory(SoftCpu cpu, CpuState* s, Op* op) =>
        ReadFarPointer(s, op, op->Aux, out var selector, out var offset) && cpu.FarJump(selector, offset);

    public static bool CallFarMemory(SoftCpu cpu, CpuState* s, Op* op) =>
        ReadFarPointer(s, op, op->Aux, out var selector, out var offset) && cpu.FarCall(op, selector, offset, op->Aux);

    /// <summary>RETF imm16: the operand size in Scale.</summary>
    public static bool RetFar(SoftCpu cpu, CpuState* s, Op* op) => cpu.FarReturn(op, op->Scale, op->Aux);
}
