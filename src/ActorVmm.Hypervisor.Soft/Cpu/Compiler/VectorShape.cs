using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>What the compiler must know of a vector instruction to run it as the host's own.</summary>
[Flags]
internal enum VectorShape
{
    /// <summary>No instruction that runs like this.</summary>
    None = 0,

    /// <summary>xmm, xmm/m [, imm8]: the result depends on the destination.</summary>
    Binary = 1,

    /// <summary>xmm, xmm/m [, imm8]: the destination is only written.</summary>
    Unary = 2,

    /// <summary>Compares two operands and sets the arithmetic flags.</summary>
    Flags = 3,

    /// <summary>r32/r64, xmm/m.</summary>
    ToGeneral = 4,

    /// <summary>xmm, r/m: the rest of the destination stays.</summary>
    FromGeneral = 5,

    /// <summary>A load, store or move between registers, by its own rules.</summary>
    Move = 6,

    /// <summary>Reads and writes MXCSR.</summary>
    Float = 8,

    /// <summary>A memory operand of 16 bytes need not be aligned.</summary>
    Unaligned = 16,

    /// <summary>From SSE3, SSSE3, SSE4.1 or SSE4.2: the host must have them.</summary>
    Late = 32,
}

/// <summary>The vector instructions that are compiled.</summary>
internal static class VectorShapes
{
    /// <summary>What an instruction is, without the bits that qualify it.</summary>
    public static VectorShape Kind(VectorShape shape) => shape & (VectorShape)7;

