using Iced.Intel;
using static ActorVmm.Hypervisor.Soft.Cpu.PackedOps;

namespace ActorVmm.Hypervisor.Soft.Cpu;

internal sealed unsafe partial class Translator
{
    private bool TranslateVectorInteger(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Paddb: return Vec<Paddb>(i);
            case Mnemonic.Paddw: return Vec<Paddw>(i);
            case Mnemonic.Paddd: return Vec<Paddd>(i);
            case Mnemonic.Paddq: return Vec<Paddq>(i);
            case Mnemonic.Psubb: return Vec<Psubb>(i);
            case Mnemonic.Psubw: return Vec<Psubw>(i);
            case Mnemonic.Psubd: return Vec<Psubd>(i);
            case Mnemonic.Psubq: return Vec<Psubq>(i);
            case Mnemonic.Paddsb: return Vec<Paddsb>(i);
            case Mnemonic.Paddsw: return Vec<Paddsw>(i);
            case Mnemonic.Paddusb: return Vec<Paddusb>(i);
            case Mnemonic.Paddusw: return Vec<Paddusw>(i);
            case Mnemonic.Psubsb: return Vec<Psubsb>(i);
            case Mnemonic.Psubsw: return Vec<Psubsw>(i);
            case Mnemonic.Psubusb: return Vec<Psubusb>(i);
            case Mnemonic.Psubusw: return Vec<Psubusw>(i);
            case Mnemonic.Pand or Mnemonic.Andps or Mnemonic.Andpd: return Vec<Pand>(i);
            case Mnemonic.Pandn or Mnemonic.Andnps or Mnemonic.Andnpd: return Vec<Pandn>(i);
            case Mnemonic.Por or Mnemonic.Orps or Mnemonic.Orpd: return Vec<Por>(i);
            case Mnemonic.Pxor or Mnemonic.Xorps or Mnemonic.Xorpd: return Vec<Pxor>(i);
            case Mnemonic.Pcmpeqb: return Vec<Pcmpeqb>(i);
            case Mnemonic.Pcmpeqw: return Vec<Pcmpeqw>(i);
            case Mnemonic.Pcmpeqd: return Vec<Pcmpeqd>(i);
            case Mnemonic.Pcmpeqq: return Vec<Pcmpeqq>(i);
            case Mnemonic.Pcmpgtb: return Vec<Pcmpgtb>(i);
            case Mnemonic.Pcmpgtw: return Vec<Pcmpgtw>(i);
            case Mnemonic.Pcmpgtd: return Vec<Pcmpgtd>(i);
            case Mnemonic.Pcmpgtq: return Vec<Pcmpgtq>(i);
            case Mnemonic.Pminub: return Vec<Pminub>(i);
            case Mnemonic.Pmaxub: return Vec<Pmaxub>(i);
            case Mnemonic.Pminsw: return Vec<Pminsw>(i);
            case Mnemonic.Pmaxsw: return Vec<Pmaxsw>(i);
            case Mnemonic.Pminsb: return Vec<Pminsb>(i);
            case Mnemonic.Pmaxsb: return Vec<Pmaxsb>(i);
            case Mnemonic.Pminuw: return Vec<Pminuw>(i);
            case Mnemonic.Pmaxuw: return Vec<Pmaxuw>(i);
            case Mnemonic.Pminsd: return Vec<Pminsd>(i);
            case Mnemonic.Pmaxsd: return Vec<Pmaxsd>(i);
            case Mnemonic.Pminud: return Vec<Pminud>(i);
            case Mnemonic.Pmaxud: return Vec<Pmaxud>(i);
            case Mnemonic.Pavgb: return Vec<Pavgb>(i);
            case Mnemonic.Pavgw: return Vec<Pavgw>(i);
            case Mnemonic.Pmullw: return Vec<Pmullw>(i);
            case Mnemonic.Pmulld: return Vec<Pmulld>(i);
            case Mnemonic.Pmulhw: return Vec<Pmulhw>(i);
            case Mnemonic.Pmulhuw: return Vec<Pmulhuw>(i);
            case Mnemonic.Pmulhrsw: return Vec<Pmulhrsw>(i);
            case Mnemonic.Pmuludq: return Vec<Pmuludq>(i);
            case Mnemonic.Pmuldq: return Vec<Pmuldq>(i);
            case Mnemonic.Pmaddwd: return Vec<Pmaddwd>(i);
            case Mnemonic.Pmaddubsw: return Vec<Pmaddubsw>(i);
            case Mnemonic.Psadbw: return Vec<Psadbw>(i);
            case Mnemonic.Psignb: return Vec<Psignb>(i);
            case Mnemonic.Psignw: return Vec<Psignw>(i);
            case Mnemonic.Psignd: return Vec<Psignd>(i);
            case Mnemonic.Pabsb: return Vec<Pabsb>(i);
            case Mnemonic.Pabsw: return Vec<Pabsw>(i);
            case Mnemonic.Pabsd: return Vec<Pabsd>(i);
            case Mnemonic.Psllw: return Vec<Psllw>(i);
            case Mnemonic.Pslld: return Vec<Pslld>(i);
            case Mnemonic.Psllq: return Vec<Psllq>(i);
            case Mnemonic.Psrlw: return Vec<Psrlw>(i);
            case Mnemonic.Psrld: return Vec<Psrld>(i);
            case Mnemonic.Psrlq: return Vec<Psrlq>(i);
            case Mnemonic.Psraw: return Vec<Psraw>(i);
            case Mnemonic.Psrad: return Vec<Psrad>(i);
            case Mnemonic.Packsswb: return Vec<Packsswb, Joined<Packsswb>>(i);
            case Mnemonic.Packssdw: return Vec<Packssdw, Joined<Packssdw>>(i);
            case Mnemonic.Packuswb: return Vec<Packuswb, Joined<Packuswb>>(i);
            case Mnemonic.Packusdw: return Vec<Packusdw>(i);
            case Mnemonic.Punpcklbw: return Vec<Punpcklbw>(i);
            case Mnemonic.Punpcklwd: return Vec<Punpcklwd>(i);
            case Mnemonic.Punpckldq or Mnemonic.Unpcklps: return Vec<Punpckldq>(i);
            case Mnemonic.Punpcklqdq or Mnemonic.Unpcklpd: return Vec<Punpcklqdq>(i);
            case Mnemonic.Punpckhbw: return Vec<Punpckhbw, UpperHalf<Punpcklbw>>(i);
            case Mnemonic.Punpckhwd: return Vec<Punpckhwd, UpperHalf<Punpcklwd>>(i);
            case Mnemonic.Punpckhdq or Mnemonic.Unpckhps: return Vec<Punpckhdq, UpperHalf<Punpckldq>>(i);
            case Mnemonic.Punpckhqdq or Mnemonic.Unpckhpd: return Vec<Punpckhqdq>(i);
            case Mnemonic.Pshufb: return Vec<Pshufb, PshufbMmx>(i);
            case Mnemonic.Phaddw: return Vec<Phaddw, Joined<Phaddw>>(i);
            case Mnemonic.Phaddd: return Vec<Phaddd, Joined<Phaddd>>(i);
            case Mnemonic.Phaddsw: return Vec<Phaddsw, Joined<Phaddsw>>(i);
            case Mnemonic.Phsubw: return Vec<Phsubw, Joined<Phsubw>>(i);
            case Mnemonic.Phsubd: return Vec<Phsubd, Joined<Phsubd>>(i);
            case Mnemonic.Phsubsw: return Vec<Phsubsw, Joined<Phsubsw>>(i);
            case Mnemonic.Pmovsxbw: return Vec<Pmovsxbw>(i);
            case Mnemonic.Pmovsxbd: return Vec<Pmovsxbd>(i);
            case Mnemonic.Pmovsxbq: return Vec<Pmovsxbq>(i);
            case Mnemonic.Pmovsxwd: return Vec<Pmovsxwd>(i);
            case Mnemonic.Pmovsxwq: return Vec<Pmovsxwq>(i);
            case Mnemonic.Pmovsxdq: return Vec<Pmovsxdq>(i);
            case Mnemonic.Pmovzxbw: return Vec<Pmovzxbw>(i);
            case Mnemonic.Pmovzxbd: return Vec<Pmovzxbd>(i);
            case Mnemonic.Pmovzxbq: return Vec<Pmovzxbq>(i);
            case Mnemonic.Pmovzxwd: return Vec<Pmovzxwd>(i);
            case Mnemonic.Pmovzxwq: return Vec<Pmovzxwq>(i);
            case Mnemonic.Pmovzxdq: return Vec<Pmovzxdq>(i);
        }
        if (IsX(i.Op0Register) && ShuffleControls.Knows(i.Mnemonic))
        {
            // The immediate is the last operand; MOVDDUP, MOVSHDUP and MOVSLDUP have none.
            return Permute(i, i.GetOpKind(i.OpCount - 1) == OpKind.Immediate8 ? i.Immediate8 : (byte)0);
        }
        return false;
    }
}
