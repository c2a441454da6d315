using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace ActorVmm.Backends.UserNet.Wire;

/// <summary>The ones' complement sum of IP, TCP, UDP and ICMP (RFC 1071), in host byte order until <see cref="Finish"/>.</summary>
internal static class InternetChecksum
{
    /// <summary>Adds the 16-bit words of <paramref name="bytes"/> to <paramref name="sum"/>; an odd last byte counts as the upper half of
    /// a word, so only the last piece of a message may be odd.</summary>
    public static ulong Add(ulong sum, ReadOnlySpan<byte> bytes)
    {
        // RFC 1071 §2(A): the sum may be taken in wider words, and in either byte order. Two chains, so that the adds overlap.
        var words = MemoryMarshal.Cast<byte, uint>(bytes);
        ulong a = 0, b = 0;
        var i = 0;
        for (; i + 1 < words.Length; i += 2)
        {
            a += words[i];
            b += words[i + 1];
        }
        if (i < words.Length) a += words[i];
        var rest = bytes[(words.Length * 4)..];
        if (rest.Length >= 2)
        {
            b += BinaryPrimitives.ReadUInt16LittleEndian(rest);
            rest = rest[2..];
        }
        if (rest.Length == 1) b += rest[0];
        return Fold32(sum) + Fold32(a) + Fold32(b);
    }

    /// <summary>Adds one 16-bit word that is in network order on the wire.</summary>
    public static ulong AddWord(ulong sum, ushort word) => sum + BinaryPrimitives.ReverseEndianness(word);

    /// <summary>The sum of the pseudo header (RFC 793 §3.1).</summary>
    public static ulong Pseudo(uint source, uint destination, byte protocol, int length)
    {
        ulong sum = 0;
        sum = AddWord(sum, (ushort)(source >> 16));
        sum = AddWord(sum, (ushort)source);
        sum = AddWord(sum, (ushort)(destination >> 16));
        sum = AddWord(sum, (ushort)destination);
        sum = AddWord(sum, protocol);
        return AddWord(sum, (ushort)length);
    }

    /// <summary>The sum folded to 16 bits, as it stands on the wire when read as little-endian; not complemented.</summary>
    public static ushort Fold(ulong sum)
    {
        var folded = (uint)Fold32(sum);
        folded = (folded & 0xffff) + (folded >> 16);
        return (ushort)((folded & 0xffff) + (folded >> 16));
    }

    /// <summary>The checksum field, as it stands on the wire when written as little-endian.</summary>
    public static ushort Finish(ulong sum) => (ushort)~Fold(sum);

    private static ulong Fold32(ulong sum)
    {
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        return (sum & 0xffff_ffff) + (sum >> 32);
    }
}
