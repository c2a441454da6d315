using System.Buffers.Binary;

namespace ActorVmm.Backends.UserNet.Wire;

/// <summary>Control bits of a TCP segment (RFC 9293 §3.1).</summary>
[Flags]
internal enum TcpFlags : byte
{
    None = 0,
    Fin = 1,
    Syn = 2,
    Reset = 4,
    Push = 8,
    Ack = 16,
}

/// <summary>
/// One TCP header (RFC 9293 §3.1), and of its options what matters here.
/// <code>
///   0 source port   2 destination port   4 sequence   8 acknowledgment
///   12 header words   13 control bits   14 window   16 checksum   18 urgent   20 options
/// </code>
/// </summary>
/// <param name="MaxSegment">Option 2; 0 where it is missing.</param>
/// <param name="WindowScale">Option 3; -1 where it is missing.</param>
internal readonly record struct Tcp(
    ushort Source, ushort Destination, uint Sequence, uint Acknowledgment, TcpFlags Flags, ushort Window, int HeaderLength,
    ushort MaxSegment, sbyte WindowScale)
{
    public const int MinLength = 20;
    public const int ChecksumOffset = 16;

    /// <summary>MSS (4 bytes), then NOP and window scale (4 bytes).</summary>
    public const int SynOptionsLength = 8;

    /// <summary>Reads a header; false where it is cut off. Malformed options are as if they were not there.</summary>
    public static bool TryRead(ReadOnlySpan<byte> from, out Tcp tcp)
    {
        tcp = default;
        if (from.Length < MinLength) return false;
        var header = (from[12] >> 4) * 4;
        if (header < MinLength || header > from.Length) return false;
        var flags = (TcpFlags)(from[13] & 0x1f);
        ushort maxSegment = 0;
        sbyte scale = -1;
        if ((flags & TcpFlags.Syn) != 0) ReadOptions(from[MinLength..header], ref maxSegment, ref scale);
        tcp = new Tcp(BinaryPrimitives.ReadUInt16BigEndian(from), BinaryPrimitives.ReadUInt16BigEndian(from[2..]),
            BinaryPrimitives.ReadUInt32BigEndian(from[4..]), BinaryPrimitives.ReadUInt32BigEndian(from[8..]), flags,
            BinaryPrimitives.ReadUInt16BigEndian(from[14..]), header, maxSegment, scale);
        return true;
    }

    /// <summary>Writes a header with checksum 0; on a SYN with its options. Returns its length.</summary>
    public int Write(Span<byte> into)
    {
        var length = MinLength;
        if ((Flags & TcpFlags.Syn) != 0)
        {
            into[20] = 2;
            into[21] = 4;
            BinaryPrimitives.WriteUInt16BigEndian(into[22..], MaxSegment);
            length += 4;
            if (WindowScale >= 0)
            {
                into[24] = 1;
                into[25] = 3;
                into[26] = 3;
                into[27] = (byte)WindowScale;
                length += 4;
            }
        }

        BinaryPrimitives.WriteUInt16BigEndian(into, Source);
        BinaryPrimitives.WriteUInt16BigEndian(into[2..], Destination);
        BinaryPrimitives.WriteUInt32BigEndian(into[4..], Sequence);
        BinaryPrimitives.WriteUInt32BigEndian(into[8..], Acknowledgment);
        into[12] = (byte)(length / 4 << 4);
        into[13] = (byte)Flags;
        BinaryPrimitives.WriteUInt16BigEndian(into[14..], Window);
        BinaryPrimitives.WriteUInt32BigEndian(into[16..], 0);
        return length;
    }

    private static void ReadOptions(ReadOnlySpan<byte> options, ref ushort maxSegment, ref sbyte scale)
    {
        while (options.Length > 0)
        {
            if (options[0] == 0) return; // end of list
            if (options[0] == 1)         // no operation
            {
                options = options[1..];
                continue;
            }
            if (options.Length < 2 || options[1] < 2 || options[1] > options.Length) return;
            switch (options[0], options[1])
            {
                case (2, 4): maxSegment = BinaryPrimitives.ReadUInt16BigEndian(options[2..]); break;
                case (3, 3): scale = (sbyte)Math.Min(options[2], (byte)14); break; // RFC 7323 §2.3: more than 14 counts as 14
                default: break;
            }
            options = options[options[1]..];
        }
    }
}
