namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The operation of an x87 arithmetic op, in the low bits of its Aux.</summary>
internal enum X87Operation
{
    Add = 0,
    Multiply = 1,
    Subtract = 4,
    SubtractReversed = 5,
    Divide = 6,
    DivideReversed = 7,
}

/// <summary>Width and kind of a memory operand.</summary>
internal interface IX87Memory
{
    static abstract int Size { get; }

    static abstract Real Decode(ulong bits);

    static abstract bool IsInteger { get; }
}

internal readonly struct MemorySingle : IX87Memory
{
    public static int Size => 4;

    public static bool IsInteger => false;

    public static Real Decode(ulong bits) => Real.FromSingle((uint)bits);
}

internal readonly struct MemoryDouble : IX87Memory
{
    public static int Size => 8;

    public static bool IsInteger => false;

    public static Real Decode(ulong bits) => Real.FromDouble(bits);
}

internal readonly struct MemoryInt16 : IX87Memory
{
    public static int Size => 2;

    public static bool IsInteger => true;

    public static Real Decode(ulong bits) => Real.FromInteger((short)bits);
}

internal readonly struct MemoryInt32 : IX87Memory
{
    public static int Size => 4;

    public static bool IsInteger => true;

    public static Real Decode(ulong bits) => Real.FromInteger((int)bits);
}

internal readonly struct MemoryInt64 : IX87Memory
{
    public static int Size => 8;

    public static bool IsInteger => true;

    public static Real Decode(ulong bits) => Real.FromInteger((long)bits);
}

internal static unsafe partial class X87
{
    /// <summary>Aux: pop once, pop twice, quiet NaNs do not signal.</summary>
    public const ushort PopOnce = 0x10, PopTwice = 0x20, Unordered = 0x40;

    private static int Pops(Op* op) => (op->Aux >> 4) & 3;

    private static bool Read<TMemory>(CpuState* s, Op* op, out Real value, out ulong offset) where TMemory : struct, IX87Memory
    {
        var at = Address(s, op, out offset);
        var bits = TMemory.Size switch
        {
            2 => Mem.Read<ushort>(s, op, at),
            4 => Mem.Read<uint>(s, op, at),
            _ => Mem.Read<ulong>(s, op, at),
        };
        value = TMemory.Decode(bits);
        return s->Abort == Abort.None;
    }

    /// <summary>FADD ... FDIVR between registers: Dst takes (Dst operation Src), then pops.</summary>
    public static bool Arithmetic(CpuState* s, Op* op)
    {
        if (IsEmpty(s, op->Dst) || IsEmpty(s, op->Src))
        {
            if (!StackFault(s, overflow: false)) return true;
            Set(s, op->Dst, Real.Indefinite);
            for (var n = Pops(op); n > 0; n--) Pop(s);
            return true;
        }
        return Compute(s, op, op->Dst, Get(s, op->Dst), Get(s, op->Src));
    }

    /// <summary>FADD ... FIDIVR with memory: ST0 takes (ST0 operation memory).</summary>
    public static bool ArithmeticMemory<TMemory>(CpuState* s, Op* op) where TMemory : struct, IX87Memory
    {
        if (!Read<TMemory>(s, op, out var value, out var offset)) return false;
        s->FpuDp = offset;
        if (IsEmpty(s, 0))
        {
            if (StackFault(s, overflow: false)) Set(s, 0, Real.Indefinite);
            return true;
        }
        return Compute(s, op, 0, Get(s, 0), value);
    }

    private static bool Compute(CpuState* s, Op* op, int destination, in Real a, in Real b)
    {
        var env = Environment(s);
        var format = FpFormat.OfControlWord(s->FpuControl);
        var result = (X87Operation)(op->Aux & 7) switch
        {
            X87Operation.Add => SoftFloat.Add(a, b, format, ref env),
            X87Operation.Multiply => SoftFloat.Multiply(a, b, format, ref env),
            X87Operation.Subtract => SoftFloat.Subtract(a, b, format, ref env),
            X87Operation.SubtractReversed => SoftFloat.Subtract(b, a, format, ref env),
            X87Operation.Divide => SoftFloat.Divide(a, b, format, ref env),
            _ => SoftFloat.Divide(b, a, format, ref env),
        };
        return Deliver(s, destination, result, env, Pops(op));
    }