    public static VectorShape Of(Mnemonic mnemonic)
    {
        switch (mnemonic)
        {
            // SSE and SSE2, integer and bitwise.
            case Mnemonic.Paddb or Mnemonic.Paddw or Mnemonic.Paddd or Mnemonic.Paddq or Mnemonic.Psubb or Mnemonic.Psubw or
                Mnemonic.Psubd or
                Mnemonic.Psubq or Mnemonic.Paddsb or Mnemonic.Paddsw or Mnemonic.Paddusb or Mnemonic.Paddusw or Mnemonic.Psubsb or
                Mnemonic.Psubsw or
                Mnemonic.Psubusb or Mnemonic.Psubusw:
            case Mnemonic.Pand or Mnemonic.Andps or Mnemonic.Andpd or Mnemonic.Pandn or Mnemonic.Andnps or Mnemonic.Andnpd or
                Mnemonic.Por or
                Mnemonic.Orps or Mnemonic.Orpd or Mnemonic.Pxor or Mnemonic.Xorps or Mnemonic.Xorpd:
            case Mnemonic.Pcmpeqb or Mnemonic.Pcmpeqw or Mnemonic.Pcmpeqd or Mnemonic.Pcmpgtb or Mnemonic.Pcmpgtw or Mnemonic.Pcmpgtd:
            case Mnemonic.Pminub or Mnemonic.Pmaxub or Mnemonic.Pminsw or Mnemonic.Pmaxsw or Mnemonic.Pavgb or Mnemonic.Pavgw or
                Mnemonic.Pmullw or
                Mnemonic.Pmulhw or Mnemonic.Pmulhuw or Mnemonic.Pmuludq or Mnemonic.Pmaddwd or Mnemonic.Psadbw:
            case Mnemonic.Psllw or Mnemonic.Pslld or Mnemonic.Psllq or Mnemonic.Psrlw or Mnemonic.Psrld or Mnemonic.Psrlq or
                Mnemonic.Psraw or
                Mnemonic.Psrad or Mnemonic.Pslldq or Mnemonic.Psrldq:
            case Mnemonic.Packsswb or Mnemonic.Packssdw or Mnemonic.Packuswb or Mnemonic.Punpcklbw or Mnemonic.Punpcklwd or
                Mnemonic.Punpckldq or
                Mnemonic.Punpcklqdq or Mnemonic.Punpckhbw or Mnemonic.Punpckhwd or Mnemonic.Punpckhdq or Mnemonic.Punpckhqdq or
                Mnemonic.Unpcklps or
                Mnemonic.Unpcklpd or Mnemonic.Unpckhps or Mnemonic.Unpckhpd or Mnemonic.Shufps or Mnemonic.Shufpd:
            case Mnemonic.Movhlps or Mnemonic.Movlhps:
                return VectorShape.Binary;
            case Mnemonic.Pshufd or Mnemonic.Pshuflw or Mnemonic.Pshufhw:
                return VectorShape.Unary;

            // SSE and SSE2, floating point.
            case Mnemonic.Addss or Mnemonic.Addsd or Mnemonic.Addps or Mnemonic.Addpd or Mnemonic.Subss or Mnemonic.Subsd or
                Mnemonic.Subps or
                Mnemonic.Subpd or Mnemonic.Mulss or Mnemonic.Mulsd or Mnemonic.Mulps or Mnemonic.Mulpd or Mnemonic.Divss or
                Mnemonic.Divsd or
                Mnemonic.Divps or Mnemonic.Divpd or Mnemonic.Minss or Mnemonic.Minsd or Mnemonic.Minps or Mnemonic.Minpd or
                Mnemonic.Maxss or
                Mnemonic.Maxsd or Mnemonic.Maxps or Mnemonic.Maxpd or Mnemonic.Sqrtss or Mnemonic.Sqrtsd or Mnemonic.Cmpss or
                Mnemonic.Cmpsd or
                Mnemonic.Cmpps or Mnemonic.Cmppd or Mnemonic.Cvtss2sd or Mnemonic.Cvtsd2ss:
                return VectorShape.Binary | VectorShape.Float;
            case Mnemonic.Sqrtps or Mnemonic.Sqrtpd or Mnemonic.Cvtps2pd or Mnemonic.Cvtpd2ps or Mnemonic.Cvtdq2ps or Mnemonic.Cvtdq2pd or
                Mnemonic.Cvtps2dq or Mnemonic.Cvttps2dq or Mnemonic.Cvtpd2dq or Mnemonic.Cvttpd2dq:
                return VectorShape.Unary | VectorShape.Float;
            case Mnemonic.Comiss or Mnemonic.Comisd or Mnemonic.Ucomiss or Mnemonic.Ucomisd:
                return VectorShape.Flags | VectorShape.Float;
            case Mnemonic.Cvtss2si or Mnemonic.Cvtsd2si or Mnemonic.Cvttss2si or Mnemonic.Cvttsd2si:
                return VectorShape.ToGeneral | VectorShape.Float;
            case Mnemonic.Cvtsi2ss or Mnemonic.Cvtsi2sd:
                return VectorShape.FromGeneral | VectorShape.Float;
            case Mnemonic.Movmskps or Mnemonic.Movmskpd or Mnemonic.Pmovmskb:
                return VectorShape.ToGeneral;
            case Mnemonic.Pinsrw:
                return VectorShape.FromGeneral;
            case Mnemonic.Movaps or Mnemonic.Movapd or Mnemonic.Movdqa or Mnemonic.Movntps or Mnemonic.Movntpd or Mnemonic.Movntdq:
                return VectorShape.Move;
            case Mnemonic.Movups or Mnemonic.Movupd or Mnemonic.Movdqu:
                return VectorShape.Move | VectorShape.Unaligned;
            case Mnemonic.Movss or Mnemonic.Movsd or Mnemonic.Movlps or Mnemonic.Movlpd or Mnemonic.Movhps or Mnemonic.Movhpd or
                Mnemonic.Movd or
                Mnemonic.Movq or Mnemonic.Pextrw:
                return VectorShape.Move;

            // Later extensions that the guest is offered.
            case Mnemonic.Lddqu:
                return VectorShape.Move | VectorShape.Unaligned | VectorShape.Late;
            case Mnemonic.Movntdqa or Mnemonic.Pextrb or Mnemonic.Pextrd or Mnemonic.Pextrq or Mnemonic.Extractps:
                return VectorShape.Move | VectorShape.Late;
            case Mnemonic.Pinsrb or Mnemonic.Pinsrd or Mnemonic.Pinsrq:
                return VectorShape.FromGeneral | VectorShape.Late;
            case Mnemonic.Pcmpeqq or Mnemonic.Pcmpgtq or Mnemonic.Pminsb or Mnemonic.Pmaxsb or Mnemonic.Pminuw or Mnemonic.Pmaxuw or
                Mnemonic.Pminsd or
                Mnemonic.Pmaxsd or Mnemonic.Pminud or Mnemonic.Pmaxud or Mnemonic.Pmulld or Mnemonic.Pmulhrsw or Mnemonic.Pmuldq or
                Mnemonic.Pmaddubsw or
                Mnemonic.Psignb or Mnemonic.Psignw or Mnemonic.Psignd or Mnemonic.Packusdw or Mnemonic.Pshufb or Mnemonic.Phaddw or
                Mnemonic.Phaddd or
                Mnemonic.Phaddsw or Mnemonic.Phsubw or Mnemonic.Phsubd or Mnemonic.Phsubsw or Mnemonic.Palignr or Mnemonic.Pblendw or
                Mnemonic.Blendps or
                Mnemonic.Blendpd or Mnemonic.Insertps or Mnemonic.Pblendvb or Mnemonic.Blendvps or Mnemonic.Blendvpd or Mnemonic.Mpsadbw:
                return VectorShape.Binary | VectorShape.Late;
            case Mnemonic.Pabsb or Mnemonic.Pabsw or Mnemonic.Pabsd or Mnemonic.Phminposuw or Mnemonic.Movddup or Mnemonic.Movshdup or
                Mnemonic.Movsldup or Mnemonic.Pmovsxbw or Mnemonic.Pmovsxbd or Mnemonic.Pmovsxbq or Mnemonic.Pmovsxwd or
                Mnemonic.Pmovsxwq or
                Mnemonic.Pmovsxdq or Mnemonic.Pmovzxbw or Mnemonic.Pmovzxbd or Mnemonic.Pmovzxbq or Mnemonic.Pmovzxwd or
                Mnemonic.Pmovzxwq or
                Mnemonic.Pmovzxdq:
                return VectorShape.Unary | VectorShape.Late;
            case Mnemonic.Addsubps or Mnemonic.Addsubpd or Mnemonic.Haddps or Mnemonic.Haddpd or Mnemonic.Hsubps or Mnemonic.Hsubpd or
                Mnemonic.Roundss or Mnemonic.Roundsd or Mnemonic.Dpps or Mnemonic.Dppd:
                return VectorShape.Binary | VectorShape.Float | VectorShape.Late;
            case Mnemonic.Roundps or Mnemonic.Roundpd:
                return VectorShape.Unary | VectorShape.Float | VectorShape.Late;
            case Mnemonic.Ptest:
                return VectorShape.Flags | VectorShape.Late;
            default:
                return VectorShape.None;
        }
    }
}

