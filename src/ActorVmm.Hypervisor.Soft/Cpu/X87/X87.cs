using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// The x87 unit (SDM Vol. 1 chapter 8): register stack, control and status, exceptions. Instructions are bodies that <see cref="Run"/>
/// calls through the op's Imm; a body answers false after an abort and has then changed nothing. Unmasked floating-point exceptions are
/// no abort: they set ES, and the next waiting instruction raises #MF (CR0.NE is taken as set; the external FERR# line of the PC/AT is
/// not modelled). The last-opcode register (FOP) is loaded and stored but not tracked, like on processors with fopcode compatibility off.
/// </summary>
internal static unsafe partial class X87
{
    public const ushort C0 = 1 << 8, C1 = 1 << 9, C2 = 1 << 10, C3 = 1 << 14;
    private const ushort Conditions = C0 | C1 | C2 | C3;
    private const ushort ErrorSummary = 1 << 7, Busy = 1 << 15;
    private const ulong Cr0Mp = 1 << 1;

    /// <summary>
    /// A waiting instruction that works on data: tests CR0 and pending faults, notes the instruction pointer, then runs the body.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(CpuState* s, Op* op)
    {
        if ((s->Cr0 & (VectorGuard.Cr0Em | VectorGuard.Cr0Ts)) != 0 || (s->FpuStatus & ErrorSummary) != 0)
        {
            Refuse(s, op);
            return;
        }
        if (!((delegate*<CpuState*, Op*, bool>)op->Imm)(s, op)) return;
        s->FpuIp = s->Rip + op->IpOffset;
        op[1].Fn(s, op + 1);
    }

    /// <summary>A waiting control instruction: leaves the instruction pointer alone.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void RunControl(CpuState* s, Op* op)
    {
        if ((s->Cr0 & (VectorGuard.Cr0Em | VectorGuard.Cr0Ts)) != 0 || (s->FpuStatus & ErrorSummary) != 0)
        {
            Refuse(s, op);
            return;
        }
        if (((delegate*<CpuState*, Op*, bool>)op->Imm)(s, op)) op[1].Fn(s, op + 1);
    }

    /// <summary>An instruction of the FN... kind: pending faults do not matter.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void RunNoWait(CpuState* s, Op* op)
    {
        if ((s->Cr0 & (VectorGuard.Cr0Em | VectorGuard.Cr0Ts)) != 0)
        {
            Flow.Raise(s, op, Vector.Nm);
            return;
        }
        if (((delegate*<CpuState*, Op*, bool>)op->Imm)(s, op)) op[1].Fn(s, op + 1);
    }

    /// <summary>WAIT/FWAIT: #NM only where both CR0.MP and CR0.TS are set.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Wait(CpuState* s, Op* op)
    {
        const ulong both = Cr0Mp | VectorGuard.Cr0Ts;
        if ((s->Cr0 & both) == both)
        {
            Flow.Raise(s, op, Vector.Nm);
            return;
        }
        if ((s->FpuStatus & ErrorSummary) != 0)
        {
            Flow.Raise(s, op, Vector.Mf);
            return;
        }
        op[1].Fn(s, op + 1);
    }

    private static void Refuse(CpuState* s, Op* op) =>
        Flow.Raise(s, op, (s->Cr0 & (VectorGuard.Cr0Em | VectorGuard.Cr0Ts)) != 0 ? Vector.Nm : Vector.Mf);

    /// <summary>The status word with TOP in place.</summary>
    public static ushort StatusWord(CpuState* s) => (ushort)((s->FpuStatus & ~0x3800) | (s->FpuTop << 11));

    /// <summary>Replaces control and status word (TOP aside); ES and B follow from the other bits.</summary>
    public static void LoadControl(CpuState* s, ushort control, ushort status)
    {
        s->FpuControl = (ushort)((control & 0x1F3F) | 0x40);
        s->FpuStatus = (ushort)(status & ~0x3800);
        UpdateSummary(s);
    }

    private static void UpdateSummary(CpuState* s)
    {
        var pending = (s->FpuStatus & ~s->FpuControl & (int)FpFlags.All) != 0;
        s->FpuStatus = (ushort)(pending ? s->FpuStatus | ErrorSummary | Busy : s->FpuStatus & ~(ErrorSummary | Busy));
    }

