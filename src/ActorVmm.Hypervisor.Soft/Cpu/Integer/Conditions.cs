using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>What the decoder knows of the lazy flags where a condition is tested.</summary>
internal interface IKnownKind;

/// <summary>Nothing.</summary>
internal readonly struct AnyKind : IKnownKind;

/// <summary>A compare or subtraction without borrow: every order condition is one 64-bit comparison.</summary>
internal readonly struct SubKind : IKnownKind;

/// <summary>A logical operation or test: CF and OF are clear.</summary>
internal readonly struct LogicKind : IKnownKind;

/// <summary>INC, DEC, ADD, shifts: ZF, SF follow from the result, the rest is asked for.</summary>
internal readonly struct ResultKind : IKnownKind;

/// <summary>A condition code (SDM Vol. 1 Appendix B).</summary>
internal interface ICondition
{
    static abstract unsafe bool Test<TK>(CpuState* s) where TK : struct, IKnownKind;
}

internal readonly unsafe struct CondO : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => typeof(TK) != typeof(LogicKind) && Flags.Overflow(s);
}

internal readonly unsafe struct CondNo : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !CondO.Test<TK>(s);
}

internal readonly unsafe struct CondB : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind =>
        typeof(TK) == typeof(SubKind) ? (ulong)s->FlagA < (ulong)s->FlagB : typeof(TK) != typeof(LogicKind) && Flags.Carry(s);
}

internal readonly unsafe struct CondAe : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !CondB.Test<TK>(s);
}

internal readonly unsafe struct CondE : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => typeof(TK) == typeof(AnyKind) ? Flags.Zero(s) : s->FlagR == 0;
}

internal readonly unsafe struct CondNe : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !CondE.Test<TK>(s);
}

internal readonly unsafe struct CondBe : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind =>
        typeof(TK) == typeof(SubKind) ? (ulong)s->FlagA <= (ulong)s->FlagB
        : typeof(TK) == typeof(LogicKind) ? s->FlagR == 0
        : Flags.Carry(s) || Flags.Zero(s);
}

internal readonly unsafe struct CondA : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !CondBe.Test<TK>(s);
}

internal readonly unsafe struct CondS : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => typeof(TK) == typeof(AnyKind) ? Flags.Sign(s) : s->FlagR < 0;
}

internal readonly unsafe struct CondNs : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !CondS.Test<TK>(s);
}

internal readonly unsafe struct CondP : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => Flags.Parity(s);
}

internal readonly unsafe struct CondNp : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !Flags.Parity(s);
}

internal readonly unsafe struct CondL : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind =>
        typeof(TK) == typeof(SubKind) ? s->FlagA < s->FlagB
        : typeof(TK) == typeof(LogicKind) ? s->FlagR < 0
        : Flags.Sign(s) != Flags.Overflow(s);
}

internal readonly unsafe struct CondGe : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !CondL.Test<TK>(s);
}

internal readonly unsafe struct CondLe : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind =>
        typeof(TK) == typeof(SubKind) ? s->FlagA <= s->FlagB
        : typeof(TK) == typeof(LogicKind) ? s->FlagR <= 0
        : Flags.Zero(s) || Flags.Sign(s) != Flags.Overflow(s);
}

internal readonly unsafe struct CondG : ICondition
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Test<TK>(CpuState* s) where TK : struct, IKnownKind => !CondLe.Test<TK>(s);
}
