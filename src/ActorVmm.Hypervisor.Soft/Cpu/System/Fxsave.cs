using System.Buffers.Binary;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The 512-byte FXSAVE image in its 64-bit form (SDM Vol. 1 §10.5.1, table 10-3).</summary>
internal static unsafe class Fxsave
{
    private const uint MxcsrMask = 0xFFFF;

    /// <summary>Writes the image. Bytes 416 to 511 are left as they are.</summary>
    public static void Save(CpuState* s, Span<byte> image)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(image, s->FpuControl);
        BinaryPrimitives.WriteUInt16LittleEndian(image[2..], (ushort)(s->FpuStatus & ~0x3800 | (s->FpuTop & 7) << 11));
        image[4] = (byte)~s->FpuEmpty;
        image[5] = 0;
        BinaryPrimitives.WriteUInt16LittleEndian(image[6..], s->FpuOpcode);
        BinaryPrimitives.WriteUInt64LittleEndian(image[8..], s->FpuIp);
        BinaryPrimitives.WriteUInt64LittleEndian(image[16..], s->FpuDp);
        BinaryPrimitives.WriteUInt32LittleEndian(image[24..], s->Mxcsr);
        BinaryPrimitives.WriteUInt32LittleEndian(image[28..], MxcsrMask);
        for (var i = 0; i < 8; i++)
        {
            // The image holds ST(0) first; the state holds physical registers.
            var register = (s->FpuTop + i) & 7;
            BinaryPrimitives.WriteUInt64LittleEndian(image[(32 + 16 * i)..], s->St[register]);
            BinaryPrimitives.WriteUInt64LittleEndian(image[(40 + 16 * i)..], s->StExponent[register]);
        }
        for (var i = 0; i < 32; i++) BinaryPrimitives.WriteUInt64LittleEndian(image[(160 + 8 * i)..], s->Xmm[i]);
    }

    /// <summary>Takes over an image; reserved MXCSR bits are dropped (FXRSTOR itself refuses them before it comes here).</summary>
    public static void Load(CpuState* s, ReadOnlySpan<byte> image)
    {
        s->FpuControl = BinaryPrimitives.ReadUInt16LittleEndian(image);
        var status = BinaryPrimitives.ReadUInt16LittleEndian(image[2..]);
        s->FpuTop = (ushort)(status >> 11 & 7);
        s->FpuStatus = (ushort)(status & ~0x3800);
        s->FpuEmpty = (byte)~image[4];
        s->FpuOpcode = BinaryPrimitives.ReadUInt16LittleEndian(image[6..]);
        s->FpuIp = BinaryPrimitives.ReadUInt64LittleEndian(image[8..]);
        s->FpuDp = BinaryPrimitives.ReadUInt64LittleEndian(image[16..]);
        s->Mxcsr = BinaryPrimitives.ReadUInt32LittleEndian(image[24..]) & MxcsrMask;
        for (var i = 0; i < 8; i++)
        {
            var register = (s->FpuTop + i) & 7;
            s->St[register] = BinaryPrimitives.ReadUInt64LittleEndian(image[(32 + 16 * i)..]);
            s->StExponent[register] = BinaryPrimitives.ReadUInt16LittleEndian(image[(40 + 16 * i)..]);
        }
        for (var i = 0; i < 32; i++) s->Xmm[i] = BinaryPrimitives.ReadUInt64LittleEndian(image[(160 + 8 * i)..]);
    }
}
