using System.Runtime.InteropServices;

namespace ActorVmm.Devices.Virtio.Block;

/// <summary>Feature bits (virtio 1.2 §5.2.3).</summary>
[Flags]
public enum BlockFeatures : ulong
{
    None = 0,
    SegMax = 1UL << 2,
    ReadOnly = 1UL << 5,
    BlockSize = 1UL << 6,
    Flush = 1UL << 9,
    Topology = 1UL << 10,
    MultiQueue = 1UL << 12,
    Discard = 1UL << 13,
    WriteZeroes = 1UL << 14,
}

/// <summary>What a request asks for (virtio 1.2 §5.2.6).</summary>
public enum BlockRequestType : uint
{
    In = 0,
    Out = 1,
    Flush = 4,
    GetId = 8,
    Discard = 11,
    WriteZeroes = 13,
}

/// <summary>The last byte of every answer (virtio 1.2 §5.2.6).</summary>
public enum BlockStatus : byte
{
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// <summary>
/// A request in guest RAM (virtio 1.2 §5.2.6). Where one buffer ends and the next begins means nothing (§2.7.4).
/// <code>
/// device-readable: type 4 | reserved 4 | sector 8 | data of OUT, or 16-byte ranges of DISCARD and WRITE_ZEROES
/// device-writable: data of IN, or 20 bytes of GET_ID | status 1
/// </code>
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct BlockHeader(BlockRequestType Type, uint Reserved, ulong Sector)
{
    public const int Size = 16;
}

/// <summary>One range of a DISCARD or WRITE_ZEROES request.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct BlockRange(ulong Sector, uint Sectors, uint Flags)
{
    public const int Size = 16;

    /// <summary>WRITE_ZEROES: the range may be given back to the host.</summary>
    public const uint Unmap = 1;
}

/// <summary>Configuration space, <c>struct virtio_blk_config</c> (virtio 1.2 §5.2.4); what is not offered stays 0.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct BlockConfig
{
    public ulong Capacity;
    public uint SizeMax;
    public uint SegMax;
    public uint Geometry;
    public uint BlockSize;
    public byte PhysicalBlockExponent;
    public byte AlignmentOffset;
    public ushort MinimumIo; // in logical blocks
    public uint OptimalIo;
    public byte WriteBack;
    public byte Unused0;
    public ushort Queues;
    public uint MaxDiscardSectors;
    public uint MaxDiscardRanges;
    public uint DiscardAlignment;
    public uint MaxZeroSectors;
    public uint MaxZeroRanges;
    public byte ZeroesMayUnmap;
    public byte Unused1, Unused2, Unused3;
}
