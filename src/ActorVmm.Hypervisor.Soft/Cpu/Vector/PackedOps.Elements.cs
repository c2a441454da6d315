using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using V = System.Runtime.Intrinsics.Vector128<byte>;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Integer vector operations that move elements: packing, interleaving, horizontal sums, widening.</summary>
internal static partial class PackedOps
{
    internal readonly struct Packsswb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.NarrowWithSaturation(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Packssdw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.NarrowWithSaturation(a.AsInt32(), b.AsInt32()).AsByte();
    }

    internal readonly struct Packuswb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.NarrowWithSaturation(
            Vector128.Max(a.AsInt16(), Vector128<short>.Zero).AsUInt16(), Vector128.Max(b.AsInt16(), Vector128<short>.Zero).AsUInt16());
    }

    internal readonly struct Packusdw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.NarrowWithSaturation(
            Vector128.Max(a.AsInt32(), Vector128<int>.Zero).AsUInt32(), Vector128.Max(b.AsInt32(),
                Vector128<int>.Zero).AsUInt32()).AsByte();
    }

    internal readonly struct Punpcklbw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse2.IsSupported ? Sse2.UnpackLow(a, b)
            : (Vector128.WidenLower(a) | Vector128.ShiftLeft(Vector128.WidenLower(b), 8)).AsByte();
    }

    internal readonly struct Punpckhbw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse2.IsSupported ? Sse2.UnpackHigh(a, b)
            : (Vector128.WidenUpper(a) | Vector128.ShiftLeft(Vector128.WidenUpper(b), 8)).AsByte();
    }

    internal readonly struct Punpcklwd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse2.IsSupported ? Sse2.UnpackLow(a.AsUInt16(), b.AsUInt16()).AsByte()
            : (Vector128.WidenLower(a.AsUInt16()) | Vector128.ShiftLeft(Vector128.WidenLower(b.AsUInt16()), 16)).AsByte();
    }

    internal readonly struct Punpckhwd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse2.IsSupported ? Sse2.UnpackHigh(a.AsUInt16(), b.AsUInt16()).AsByte()
            : (Vector128.WidenUpper(a.AsUInt16()) | Vector128.ShiftLeft(Vector128.WidenUpper(b.AsUInt16()), 16)).AsByte();
    }

    internal readonly struct Punpckldq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse2.IsSupported ? Sse2.UnpackLow(a.AsUInt32(), b.AsUInt32()).AsByte()
            : (Vector128.WidenLower(a.AsUInt32()) | Vector128.ShiftLeft(Vector128.WidenLower(b.AsUInt32()), 32)).AsByte();
    }

    internal readonly struct Punpckhdq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse2.IsSupported ? Sse2.UnpackHigh(a.AsUInt32(), b.AsUInt32()).AsByte()
            : (Vector128.WidenUpper(a.AsUInt32()) | Vector128.ShiftLeft(Vector128.WidenUpper(b.AsUInt32()), 32)).AsByte();
    }

    internal readonly struct Punpcklqdq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Create(a.GetLower(), b.GetLower());
    }

    internal readonly struct Punpckhqdq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Create(a.GetUpper(), b.GetUpper());
    }

    internal readonly struct Pshufb : IPacked
    {
        // Bits 4 to 6 do not count.
        [MethodImpl(In)] public static V Calc(V a, V b) => Bytes.Select(a, b & Vector128.Create((byte)0x8F));
    }

    // Even and odd elements of a:b side by side, then one vertical operation.
    internal readonly struct Phaddw : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (EvenW(a, b) + OddW(a, b)).AsByte(); }
    internal readonly struct Phsubw : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (EvenW(a, b) - OddW(a, b)).AsByte(); }

    internal readonly struct Phaddsw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.AddSaturate(EvenW(a, b), OddW(a, b)).AsByte();
    }

    internal readonly struct Phsubsw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.SubtractSaturate(EvenW(a, b), OddW(a, b)).AsByte();
    }

    internal readonly struct Phaddd : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (EvenD(a, b) + OddD(a, b)).AsByte(); }
    internal readonly struct Phsubd : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (EvenD(a, b) - OddD(a, b)).AsByte(); }

    [MethodImpl(In)]
    private static Vector128<short> EvenW(V a, V b) => Vector128.Narrow(a.AsInt32(), b.AsInt32());

    [MethodImpl(In)]
    private static Vector128<short> OddW(V a, V b) =>
        Vector128.Narrow(Vector128.ShiftRightLogical(a.AsInt32(), 16), Vector128.ShiftRightLogical(b.AsInt32(), 16));

    [MethodImpl(In)]
    private static Vector128<int> EvenD(V a, V b) => Vector128.Narrow(a.AsInt64(), b.AsInt64());

    [MethodImpl(In)]
    private static Vector128<int> OddD(V a, V b) =>
        Vector128.Narrow(Vector128.ShiftRightLogical(a.AsInt64(), 32), Vector128.ShiftRightLogical(b.AsInt64(), 32));

    /// <summary>MMX operations that use both halves of a vector: they see b above a, the result is one half of the vector result.</summary>
    internal readonly struct Joined<T> : IPacked where T : struct, IPacked
    {
        [MethodImpl(In)] public static V Calc(V a, V b) => T.Calc(Vector128.Create(a.GetLower(), b.GetLower()), V.Zero);
    }

    /// <summary>MMX unpack-high: the upper half of what the vector form makes of the low eight bytes.</summary>
    internal readonly struct UpperHalf<T> : IPacked where T : struct, IPacked
    {
        [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.Create(T.Calc(a, b).GetUpper(), Vector64<byte>.Zero);
    }

    internal readonly struct PshufbMmx : IPacked
    {
        [MethodImpl(In)] public static V Calc(V a, V b) => Bytes.Select(a, b & Vector128.Create((byte)0x87));
    }

    // Sign and zero extension of the low elements.

    internal readonly struct Pmovsxbw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(b.AsSByte()).AsByte();
    }

    internal readonly struct Pmovsxbd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(Vector128.WidenLower(b.AsSByte())).AsByte();
    }

    internal readonly struct Pmovsxbq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(Vector128.WidenLower(Vector128.WidenLower(b.AsSByte()))).AsByte();
    }

    internal readonly struct Pmovsxwd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(b.AsInt16()).AsByte();
    }

    internal readonly struct Pmovsxwq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(Vector128.WidenLower(b.AsInt16())).AsByte();
    }

    internal readonly struct Pmovsxdq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(b.AsInt32()).AsByte();
    }

    internal readonly struct Pmovzxbw : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.WidenLower(b).AsByte(); }

    internal readonly struct Pmovzxbd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(Vector128.WidenLower(b)).AsByte();
    }

    internal readonly struct Pmovzxbq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(Vector128.WidenLower(Vector128.WidenLower(b))).AsByte();
    }

    internal readonly struct Pmovzxwd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(b.AsUInt16()).AsByte();
    }

    internal readonly struct Pmovzxwq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(Vector128.WidenLower(b.AsUInt16())).AsByte();
    }

    internal readonly struct Pmovzxdq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.WidenLower(b.AsUInt32()).AsByte();
    }
}
