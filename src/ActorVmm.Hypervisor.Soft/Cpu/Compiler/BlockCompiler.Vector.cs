using System.Runtime.Intrinsics.X86;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// SSE as the host's own instructions. Within a block the guest's first registers live in the host registers of the same numbers once they
/// have been used; what changed is stored at the block's end and in the cold code of an access that leaves, as the flags are. The last two
/// live in the state, because the host's are needed on the way.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    /// <summary>Guest registers below this have a host register.</summary>
    private const int VectorsInHost = 14;

    private const int TemporaryVector = 14, OtherTemporaryVector = 15;

    private static readonly bool HasLateVectors = Sse42.IsSupported;

    private VectorState _vectors;

    /// <summary>What is known of the vector registers at a place in the block.</summary>
    private struct VectorState
    {
        /// <summary>Bit n: host register n has guest register n.</summary>
        public int Loaded;

        /// <summary>Bit n: and the state has not.</summary>
        public int Dirty;

        /// <summary>The block has made sure that CR0 and CR4 allow SSE.</summary>
        public bool Allowed;

        /// <summary>The host's MXCSR is the guest's.</summary>
        public bool OwnRounding;
    }

    private static HostAddress VectorSlot(int guest) => RegisterMap.At(RegisterMap.Xmm + 16 * guest);

    private static bool IsVector(Register register) => register is >= Register.XMM0 and <= Register.XMM15;

    private static int VectorNumber(Register register) => register - Register.XMM0;

    /// <summary>The host register with a guest register's value: its own, or <paramref name="temporary"/>.</summary>
    private int ReadVector(int guest, int temporary)
    {
        if (guest >= VectorsInHost)
        {
            _e.LoadVector(temporary, VectorSlot(guest));
            return temporary;
        }
        if ((_vectors.Loaded & (1 << guest)) == 0) _e.LoadVector(guest, VectorSlot(guest));
        _vectors.Loaded |= 1 << guest;
        return guest;
    }

    /// <summary>Where an instruction leaves its result; with the old value if it depends on that.</summary>
    private int OpenVector(int guest, bool reads)
    {
        if (reads) return ReadVector(guest, TemporaryVector);
        return guest >= VectorsInHost ? TemporaryVector : guest;
    }

    /// <summary>The result is there.</summary>
    private void CloseVector(int guest, int host)
    {
        if (guest >= VectorsInHost)
        {
            _e.StoreVector(VectorSlot(guest), host);
            return;
        }
        _vectors.Loaded |= 1 << guest;
        _vectors.Dirty |= 1 << guest;
    }

    /// <summary>Brings the vector registers into the state. Only moves: the host's flags stay.</summary>
    private void StoreVectors()
    {
        StoreVectors(_vectors.Dirty);
        _vectors.Dirty = 0;
    }

    private void StoreVectors(int dirty)
    {
        for (var n = 0; n < VectorsInHost; n++)
            if ((dirty & (1 << n)) != 0) _e.StoreVector(VectorSlot(n), n);
    }

    /// <summary>Tier 0 has run in between.</summary>
    private void VectorsUnknown() => _vectors = default;

    /// <summary>Leaves to tier 0 where the operating system forbids SSE. Once per block: what could change that ends a block.</summary>
    private void AllowVectors()
    {
        if (_vectors.Allowed) return;
        LoseHostFlags();
        _e.TestImmediate(RegisterMap.At(RegisterMap.Cr0), (int)(VectorGuard.Cr0Em | VectorGuard.Cr0Ts));
        BailIf(5);
        _e.TestImmediate(RegisterMap.At(RegisterMap.Cr4 + 1), (int)(VectorGuard.Cr4Osfxsr >> 8));
        BailIf(4);
        _vectors.Allowed = true;
    }

    /// <summary>Host address of a vector operand into RAX; 16 bytes must be aligned unless <paramref name="unaligned"/>.</summary>
    private void AccessVector(in Instruction i, int bytes, bool write, bool unaligned)
    {
        EmitAddress(i);
        ProbeVector(bytes, write, unaligned);
    }

    private void ProbeVector(int bytes, bool write, bool unaligned)
    {
        if (bytes != 16 || unaligned)
        {
            Probe(bytes, write);
            return;
        }
        LoseHostFlags();
        _e.TestAl(15);
        BailIf(5);
        Probe(1, write); // aligned: it lies in the page of its first byte
    }

    private bool TryVector(in Instruction i, VectorShape shape)
    {
        if ((shape & VectorShape.Late) != 0 && !HasLateVectors) return false;
        var vectors = 0;
        for (var n = 0; n < i.OpCount; n++)
        {
            switch (i.GetOpKind(n))
            {
                case OpKind.Memory when AddressFits(i):
                case OpKind.Immediate8:
                    continue;
                case OpKind.Register when IsVector(i.GetOpRegister(n)):
                    vectors++;
                    continue;
                case OpKind.Register when i.GetOpRegister(n).IsGPR():
                    continue;
                default:
                    return false; // MMX, and the string instructions of the same names
            }
        }
        if (vectors == 0) return false;
        AllowVectors();
        if ((shape & VectorShape.Float) != 0) TakeRounding();
        var opcode = VectorOpcode.Parse(_translator.BytesOf(_at));
        var unaligned = (shape & VectorShape.Unaligned) != 0;
        switch (VectorShapes.Kind(shape))
        {
            case VectorShape.Binary: return VectorOperation(i, opcode, reads: true);
            case VectorShape.Unary: return VectorOperation(i, opcode, reads: false);
            case VectorShape.Flags: return VectorFlags(i, opcode);
            case VectorShape.ToGeneral: return VectorToGeneral(i, opcode);
            case VectorShape.FromGeneral: return VectorFromGeneral(i, opcode);
            default: return VectorMove(i, opcode, unaligned);
        }
    }

    private static bool HasImmediate(in Instruction i) => i.GetOpKind(i.OpCount - 1) == OpKind.Immediate8;

    private bool VectorOperation(in Instruction i, VectorOpcode opcode, bool reads)
    {
        var guest = VectorNumber(i.Op0Register);
        if (i.Op1Kind == OpKind.Immediate8)
        {
            // Shifts by an immediate: the register is the other operand, the opcode goes on in its place.
            var shifted = OpenVector(guest, reads: true);
            _e.Vector(opcode.Prefix, opcode.Opcode, opcode.Extension, shifted);
            _e.Byte(i.Immediate8);
            CloseVector(guest, shifted);
            return true;
        }
        // The masks of the variable blends.
        if (i.Mnemonic is Mnemonic.Pblendvb or Mnemonic.Blendvps or Mnemonic.Blendvpd) ReadVector(0, 0);
        if (IsMemory(i, 1))
        {
            AccessVector(i, i.MemorySize.GetSize(), write: false, unaligned: false);
            var into = OpenVector(guest, reads);
            _e.Vector(opcode.Prefix, opcode.Opcode, into, new HostAddress(Host.Rax));
            if (HasImmediate(i)) _e.Byte(i.Immediate8);
            CloseVector(guest, into);
            return true;
        }
        var from = ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector);
        var to = OpenVector(guest, reads);
        _e.Vector(opcode.Prefix, opcode.Opcode, to, from);
        if (HasImmediate(i)) _e.Byte(i.Immediate8);
        CloseVector(guest, to);
        return true;
    }

    /// <summary>PMOVMSKB, MOVMSKPS, CVTSD2SI and their like.</summary>
    private bool VectorToGeneral(in Instruction i, VectorOpcode opcode)
    {
        var bytes = i.Op0Register.GetSize();
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        if (IsMemory(i, 1))
        {
            AccessVector(i, i.MemorySize.GetSize(), write: false, unaligned: false);
            _e.Vector(opcode.Prefix, opcode.Opcode, (int)Host.Rax, new HostAddress(Host.Rax), bytes == 8);
        }
        else
        {
            var from = ReadVector(VectorNumber(i.Op1Register), OtherTemporaryVector);
            _e.Vector(opcode.Prefix, opcode.Opcode, (int)Host.Rax, from, bytes == 8);
        }
        Write(to, bytes, Host.Rax);
        return true;
    }

    /// <summary>PINSRW, CVTSI2SD and their like.</summary>
    private bool VectorFromGeneral(in Instruction i, VectorOpcode opcode)
    {
        var guest = VectorNumber(i.Op0Register);
        var bytes = SizeOf(i, 1);
        var wide = bytes == 8;
        if (IsMemory(i, 1))
        {
            AccessVector(i, bytes, write: false, unaligned: false);
            var into = OpenVector(guest, reads: true);
            _e.Vector(opcode.Prefix, opcode.Opcode, into, new HostAddress(Host.Rax), wide);
            if (HasImmediate(i)) _e.Byte(i.Immediate8);
            CloseVector(guest, into);
            return true;
        }
        var from = Read(Number(i.Op1Register), Host.Rax);
        var to = OpenVector(guest, reads: true);
        _e.Vector(opcode.Prefix, opcode.Opcode, to, (int)from, wide);
        if (HasImmediate(i)) _e.Byte(i.Immediate8);
        CloseVector(guest, to);
        return true;
    }
}
