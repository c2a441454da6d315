using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Instructions that only select bytes by an immediate, as pairs of 16-byte control vectors for <see cref="Packed.PermuteRr"/>: first the
/// selection from the destination, then that from the source. Made once per instruction and immediate, kept for ever (at most a few
/// thousand pairs of 32 bytes), shared by all CPUs.
/// </summary>
internal static unsafe class ShuffleControls
{
    private const int None = -1;
    private const int Source = 16;
    private static readonly ConcurrentDictionary<(Mnemonic, byte), nint> Pairs = new();

    /// <summary>True where the mnemonic is such an instruction.</summary>
    public static bool Knows(Mnemonic mnemonic) => mnemonic is Mnemonic.Pshufd or Mnemonic.Pshuflw or Mnemonic.Pshufhw or Mnemonic.Shufps
        or Mnemonic.Shufpd or Mnemonic.Palignr or Mnemonic.Pslldq or Mnemonic.Psrldq or Mnemonic.Pblendw or Mnemonic.Blendps
        or Mnemonic.Blendpd or Mnemonic.Insertps or Mnemonic.Movddup or Mnemonic.Movshdup or Mnemonic.Movsldup;

    /// <summary>Address of the two control vectors.</summary>
    public static nint Get(Mnemonic mnemonic, byte immediate) => Pairs.GetOrAdd((mnemonic, immediate), static key =>
    {
        var pair = (byte*)NativeMemory.AlignedAlloc(32, 16);
        for (var at = 0; at < 16; at++)
        {
            var from = Select(key.Item1, key.Item2, at);
            // SAFETY: at < 16 and the allocation has 32 bytes.
            pair[at] = from is >= 0 and < Source ? (byte)from : (byte)0xFF;
            pair[at + 16] = from >= Source ? (byte)(from - Source) : (byte)0xFF;
        }
        return (nint)pair;
    });

    /// <summary>Which byte becomes byte <paramref name="at"/>: 0-15 of the destination, 16-31 of the source, or none (zero).</summary>
    private static int Select(Mnemonic mnemonic, int imm, int at)
    {
        var (word, dword, qword) = (at / 2, at / 4, at / 8);
        var chosen = dword < 4 ? (imm >> (dword * 2)) & 3 : 0;
        switch (mnemonic)
        {
            case Mnemonic.Pshufd: return Source + chosen * 4 + at % 4;
            case Mnemonic.Pshuflw: return at >= 8 ? Source + at : Source + ((imm >> (word * 2)) & 3) * 2 + at % 2;
            case Mnemonic.Pshufhw: return at < 8 ? Source + at : Source + 8 + ((imm >> ((word - 4) * 2)) & 3) * 2 + at % 2;
            case Mnemonic.Shufps: return (dword >= 2 ? Source : 0) + chosen * 4 + at % 4;
            case Mnemonic.Shufpd: return (qword == 1 ? Source : 0) + ((imm >> qword) & 1) * 8 + at % 8;
            case Mnemonic.Palignr: return at + imm is var i && i < 16 ? Source + i : i < 32 ? i - 16 : None;
            case Mnemonic.Pslldq: return at >= imm ? at - imm : None;
            case Mnemonic.Psrldq: return at + imm < 16 ? at + imm : None;
            case Mnemonic.Pblendw: return ((imm >> word) & 1) != 0 ? Source + at : at;
            case Mnemonic.Blendps: return ((imm >> dword) & 1) != 0 ? Source + at : at;
            case Mnemonic.Blendpd: return ((imm >> qword) & 1) != 0 ? Source + at : at;
            case Mnemonic.Insertps:
                if (((imm >> dword) & 1) != 0) return None;
                return dword == ((imm >> 4) & 3) ? Source + ((imm >> 6) & 3) * 4 + at % 4 : at;
            case Mnemonic.Movddup: return Source + at % 8;
            case Mnemonic.Movshdup: return Source + (dword | 1) * 4 + at % 4;
            case Mnemonic.Movsldup: return Source + (dword & ~1) * 4 + at % 4;
            default: return at;
        }
    }
}