    public static bool SquareRoot(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0)) return UnderflowTop(s);
        var env = Environment(s);
        var result = SoftFloat.SquareRoot(Get(s, 0), FpFormat.OfControlWord(s->FpuControl), ref env);
        return Deliver(s, 0, result, env);
    }

    private static bool UnderflowTop(CpuState* s)
    {
        if (StackFault(s, overflow: false)) Set(s, 0, Real.Indefinite);
        return true;
    }

    // --- compares ---

    /// <summary>FCOM, FCOMP, FCOMPP, FUCOM...: ST0 against Src.</summary>
    public static bool Compare(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0) || IsEmpty(s, op->Src)) return CompareUnderflow(s, op);
        return CompareWith(s, op, Get(s, op->Src));
    }

    /// <summary>FCOM, FICOM with memory.</summary>
    public static bool CompareMemory<TMemory>(CpuState* s, Op* op) where TMemory : struct, IX87Memory
    {
        if (!Read<TMemory>(s, op, out var value, out var offset)) return false;
        s->FpuDp = offset;
        return IsEmpty(s, 0) ? CompareUnderflow(s, op) : CompareWith(s, op, value);
    }

    /// <summary>FTST.</summary>
    public static bool Test(CpuState* s, Op* op) => IsEmpty(s, 0) ? CompareUnderflow(s, op) : CompareWith(s, op, Real.Zero(false));

    private static bool CompareUnderflow(CpuState* s, Op* op)
    {
        var masked = StackFault(s, overflow: false);
        SetConditions(s, C3 | C2 | C0);
        for (var n = masked ? Pops(op) : 0; n > 0; n--) Pop(s);
        return true;
    }

    private static bool CompareWith(CpuState* s, Op* op, in Real b)
    {
        var env = Environment(s);
        var order = SoftFloat.Compare(Get(s, 0), b, (op->Aux & Unordered) == 0, ref env);
        var delivered = Accept(s, env);
        // The conditions are set even with an unmasked exception, as AMD's processors do; then nothing is popped.
        SetConditions(s, order switch
        {
            FpOrder.Unordered => C3 | C2 | C0,
            FpOrder.Less => C0,
            FpOrder.Equal => C3,
            _ => 0,
        });
        for (var n = delivered ? Pops(op) : 0; n > 0; n--) Pop(s);
        return true;
    }

    /// <summary>FCOMI, FUCOMI and their popping forms: the result goes to ZF, PF, CF.</summary>
    public static bool CompareToFlags(CpuState* s, Op* op)
    {
        FpOrder order;
        bool delivered;
        if (IsEmpty(s, 0) || IsEmpty(s, op->Src))
        {
            delivered = StackFault(s, overflow: false);
            order = FpOrder.Unordered;
        }
        else
        {
            var env = Environment(s);
            order = SoftFloat.Compare(Get(s, 0), Get(s, op->Src), (op->Aux & Unordered) == 0, ref env);
            // C1 changes with a stack underflow only (APM Vol. 5 FCOMI).
            var c1 = s->FpuStatus & C1;
            delivered = Accept(s, env);
            s->FpuStatus = (ushort)((s->FpuStatus & ~C1) | c1);
        }
        Flags.SetArithmetic(s, order switch
        {
            FpOrder.Unordered => Flags.Zf | Flags.Pf | Flags.Cf,
            FpOrder.Less => Flags.Cf,
            FpOrder.Equal => Flags.Zf,
            _ => 0,
        });
        for (var n = delivered ? Pops(op) : 0; n > 0; n--) Pop(s);
        return true;
    }

    /// <summary>FXAM (SDM Vol. 2 table 3-42).</summary>
    public static bool Examine(CpuState* s, Op* op)
    {
        var value = Get(s, 0);
        var conditions = value.Negative ? C1 : 0;
        if (IsEmpty(s, 0)) conditions |= C3 | C0;
        else conditions |= value.Class switch
        {
            RealClass.Unsupported => 0,
            RealClass.QuietNaN or RealClass.SignalingNaN => C0,
            RealClass.Infinity => C2 | C0,
            RealClass.Zero => C3,
            _ => value.Denormal ? C3 | C2 : C2,
        };
        SetConditions(s, conditions);
        return true;
    }

    // --- sign, exchange, conditional moves, stack pointer ---

    public static bool ChangeSign(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0)) return UnderflowTop(s);
        s->StExponent[s->FpuTop] ^= 0x8000;
        s->FpuStatus &= unchecked((ushort)~C1);
        return true;
    }

    public static bool Absolute(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0)) return UnderflowTop(s);
        s->StExponent[s->FpuTop] &= 0x7FFF;
        s->FpuStatus &= unchecked((ushort)~C1);
        return true;
    }

    public static bool Exchange(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0) || IsEmpty(s, op->Src))
        {
            if (!StackFault(s, overflow: false)) return true;
            if (IsEmpty(s, 0)) Set(s, 0, Real.Indefinite);
            if (IsEmpty(s, op->Src)) Set(s, op->Src, Real.Indefinite);
        }
        else
        {
            s->FpuStatus &= unchecked((ushort)~C1);
        }
        var (a, b) = (Physical(s, 0), Physical(s, op->Src));
        (s->St[a], s->St[b]) = (s->St[b], s->St[a]);
        (s->StExponent[a], s->StExponent[b]) = (s->StExponent[b], s->StExponent[a]);
        return true;
    }

    /// <summary>
    /// FCMOVcc: Aux holds the condition (0 B, 1 E, 2 BE, 3 U), plus 4 for its negation. C1 changes with a stack underflow only.
    /// </summary>
    public static bool ConditionalMove(CpuState* s, Op* op)
    {
        if (IsEmpty(s, 0) || IsEmpty(s, op->Src)) return UnderflowTop(s);
        var holds = (op->Aux & 3) switch
        {
            0 => Flags.Carry(s),
            1 => Flags.Zero(s),
            2 => Flags.Carry(s) || Flags.Zero(s),
            _ => Flags.Parity(s),
        };
        if (holds != ((op->Aux & 4) != 0)) SetRaw(s, 0, s->St[Physical(s, op->Src)], s->StExponent[Physical(s, op->Src)]);
        return true;
    }

    public static bool IncrementTop(CpuState* s, Op* op)
    {
        s->FpuTop = (ushort)((s->FpuTop + 1) & 7);
        s->FpuStatus &= unchecked((ushort)~C1);
        return true;
    }

    public static bool DecrementTop(CpuState* s, Op* op)
    {
        PushSlot(s);
        s->FpuStatus &= unchecked((ushort)~C1);
        return true;
    }

    /// <summary>FFREE, and FFREEP where Aux asks for a pop.</summary>
    public static bool Free(CpuState* s, Op* op)
    {
        s->FpuEmpty |= (ushort)(1 << Physical(s, op->Src));
        s->FpuStatus &= unchecked((ushort)~C1);
        for (var n = Pops(op); n > 0; n--) Pop(s);
        return true;
    }

    public static bool NoOperation(CpuState* s, Op* op) => true;
}
