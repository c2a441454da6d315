using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using V = System.Runtime.Intrinsics.Vector128<byte>;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Integer vector operations that are one expression, named after their instructions (SDM Vol. 2). Portable vector code where it exists;
/// otherwise the host's own instruction with a portable form of equal result.
/// </summary>
internal static partial class PackedOps
{
    private const MethodImplOptions In = MethodImplOptions.AggressiveInlining;

    internal readonly struct Paddb : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => a + b; }
    internal readonly struct Paddw : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt16() + b.AsInt16()).AsByte(); }
    internal readonly struct Paddd : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt32() + b.AsInt32()).AsByte(); }
    internal readonly struct Paddq : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt64() + b.AsInt64()).AsByte(); }
    internal readonly struct Psubb : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => a - b; }
    internal readonly struct Psubw : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt16() - b.AsInt16()).AsByte(); }
    internal readonly struct Psubd : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt32() - b.AsInt32()).AsByte(); }
    internal readonly struct Psubq : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt64() - b.AsInt64()).AsByte(); }

    internal readonly struct Paddsb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.AddSaturate(a.AsSByte(), b.AsSByte()).AsByte();
    }

    internal readonly struct Paddsw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.AddSaturate(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Paddusb : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.AddSaturate(a, b); }

    internal readonly struct Paddusw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.AddSaturate(a.AsUInt16(), b.AsUInt16()).AsByte();
    }

    internal readonly struct Psubsb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.SubtractSaturate(a.AsSByte(), b.AsSByte()).AsByte();
    }

    internal readonly struct Psubsw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.SubtractSaturate(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Psubusb : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.SubtractSaturate(a, b); }

    internal readonly struct Psubusw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.SubtractSaturate(a.AsUInt16(), b.AsUInt16()).AsByte();
    }

    internal readonly struct Pand : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => a & b; }
    internal readonly struct Pandn : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => ~a & b; }
    internal readonly struct Por : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => a | b; }
    internal readonly struct Pxor : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => a ^ b; }

    internal readonly struct Pcmpeqb : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.Equals(a, b); }

    internal readonly struct Pcmpeqw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Equals(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Pcmpeqd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Equals(a.AsInt32(), b.AsInt32()).AsByte();
    }

    internal readonly struct Pcmpeqq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Equals(a.AsInt64(), b.AsInt64()).AsByte();
    }

    internal readonly struct Pcmpgtb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.GreaterThan(a.AsSByte(), b.AsSByte()).AsByte();
    }

    internal readonly struct Pcmpgtw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.GreaterThan(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Pcmpgtd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.GreaterThan(a.AsInt32(), b.AsInt32()).AsByte();
    }

    internal readonly struct Pcmpgtq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.GreaterThan(a.AsInt64(), b.AsInt64()).AsByte();
    }

    internal readonly struct Pminub : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.Min(a, b); }
    internal readonly struct Pmaxub : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.Max(a, b); }

    internal readonly struct Pminsw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Min(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Pmaxsw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Max(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Pminsb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Min(a.AsSByte(), b.AsSByte()).AsByte();
    }

    internal readonly struct Pmaxsb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Max(a.AsSByte(), b.AsSByte()).AsByte();
    }

    internal readonly struct Pminuw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Min(a.AsUInt16(), b.AsUInt16()).AsByte();
    }

    internal readonly struct Pmaxuw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Max(a.AsUInt16(), b.AsUInt16()).AsByte();
    }

    internal readonly struct Pminsd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Min(a.AsInt32(), b.AsInt32()).AsByte();
    }

    internal readonly struct Pmaxsd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Max(a.AsInt32(), b.AsInt32()).AsByte();
    }

    internal readonly struct Pminud : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Min(a.AsUInt32(), b.AsUInt32()).AsByte();
    }

    internal readonly struct Pmaxud : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Max(a.AsUInt32(), b.AsUInt32()).AsByte();
    }

    // (a + b + 1) >> 1 without the ninth bit: (a | b) - ((a ^ b) >> 1).

    internal readonly struct Pavgb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => (a | b) - Vector128.ShiftRightLogical(a ^ b, 1);
    }

    internal readonly struct Pavgw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => ((a | b).AsUInt16() - Vector128.ShiftRightLogical((a ^ b).AsUInt16(), 1)).AsByte();
    }

    internal readonly struct Pmullw : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt16() * b.AsInt16()).AsByte(); }
    internal readonly struct Pmulld : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => (a.AsInt32() * b.AsInt32()).AsByte(); }

    internal readonly struct Pmulhw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Narrow(
            Vector128.ShiftRightArithmetic(Vector128.WidenLower(a.AsInt16()) * Vector128.WidenLower(b.AsInt16()), 16),
            Vector128.ShiftRightArithmetic(Vector128.WidenUpper(a.AsInt16()) * Vector128.WidenUpper(b.AsInt16()), 16)).AsByte();
    }

    internal readonly struct Pmulhuw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.Narrow(
            Vector128.ShiftRightLogical(Vector128.WidenLower(a.AsUInt16()) * Vector128.WidenLower(b.AsUInt16()), 16),
            Vector128.ShiftRightLogical(Vector128.WidenUpper(a.AsUInt16()) * Vector128.WidenUpper(b.AsUInt16()), 16)).AsByte();
    }

    internal readonly struct Pmulhrsw : IPacked
    {
        [MethodImpl(In)] public static V Calc(V a, V b) => Vector128.Narrow(
            Round(Vector128.WidenLower(a.AsInt16()) * Vector128.WidenLower(b.AsInt16())),
            Round(Vector128.WidenUpper(a.AsInt16()) * Vector128.WidenUpper(b.AsInt16()))).AsByte();

        [MethodImpl(In)]
        private static Vector128<int> Round(Vector128<int> product) =>
            Vector128.ShiftRightArithmetic(Vector128.ShiftRightArithmetic(product, 14) + Vector128<int>.One, 1);
    }

    internal readonly struct Pmuludq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse2.IsSupported
            ? Sse2.Multiply(a.AsUInt32(), b.AsUInt32()).AsByte()
            : ((a.AsUInt64() & Vector128.Create(0xFFFF_FFFFUL)) * (b.AsUInt64() & Vector128.Create(0xFFFF_FFFFUL))).AsByte();
    }

    internal readonly struct Pmuldq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sse41.IsSupported
            ? Sse41.Multiply(a.AsInt32(), b.AsInt32()).AsByte()
            : Vector128.Create(
                (long)a.AsInt32().GetElement(0) * b.AsInt32().GetElement(0),
                (long)a.AsInt32().GetElement(2) * b.AsInt32().GetElement(2)).AsByte();
    }

    internal readonly struct Pmaddwd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b)
        {
            var (al, ah) = (a.AsInt32(), Vector128.ShiftRightArithmetic(a.AsInt32(), 16));
            var (bl, bh) = (b.AsInt32(), Vector128.ShiftRightArithmetic(b.AsInt32(), 16));
            al = Vector128.ShiftRightArithmetic(Vector128.ShiftLeft(al, 16), 16);
            bl = Vector128.ShiftRightArithmetic(Vector128.ShiftLeft(bl, 16), 16);
            return (al * bl + ah * bh).AsByte();
        }
    }

    internal readonly struct Pmaddubsw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b)
        {
            var even = (a.AsUInt16() & Vector128.Create((ushort)0xFF)).AsInt16();
            var odd = Vector128.ShiftRightLogical(a.AsUInt16(), 8).AsInt16();
            var low = Vector128.ShiftRightArithmetic(Vector128.ShiftLeft(b.AsInt16(), 8), 8);
            var high = Vector128.ShiftRightArithmetic(b.AsInt16(), 8);
            return Vector128.AddSaturate(even * low, odd * high).AsByte();
        }
    }

    internal readonly struct Psadbw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b)
        {
            if (Sse2.IsSupported) return Sse2.SumAbsoluteDifferences(a, b).AsByte();
            var difference = Vector128.Max(a, b) - Vector128.Min(a, b);
            var words = (difference.AsUInt16() & Vector128.Create((ushort)0xFF)) + Vector128.ShiftRightLogical(difference.AsUInt16(), 8);
            return (((words.AsUInt64() * Vector128.Create(0x0001_0001_0001_0001UL)) >> 48)).AsByte();
        }
    }

    internal readonly struct Psignb : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sign(a.AsSByte(), b.AsSByte()).AsByte();
    }

    internal readonly struct Psignw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sign(a.AsInt16(), b.AsInt16()).AsByte();
    }

    internal readonly struct Psignd : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Sign(a.AsInt32(), b.AsInt32()).AsByte();
    }

    internal readonly struct Pabsb : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Sign(b.AsSByte(), b.AsSByte()).AsByte(); }
    internal readonly struct Pabsw : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Sign(b.AsInt16(), b.AsInt16()).AsByte(); }
    internal readonly struct Pabsd : IPacked { [MethodImpl(In)] public static V Calc(V a, V b) => Sign(b.AsInt32(), b.AsInt32()).AsByte(); }

    [MethodImpl(In)]
    private static Vector128<T> Sign<T>(Vector128<T> a, Vector128<T> b)
    {
        var negative = Vector128.LessThan(b, Vector128<T>.Zero);
        return Vector128.AndNot((a ^ negative) - negative, Vector128.Equals(b, Vector128<T>.Zero));
    }

    // Shift counts are the low 64 bits of the second operand; too large ones clear (or fill with the sign).

    internal readonly struct Psllw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Count(b) > 15 ? V.Zero : Vector128.ShiftLeft(a.AsInt16(), (int)Count(b)).AsByte();
    }

    internal readonly struct Pslld : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Count(b) > 31 ? V.Zero : Vector128.ShiftLeft(a.AsInt32(), (int)Count(b)).AsByte();
    }

    internal readonly struct Psllq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Count(b) > 63 ? V.Zero : Vector128.ShiftLeft(a.AsInt64(), (int)Count(b)).AsByte();
    }

    internal readonly struct Psrlw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Count(b) > 15 ? V.Zero : Vector128.ShiftRightLogical(a.AsInt16(), (int)Count(b)).AsByte();
    }

    internal readonly struct Psrld : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Count(b) > 31 ? V.Zero : Vector128.ShiftRightLogical(a.AsInt32(), (int)Count(b)).AsByte();
    }

    internal readonly struct Psrlq : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Count(b) > 63 ? V.Zero : Vector128.ShiftRightLogical(a.AsInt64(), (int)Count(b)).AsByte();
    }

    internal readonly struct Psraw : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.ShiftRightArithmetic(a.AsInt16(), (int)Math.Min(Count(b), 15)).AsByte();
    }

    internal readonly struct Psrad : IPacked
    {
        [MethodImpl(In)]
        public static V Calc(V a, V b) => Vector128.ShiftRightArithmetic(a.AsInt32(), (int)Math.Min(Count(b), 31)).AsByte();
    }

    [MethodImpl(In)]
    private static ulong Count(V b) => b.AsUInt64().ToScalar();
}
