using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The 512-byte FXSAVE image (SDM Vol. 1 §10.5.1).</summary>
internal static unsafe class Fxsave
{
    /// <summary>Bytes of the image; the last 48 are free for software and never written.</summary>
    public const int Size = 512;
    public const int Written = 464;

    /// <summary>MXCSR bits that may be set: all 16, DAZ included.</summary>
    public const uint MxcsrMask = 0xFFFF;

    /// <summary>
    /// Writes the image. <paramref name="wide"/>: 64-bit instruction and data pointers (FXSAVE64), else 32 bits and selectors of zero.
    /// </summary>
    public static void Save(CpuState* s, Span<byte> image, bool wide = true)
    {
        image[..Written].Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(image, s->FpuControl);
        BinaryPrimitives.WriteUInt16LittleEndian(image[2..], X87.StatusWord(s));
        image[4] = (byte)~s->FpuEmpty;
        BinaryPrimitives.WriteUInt16LittleEndian(image[6..], s->FpuOpcode);
        if (wide)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(image[8..], s->FpuIp);
            BinaryPrimitives.WriteUInt64LittleEndian(image[16..], s->FpuDp);
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(image[8..], (uint)s->FpuIp);
            BinaryPrimitives.WriteUInt32LittleEndian(image[16..], (uint)s->FpuDp);
        }
        BinaryPrimitives.WriteUInt32LittleEndian(image[24..], s->Mxcsr);
        BinaryPrimitives.WriteUInt32LittleEndian(image[28..], MxcsrMask);
        for (var n = 0; n < 8; n++)
        {
            var physical = (s->FpuTop + n) & 7;
            BinaryPrimitives.WriteUInt64LittleEndian(image[(32 + n * 16)..], s->St[physical]);
            BinaryPrimitives.WriteUInt16LittleEndian(image[(40 + n * 16)..], s->StExponent[physical]);
        }
        MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(s->Xmm, 32)).CopyTo(image[160..]);
    }

    /// <summary>
    /// Loads an image; false (nothing changed) where it sets reserved MXCSR bits. Outside 64-bit mode XMM8-15 stay as they are.
    /// </summary>
    public static bool Load(CpuState* s, ReadOnlySpan<byte> image, bool wide = true, bool upperRegisters = true)
    {
        var mxcsr = BinaryPrimitives.ReadUInt32LittleEndian(image[24..]);
        if ((mxcsr & ~MxcsrMask) != 0) return false;
        s->Mxcsr = mxcsr;
        var status = BinaryPrimitives.ReadUInt16LittleEndian(image[2..]);
        s->FpuTop = (ushort)((status >> 11) & 7);
        s->FpuEmpty = (byte)~image[4];
        X87.LoadControl(s, BinaryPrimitives.ReadUInt16LittleEndian(image), status);
        s->FpuOpcode = (ushort)(BinaryPrimitives.ReadUInt16LittleEndian(image[6..]) & 0x7FF);
        s->FpuIp = wide ? BinaryPrimitives.ReadUInt64LittleEndian(image[8..]) : BinaryPrimitives.ReadUInt32LittleEndian(image[8..]);
        s->FpuDp = wide ? BinaryPrimitives.ReadUInt64LittleEndian(image[16..]) : BinaryPrimitives.ReadUInt32LittleEndian(image[16..]);
        for (var n = 0; n < 8; n++)
        {
            var physical = (s->FpuTop + n) & 7;
            s->St[physical] = BinaryPrimitives.ReadUInt64LittleEndian(image[(32 + n * 16)..]);
            s->StExponent[physical] = BinaryPrimitives.ReadUInt16LittleEndian(image[(40 + n * 16)..]);
        }
        image.Slice(160, upperRegisters ? 256 : 128).CopyTo(MemoryMarshal.AsBytes(new Span<ulong>(s->Xmm, 32)));
        return true;
    }

    /// <summary>FXSAVE m512 and, where the op's Aux is 1, FXSAVE64.</summary>
    public static bool SaveInstruction(CpuState* s, Op* op)
    {
        if (!VectorGuard.AllowsFxsave(s, op)) return false;
        var at = AtAny.Of(s, op);
        if ((at & 15) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return false;
        }
        Span<byte> image = stackalloc byte[Size];
        Save(s, image, op->Aux == 1);
        var length = s->Mode == CodeMode.Bits64 ? Written - 48 : 288;
        if (!Mem.ProbeWrite(s, op, at, length)) return false;
        foreach (var part in MemoryMarshal.Cast<byte, ulong>(image[..length]))
        {
            Mem.Write(s, op, at, part);
            if (s->Abort != Abort.None) return false;
            at += 8;
        }
        return true;
    }

    /// <summary>FXRSTOR m512 and FXRSTOR64.</summary>
    public static bool LoadInstruction(CpuState* s, Op* op)
    {
        if (!VectorGuard.AllowsFxsave(s, op)) return false;
        var at = AtAny.Of(s, op);
        if ((at & 15) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return false;
        }
        Span<byte> image = stackalloc byte[Size];
        foreach (ref var part in MemoryMarshal.Cast<byte, ulong>(image[..(Written - 48)]))
        {
            part = Mem.Read<ulong>(s, op, at);
            if (s->Abort != Abort.None) return false;
            at += 8;
        }
        if (Load(s, image, op->Aux == 1, s->Mode == CodeMode.Bits64)) return true;
        Flow.Raise(s, op, Vector.Gp, 0);
        return false;
    }

    /// <summary>LDMXCSR.</summary>
    public static bool LoadMxcsr(CpuState* s, Op* op)
    {
        var value = Mem.Read<uint>(s, op, AtAny.Of(s, op));
        if (s->Abort != Abort.None) return false;
        if ((value & ~MxcsrMask) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return false;
        }
        s->Mxcsr = value;
        return true;
    }

    /// <summary>STMXCSR.</summary>
    public static bool StoreMxcsr(CpuState* s, Op* op)
    {
        Mem.Write(s, op, AtAny.Of(s, op), s->Mxcsr);
        return s->Abort == Abort.None;
    }
}