/// <summary>Opcode of a vector instruction in legacy encoding, as the guest wrote it (SDM Vol. 2 §2.1).</summary>
/// <param name="Prefix">The one that belongs to the opcode: 0, 0x66, 0xF2 or 0xF3.</param>
/// <param name="Opcode">0x0Fxx, 0x0F38xx or 0x0F3Axx.</param>
/// <param name="Extension">The register field of the ModRM byte.</param>
internal readonly record struct VectorOpcode(int Prefix, int Opcode, int Extension)
{
    public static VectorOpcode Parse(ReadOnlySpan<byte> instruction)
    {
        var (at, prefix, operandSize) = (0, 0, false);
        for (; instruction[at] != 0x0F; at++)
        {
            // F2 and F3 count before 66, the last of them before the others; the rest are segments, address size and REX.
            if (instruction[at] is 0xF2 or 0xF3) prefix = instruction[at];
            else operandSize |= instruction[at] == 0x66;
        }
        if (prefix == 0 && operandSize) prefix = 0x66;
        var opcode = 0x0F00 | instruction[++at];
        if (opcode is 0x0F38 or 0x0F3A) opcode = (opcode << 8) | instruction[++at];
        return new VectorOpcode(prefix, opcode, (instruction[at + 1] >> 3) & 7);
    }
}
