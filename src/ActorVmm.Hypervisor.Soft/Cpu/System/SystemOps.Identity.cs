using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>CPUID, time stamp, MSRs, FS and GS bases.</summary>
internal static unsafe partial class SystemOps
{
    public static bool CpuidInstruction(SoftCpu cpu, CpuState* s, Op* op)
    {
        var result = Cpuid.Query((uint)s->Regs[0], (uint)s->Regs[1], cpu.Identity);
        s->Regs[0] = result.Eax;
        s->Regs[3] = result.Ebx;
        s->Regs[1] = result.Ecx;
        s->Regs[2] = result.Edx;
        return true;
    }

    public static bool Rdtsc(SoftCpu cpu, CpuState* s, Op* op)
    {
        if ((s->Cr4 & Cr4Bits.Tsd) != 0 && s->Cpl != 0) return Gp(s, op);
        SetPair(s, cpu.ReadTsc(op));
        return true;
    }

    public static bool Rdtscp(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Rdtsc(cpu, s, op)) return false;
        s->Regs[1] = (uint)s->TscAux;
        return true;
    }

    /// <summary>There are no performance counters, so every index is invalid.</summary>
    public static bool Rdpmc(SoftCpu cpu, CpuState* s, Op* op) => Gp(s, op);

    public static bool Rdmsr(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        if (!cpu.TryReadMsr(op, (uint)s->Regs[1], out var value)) return Gp(s, op);
        SetPair(s, value);
        return true;
    }

    public static bool Wrmsr(SoftCpu cpu, CpuState* s, Op* op)
    {
        if (!Privileged(s, op)) return false;
        cpu.NoteOutside();
        return cpu.TryWriteMsr(op, (uint)s->Regs[1], Pair(s)) || Gp(s, op);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Swapgs(CpuState* s, Op* op)
    {
        if (s->Cpl != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return;
        }
        var kernel = s->KernelGsBase;
        s->KernelGsBase = s->SegBase[SoftCpu.SegGs];
        s->SegBase[SoftCpu.SegGs] = kernel;
        op[1].Fn(s, op + 1);
    }

    /// <summary>RDFSBASE, RDGSBASE: Aux holds operand size and, above it, the segment number.</summary>
    public static bool ReadBase(SoftCpu cpu, CpuState* s, Op* op)
    {
        if ((s->Cr4 & Cr4Bits.FsGsBase) == 0) return Ud(s, op);
        SetRegister(s, op->Dst, s->SegBase[op->Aux >> 8], op->Aux & 0xFF);
        return true;
    }

    public static bool WriteBase(SoftCpu cpu, CpuState* s, Op* op)
    {
        if ((s->Cr4 & Cr4Bits.FsGsBase) == 0) return Ud(s, op);
        var value = (op->Aux & 0xFF) == 8 ? Reg.Get<ulong>(s, op->Src) : Reg.Get<uint>(s, op->Src);
        if (!SoftCpu.IsCanonical(value)) return Gp(s, op);
        s->SegBase[op->Aux >> 8] = value;
        return true;
    }
}