    /// <summary>The state after FNINIT.</summary>
    public static void Initialize(CpuState* s)
    {
        s->FpuControl = 0x37F;
        s->FpuStatus = 0;
        s->FpuTop = 0;
        s->FpuEmpty = 0xFF;
        s->FpuOpcode = 0;
        s->FpuIp = s->FpuDp = 0;
    }

    // --- the stack ---

    private static int Physical(CpuState* s, int n) => (s->FpuTop + n) & 7;

    private static bool IsEmpty(CpuState* s, int n) => (s->FpuEmpty >> Physical(s, n) & 1) != 0;

    private static Real Get(CpuState* s, int n) => Real.FromExtended(s->St[Physical(s, n)], s->StExponent[Physical(s, n)]);

    private static void Set(CpuState* s, int n, in Real value)
    {
        var at = Physical(s, n);
        (s->St[at], s->StExponent[at]) = value.ToExtended();
        s->FpuEmpty &= (ushort)~(1 << at);
    }

    private static void SetRaw(CpuState* s, int n, ulong significand, ushort signExponent)
    {
        var at = Physical(s, n);
        s->St[at] = significand;
        s->StExponent[at] = signExponent;
        s->FpuEmpty &= (ushort)~(1 << at);
    }

    private static void Pop(CpuState* s)
    {
        s->FpuEmpty |= (ushort)(1 << s->FpuTop);
        s->FpuTop = (ushort)((s->FpuTop + 1) & 7);
    }

    private static void PushSlot(CpuState* s) => s->FpuTop = (ushort)((s->FpuTop - 1) & 7);

    // --- exceptions ---

    private static FpEnvironment Environment(CpuState* s) => FpEnvironment.FromControlWord(s->FpuControl);

    /// <summary>Adds flags to the status word and sets C1.</summary>
    private static void Note(CpuState* s, FpFlags flags, bool c1)
    {
        s->FpuStatus = (ushort)((s->FpuStatus & ~C1) | (int)flags | (c1 ? C1 : 0));
        UpdateSummary(s);
    }

    private static void SetConditions(CpuState* s, int conditions) => s->FpuStatus = (ushort)((s->FpuStatus & ~Conditions) | conditions);

    /// <summary>
    /// Notes what an operation raised. False: an unmasked exception of the kind that is found before computing suppresses the result; later
    /// ones are then not reported.
    /// </summary>
    private static bool Accept(CpuState* s, in FpEnvironment env)
    {
        var flags = env.Flags;
        var delivered = (flags & FpFlags.BeforeResult & ~env.Masks) == 0;
        if (!delivered) flags &= FpFlags.BeforeResult;
        Note(s, flags, delivered && env.RoundedUp);
        return delivered;
    }

    /// <summary>Stack underflow (C1 = 0) or overflow (C1 = 1). True: masked, the indefinite value is to be delivered.</summary>
    private static bool StackFault(CpuState* s, bool overflow)
    {
        Note(s, FpFlags.Invalid | FpFlags.StackFault, overflow);
        return (s->FpuControl & (int)FpFlags.Invalid) != 0;
    }

    /// <summary>Delivers a result to a register, and pops where asked.</summary>
    private static bool Deliver(CpuState* s, int n, in Real value, in FpEnvironment env, int pops = 0)
    {
        if (!Accept(s, env)) return true;
        Set(s, n, value);
        while (pops-- > 0) Pop(s);
        return true;
    }

    /// <summary>Pushes a value that raised what <paramref name="env"/> says; handles overflow.</summary>
    private static bool Push(CpuState* s, in Real value, in FpEnvironment env)
    {
        if (!IsEmpty(s, 7))
        {
            if (StackFault(s, overflow: true))
            {
                PushSlot(s);
                Set(s, 0, Real.Indefinite);
            }
            return true;
        }
        if (!Accept(s, env)) return true;
        PushSlot(s);
        Set(s, 0, value);
        return true;
    }

    /// <summary>Notes the memory operand: its offset without the segment base.</summary>
    private static ulong Address(CpuState* s, Op* op, out ulong offset)
    {
        var at = AtAny.Of(s, op);
        offset = at - *(ulong*)((byte*)s + op->Seg);
        return at;
    }
}
