using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// The guest's arithmetic flags within a block. What the last instruction left is remembered as the registers and immediates it follows
/// from, and stored only where it must be: before such a register changes, at the end of the block, and in the cold code of an access that
/// leaves. A condition uses the host's flags where they still stand, else they are made anew from the same operands.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    /// <summary>Where a remembered operand is.</summary>
    private enum Place : byte
    {
        /// <summary>The form has no such operand, or it is in the state already.</summary>
        Stored,
        Guest,
        Immediate,
    }

    private readonly record struct Operand(Place Place, int Value)
    {
        public static Operand Stored => default;
        public bool Is(int guest) => Place == Place.Guest && Value == guest;
        public static Operand Guest(int register) => new(Place.Guest, register);
        public static Operand Immediate(int value) => new(Place.Immediate, value);
    }

    /// <summary>Flags that are not (all) in the state yet.</summary>
    private struct Pending
    {
        /// <summary>False: the state has them, in a form that is not known here.</summary>
        public bool Known;
        public CompiledForm Form;
        public int Bytes;
        public Operand A, B, R;

        /// <summary>The form is not in the state's kind yet, or an operand is not.</summary>
        public bool Dirty;

        /// <summary>CF must be taken from the host's flags before they are lost: into A's low byte.</summary>
        public bool CarryInHost;

        /// <summary>CF alone is replaced by <see cref="CpuState.FlagCarry"/>; the others are what the state has.</summary>
        public bool OnlyCarry;

        public readonly bool Uses(int guest) => Known && (A.Is(guest) || B.Is(guest) || R.Is(guest));
    }

    private Pending _flags;

    /// <summary>The host's flags are those of the guest; CF may be excepted.</summary>
    private bool _hostFlags;
    private bool _hostCarry;

    private void FlagsUnknown()
    {
        _flags = default;
        _hostFlags = _hostCarry = false;
    }

    /// <summary>Before the host's flags are overwritten: keeps what only they know.</summary>
    private void LoseHostFlags()
    {
        CaptureCarry(ref _flags);
        _hostFlags = _hostCarry = false;
    }

    private void CaptureCarry(ref Pending flags)
    {
        if (!flags.CarryInHost) return;
        _e.SetIf(2, RegisterMap.At(flags.OnlyCarry ? RegisterMap.FlagCarry : RegisterMap.FlagA));
        flags.CarryInHost = false;
    }

    /// <summary>Before a guest register changes: what is remembered through it is stored.</summary>
    private void BeforeWrite(int guest)
    {
        if (_flags.Uses(guest)) StoreFlags();
    }

    /// <summary>Brings the flags into the state. Only moves: the host's flags stay.</summary>
    private void StoreFlags() => StoreFlags(ref _flags);

    private void StoreFlags(ref Pending flags)
    {
        if (!flags.Known || !flags.Dirty) return;
        CaptureCarry(ref flags);
        flags.Dirty = false;
        if (flags.OnlyCarry) return; // its kind was changed where it came up
        StoreOperand(ref flags.A, RegisterMap.FlagA);
        StoreOperand(ref flags.B, RegisterMap.FlagB);
        StoreOperand(ref flags.R, RegisterMap.FlagR);
        _e.StoreImmediate(4, RegisterMap.At(RegisterMap.FlagKind), (int)CompiledFlags.Kind(flags.Form, flags.Bytes));
    }

    private void StoreOperand(ref Operand operand, int offset)
    {
        if (operand.Place == Place.Guest)
        {
            var host = RegisterMap.Of(operand.Value);
            if (host == Host.None)
            {
                host = Host.Rax;
                _e.Load(8, host, RegisterMap.Slot(operand.Value));
            }
            _e.Store(8, RegisterMap.At(offset), host);
        }
        else if (operand.Place == Place.Immediate)
        {
            _e.StoreImmediate(8, RegisterMap.At(offset), operand.Value);
        }
        operand = Operand.Stored;
    }

    /// <summary>Remembers what the instruction just emitted has left; the host's flags are its.</summary>
    private void SetFlags(CompiledForm form, int bytes, Operand a, Operand b, Operand r, bool carryInHost = false)
    {
        _hostFlags = _hostCarry = true;
        _flags = new Pending { Known = true, Dirty = true, Form = form, Bytes = bytes, A = a, B = b, R = r, CarryInHost = carryInHost };
    }

    /// <summary>The flags of the instruction just emitted are overwritten before anything can see them.</summary>
    private void NoFlags()
    {
        // What the state holds stays there; nobody will ask for it, nor for what was remembered.
        _flags = default;
        _hostFlags = _hostCarry = false;
    }

    /// <summary>Makes the host's flags good for a condition; gives false where that takes tier 0. May use RAX.</summary>
    private bool PrepareCondition(int condition)
    {
        var carry = (condition & ~1) is 2 or 6;
        // OF is undefined behind these: what tier 0 makes of it counts, not the host.
        if (_flags.Form is (>= CompiledForm.ShiftLeft and <= CompiledForm.Product) or CompiledForm.Bits && condition is 0 or 1 or >= 12) return false;
        if (_hostFlags && (!carry || _hostCarry)) return true;
        if (!_flags.Known) return RestoreUnknown();
        if (_flags.OnlyCarry && !carry) return false;
        if (_flags.OnlyCarry)
        {
            if ((condition & ~1) == 6) return false;
            if (_flags.CarryInHost) return true;
            // CF from its byte: bit 0 into the host's carry.
            _e.Load(4, Host.Rax, RegisterMap.At(RegisterMap.FlagCarry));
            _e.Shift(5, 4, Host.Rax, 1);
            return true;
        }
        CaptureCarry(ref _flags);
        return Recreate(condition);
    }

    /// <summary>The flags of another block: their form is looked up when they are asked for.</summary>
    private bool RestoreUnknown()
    {
        var done = _e.LeaCode(Host.Rdx);
        _e.JumpTo(_stubs.RestoreFlags);
        _bails.Add(new Bail((nuint)_e.Jump(), _firstOp[_at], default, _vectors.Dirty));
        _e.Bind(done);
        _hostFlags = _hostCarry = true;
        return true;
    }

    private bool Recreate(int condition)
    {
        var bytes = _flags.Bytes;
        var resultOnly = (condition & ~1) is 4 or 8 or 10;
        switch (_flags.Form)
        {
            case CompiledForm.Compare:
                LoadOperand(Host.Rax, _flags.A, RegisterMap.FlagA);
                AluOperand(7, bytes, Host.Rax, _flags.B, RegisterMap.FlagB);
                break;
            case CompiledForm.Logic:
                LoadOperand(Host.Rax, _flags.R, RegisterMap.FlagR);
                _e.Test(bytes, Host.Rax, Host.Rax);
                break;
            case CompiledForm.Subtract:
                LoadOperand(Host.Rax, _flags.R, RegisterMap.FlagR);
                AluOperand(0, bytes, Host.Rax, _flags.B, RegisterMap.FlagB);
                AluOperand(5, bytes, Host.Rax, _flags.B, RegisterMap.FlagB);
                break;
            case CompiledForm.Add:
                LoadOperand(Host.Rax, _flags.R, RegisterMap.FlagR);
                AluOperand(5, bytes, Host.Rax, _flags.B, RegisterMap.FlagB);
                AluOperand(0, bytes, Host.Rax, _flags.B, RegisterMap.FlagB);
                break;
            case CompiledForm.Negate:
                LoadOperand(Host.Rax, _flags.R, RegisterMap.FlagR);
                _e.Unary(0xF6, 3, bytes, Host.Rax);
                _e.Unary(0xF6, 3, bytes, Host.Rax);
                break;
            case CompiledForm.Image or CompiledForm.Raw:
                RestoreImage();
                break;
            case (>= CompiledForm.ShiftLeft and <= CompiledForm.Product) or CompiledForm.Bits when (condition & ~1) == 2:
                _e.Load(4, Host.Rax, RegisterMap.At(RegisterMap.FlagA));
                _e.Shift(5, 4, Host.Rax, 1);
                return true;
            default:
                if (!resultOnly) return false;
                LoadOperand(Host.Rax, _flags.R, RegisterMap.FlagR);
                _e.Test(bytes, Host.Rax, Host.Rax);
                return true; // ZF, SF and PF alone are good
        }
        _hostFlags = _hostCarry = true;
        return true;
    }

    private void LoadOperand(Host to, Operand operand, int offset)
    {
        if (operand.Place == Place.Immediate) _e.MoveImmediate(to, operand.Value);
        else if (operand.Place == Place.Guest) LoadGuest(to, operand.Value);
        else _e.Load(8, to, RegisterMap.At(offset));
    }

    private void AluOperand(int kind, int bytes, Host to, Operand operand, int offset)
    {
        if (operand.Place == Place.Immediate) _e.AluImmediate(kind, bytes, to, operand.Value);
        else if (operand.Place == Place.Guest) _e.Alu(kind, bytes, to, Read(operand.Value, Host.Rdx));
        else _e.Alu(kind, bytes, to, RegisterMap.At(offset));
    }

    private static int ConditionOf(in Instruction i) => (int)i.ConditionCode - 1;
}
