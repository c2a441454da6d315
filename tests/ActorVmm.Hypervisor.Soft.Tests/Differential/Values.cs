using System.Buffers.Binary;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>Operand values that find bugs: borders, NaNs, denormals, and plain noise.</summary>
internal static class Values
{
    private static readonly ulong[] Borders =
    [
        0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000,
        0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FF80, 0xFFFF_FFFF_8000_0000,
        0xAAAA_AAAA_AAAA_AAAA,
    ];

    private static readonly uint[] Singles =
    [
        0, 0x8000_0000, 0x3F80_0000, 0xBF80_0000, 0x3FC0_0000, 0x3F00_0000, 0xBF00_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0xFFC0_1234,
        0x7F80_0001, 0xFFA0_0000, 0x0000_0001, 0x807F_FFFF, 0x0080_0000, 0x7F7F_FFFF, 0x4F00_0000, 0xCF00_0000, 0x4EFF_FFFF,
        0x5F00_0000, 0xDF00_0000, 0x4020_0000,
    ];

    private static readonly ulong[] Doubles =
    [
        0, 0x8000_0000_0000_0000, 0x3FF0_0000_0000_0000, 0xBFF0_0000_0000_0000, 0x3FF8_0000_0000_0000, 0x3FE0_0000_0000_0000,
        0x7FF0_0000_0000_0000,
        0xFFF0_0000_0000_0000, 0x7FF8_0000_0000_0000, 0xFFF8_0000_0000_4321, 0x7FF0_0000_0000_0001, 0xFFF4_0000_0000_0000, 1,
        0x800F_FFFF_FFFF_FFFF,
        0x0010_0000_0000_0000, 0x7FEF_FFFF_FFFF_FFFF, 0x41E0_0000_0000_0000, 0xC1E0_0000_0000_0000, 0x41DF_FFFF_FFFF_FFFF,
        0x43E0_0000_0000_0000,
        0xC3E0_0000_0000_0000, 0x4004_0000_0000_0000, 0x3690_0000_0000_0000, 0x47F0_0000_0000_0000,
    ];

    public static ulong Integer(Rng rng) => rng.Below(8) switch
    {
        0 or 1 => rng.Pick(Borders) + (ulong)rng.Below(3) - 1,
        2 or 3 => (ulong)rng.Below(100),
        4 => (uint)rng.Next(),
        5 => (ulong)(int)rng.Next(),
        _ => rng.Next(),
    };

    public static uint Single(Rng rng) => rng.Below(3) switch
    {
        0 => rng.Pick(Singles),
        1 => ((uint)rng.Next() & 0x807F_FFFF) | (uint)(127 - 12 + rng.Below(24)) << 23,
        _ => (uint)rng.Next(),
    };

    public static ulong Double(Rng rng) => rng.Below(3) switch
    {
        0 => rng.Pick(Doubles),
        1 => (rng.Next() & 0x800F_FFFF_FFFF_FFFF) | (ulong)(1023 - 30 + rng.Below(60)) << 52,
        _ => rng.Next(),
    };

    /// <summary>16 bytes of one kind of lane.</summary>
    public static void Vector(Rng rng, Span<byte> into)
    {
        switch (rng.Below(4))
        {
            case 0:
                for (var i = 0; i < 16; i += 4) BinaryPrimitives.WriteUInt32LittleEndian(into[i..], Single(rng));
                break;
            case 1:
                for (var i = 0; i < 16; i += 8) BinaryPrimitives.WriteUInt64LittleEndian(into[i..], Double(rng));
                break;
            case 2:
                for (var i = 0; i < 16; i += 8) BinaryPrimitives.WriteUInt64LittleEndian(into[i..], Integer(rng));
                break;
            default:
                rng.Fill(into);
                break;
        }
    }

    /// <summary>10 bytes of double extended precision: normals, zeros, infinities, NaNs, (pseudo-)denormals, unsupported forms.</summary>
    public static void Extended(Rng rng, Span<byte> into)
    {
        var significand = rng.Next() | 1UL << 63;
        var exponent = rng.Below(10) switch
        {
            0 => 0,
            1 => 0x7FFF,
            2 => rng.Below(0x8000),
            3 => 0x3FFF + 60 + rng.Below(8),
            _ => 0x3FFF - 20 + rng.Below(40),
        };
        switch (rng.Below(12))
        {
            case 0: significand = 0; exponent = 0; break;
            case 1: significand = 1UL << 63; break;
            case 2: significand = 3UL << 62; exponent = 0x7FFF; break;
            case 3: significand = (rng.Next() >> 2) | 1UL << 63; break;
            case 4: significand &= ulong.MaxValue >> rng.Below(64); break;
            case 5: significand &= ~0UL << rng.Below(64); break;
        }
        BinaryPrimitives.WriteUInt64LittleEndian(into, significand);
        BinaryPrimitives.WriteUInt16LittleEndian(into[8..], (ushort)(exponent | (rng.OneIn(2) ? 0x8000 : 0)));
    }
}
