using System.Buffers.Binary;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>What a case starts from and what it leaves: registers, FXSAVE image, scratch memory, and the exception that ended it.</summary>
internal sealed class CpuImage
{
    /// <summary>RAX RCX RDX RBX RSP RBP RSI RDI R8..R15.</summary>
    public ulong[] Gpr { get; } = new ulong[16];
    public ulong Rip { get; set; }
    public ulong Rflags { get; set; }

    /// <summary>FXSAVE image, 64-bit layout (SDM Vol. 1 §10.5.1).</summary>
    public byte[] Fx { get; } = new byte[512];
    public byte[] Memory { get; } = new byte[Layout.ScratchSize];

    /// <summary>The exception that ended the case; every case ends with one (INT3).</summary>
    public int Vector { get; set; }
    public ulong ErrorCode { get; set; }

    /// <summary>CR2, where <see cref="Vector"/> is 14.</summary>
    public ulong FaultAddress { get; set; }

    public ushort FpuControl { get => Read16(0); set => Write16(0, value); }
    public ushort FpuStatus { get => Read16(2); set => Write16(2, value); }

    /// <summary>The abridged tag: bit n set where physical register n is in use.</summary>
    public byte FpuTag { get => Fx[4]; set => Fx[4] = value; }
    public uint Mxcsr
    {
        get => BinaryPrimitives.ReadUInt32LittleEndian(Fx.AsSpan(24));
        set => BinaryPrimitives.WriteUInt32LittleEndian(Fx.AsSpan(24), value);
    }

    /// <summary>ST(i), 10 bytes.</summary>
    public Span<byte> St(int i) => Fx.AsSpan(32 + 16 * i, 10);

    public Span<byte> Xmm(int i) => Fx.AsSpan(160 + 16 * i, 16);

    public void CopyFrom(CpuImage other)
    {
        other.Gpr.CopyTo(Gpr, 0);
        other.Fx.CopyTo(Fx, 0);
        other.Memory.CopyTo(Memory, 0);
        (Rip, Rflags, Vector, ErrorCode, FaultAddress) = (other.Rip, other.Rflags, other.Vector, other.ErrorCode, other.FaultAddress);
    }

    private ushort Read16(int at) => BinaryPrimitives.ReadUInt16LittleEndian(Fx.AsSpan(at));
    private void Write16(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(Fx.AsSpan(at), value);
}
