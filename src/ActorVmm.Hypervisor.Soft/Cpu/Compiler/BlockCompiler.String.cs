using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// String instructions. Upwards and with all elements in pages that the TLB has, a repeated one is the host's own; else it is left to tier
/// 0, which comes back behind it. Either way it is one instruction, and nothing in between can be seen.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    private const int Rsi = 6, Rdi = 7;

    /// <summary>Tier 0 comes back to the next instruction: a place to go on that knows nothing.</summary>
    private bool _rejoins;

    private bool TryString(in Instruction i)
    {
        var (kind, bytes) = i.Mnemonic switch
        {
            Mnemonic.Movsb => (StringKind.Move, 1),
            Mnemonic.Movsw => (StringKind.Move, 2),
            Mnemonic.Movsd => (StringKind.Move, 4),
            Mnemonic.Movsq => (StringKind.Move, 8),
            Mnemonic.Stosb => (StringKind.Store, 1),
            Mnemonic.Stosw => (StringKind.Store, 2),
            Mnemonic.Stosd => (StringKind.Store, 4),
            Mnemonic.Stosq => (StringKind.Store, 8),
            Mnemonic.Lodsb => (StringKind.Load, 1),
            Mnemonic.Lodsw => (StringKind.Load, 2),
            Mnemonic.Lodsd => (StringKind.Load, 4),
            Mnemonic.Lodsq => (StringKind.Load, 8),
            Mnemonic.Scasb => (StringKind.Scan, 1),
            Mnemonic.Scasw => (StringKind.Scan, 2),
            Mnemonic.Scasd => (StringKind.Scan, 4),
            Mnemonic.Scasq => (StringKind.Scan, 8),
            Mnemonic.Cmpsb => (StringKind.Compare, 1),
            Mnemonic.Cmpsw => (StringKind.Compare, 2),
            Mnemonic.Cmpsd => (StringKind.Compare, 4),
            Mnemonic.Cmpsq => (StringKind.Compare, 8),
            _ => (StringKind.None, 0),
        };
        if (kind == StringKind.None) return false;
        for (var n = 0; n < i.OpCount; n++)
            if (i.GetOpKind(n) is not (OpKind.MemoryESRDI or OpKind.MemorySegRSI or OpKind.Register)) return false; // 32-bit addresses
        LoseHostFlags();
        _e.TestImmediate(RegisterMap.At(RegisterMap.SystemFlags + 1), (int)(Flags.Df >> 8));
        BailIf(5);
        if (i.HasRepPrefix || i.HasRepnePrefix) return Repeated(i, kind, bytes);
        var uses = kind != StringKind.Scan && kind != StringKind.Store;
        if (uses) BeforeWrite(Rsi);
        if (kind != StringKind.Load) BeforeWrite(Rdi);
        switch (kind)
        {
            case StringKind.Move:
                ProbeSource(i, bytes, Host.None);
                _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
                _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rdx);
                ProbeDestination(bytes, write: true, Host.None);
                _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
                _e.Store(bytes, new HostAddress(Host.Rax), Host.Rdx);
                break;
            case StringKind.Store:
                ProbeDestination(bytes, write: true, Host.None);
                _e.Store(bytes, new HostAddress(Host.Rax), RegisterMap.Of(0));
                break;
            case StringKind.Load:
                BeforeWrite(0);
                ProbeSource(i, bytes, Host.None);
                _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
                Write(0, bytes, Host.Rdx);
                break;
            case StringKind.Scan:
                ProbeDestination(bytes, write: false, Host.None);
                _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
                _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rcx);
                _e.Alu(AluCmp, bytes, RegisterMap.Of(0), Host.Rcx);
                SetFlags(CompiledForm.Compare, bytes, Operand.Guest(0), default, default);
                break;
            default:
                ProbeSource(i, bytes, Host.None);
                _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
                _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rdx);
                ProbeDestination(bytes, write: false, Host.None);
                _e.Load(bytes, Host.Rcx, new HostAddress(Host.Rax));
                _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
                _e.Store(8, RegisterMap.At(RegisterMap.FlagA), Host.Rdx);
                _e.Store(8, RegisterMap.At(RegisterMap.FlagB), Host.Rcx);
                _e.Alu(AluCmp, bytes, Host.Rdx, Host.Rcx);
                SetFlags(CompiledForm.Compare, bytes, default, default, default);
                break;
        }
        if (uses) _e.Lea(RegisterMap.Of(Rsi), new HostAddress(RegisterMap.Of(Rsi), bytes));
        if (kind != StringKind.Load) _e.Lea(RegisterMap.Of(Rdi), new HostAddress(RegisterMap.Of(Rdi), bytes));
        return true;
    }

    private enum StringKind
    {
        None,
        Move,
        Store,
        Load,
        Scan,
        Compare,
    }

    /// <summary>Host address of [RSI] into RAX, for one element or for as many as <paramref name="count"/> says.</summary>
    private void ProbeSource(in Instruction i, int bytes, Host count)
    {
        LoadGuest(Host.Rax, Rsi);
        AddSegment(i);
        Probe(bytes, write: false, count);
    }

    /// <summary>Adds the base of FS or GS to RAX.</summary>
    private void AddSegment(in Instruction i)
    {
        if (i.MemorySegment is not (Register.FS or Register.GS)) return;
        _e.Alu(AluAdd, 8, Host.Rax, RegisterMap.At(BlockBuilder.BaseOffset(i.MemorySegment)));
    }

    private void ProbeDestination(int bytes, bool write, Host count)
    {
        LoadGuest(Host.Rax, Rdi);
        Probe(bytes, write, count);
    }

    private bool Repeated(in Instruction i, StringKind kind, int bytes)
    {
        // Tier 0 may take over and come back behind it: everything is in the state then, and nothing is known.
        StoreFlags();
        StoreVectors();
        var (count, source, destination) = (RegisterMap.Of(1), RegisterMap.Of(Rsi), RegisterMap.Of(Rdi));
        var scale = System.Numerics.BitOperations.Log2((uint)bytes);
        _e.Test(8, count, count);
        var none = _e.JumpIf(4);
        _e.AluImmediate(AluCmp, 8, count, 4096 / bytes);
        BailIf(7);
        if (kind is StringKind.Move or StringKind.Compare or StringKind.Load) ProbeSource(i, bytes, count);
        if (kind is StringKind.Move or StringKind.Compare) _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
        if (kind != StringKind.Load) ProbeDestination(bytes, kind is StringKind.Move or StringKind.Store, count);
        switch (kind)
        {
            case StringKind.Load:
                // The last element is the one that stays.
                _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax, -bytes, count, scale));
                _e.Lea(source, new HostAddress(source, 0, count, scale));
                Write(0, bytes, Host.Rdx);
                _e.Alu(AluXor, 4, count, count);
                break;
            case StringKind.Move or StringKind.Store:
                if (kind == StringKind.Move) _e.Lea(source, new HostAddress(source, 0, count, scale));
                _e.Lea(destination, new HostAddress(destination, 0, count, scale));
                _e.Move(8, Host.Rdx, Host.Rdi); // a guest register is there
                _e.Move(8, Host.Rcx, count);
                _e.Move(8, Host.Rdi, Host.Rax);
                if (kind == StringKind.Move) _e.Load(8, Host.Rsi, RegisterMap.At(RegisterMap.Transfer));
                else _e.Move(8, Host.Rax, RegisterMap.Of(0));
                _e.Repeat(0xF3, kind == StringKind.Move ? 0xA4 : 0xAA, bytes);
                _e.Move(8, Host.Rdi, Host.Rdx);
                _e.Alu(AluXor, 4, count, count);
                break;
            default:
                _e.Move(8, Host.Rdx, Host.Rdi);
                _e.Move(8, Host.Rcx, count);
                _e.Move(8, Host.Rdi, Host.Rax);
                if (kind == StringKind.Compare) _e.Load(8, Host.Rsi, RegisterMap.At(RegisterMap.Transfer));
                else _e.Move(8, Host.Rax, RegisterMap.Of(0));
                _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rcx);
                _e.Repeat(i.HasRepnePrefix ? 0xF2 : 0xF3, kind == StringKind.Compare ? 0xA6 : 0xAE, bytes);
                StoreImage();
                _e.StoreImmediate(4, RegisterMap.At(RegisterMap.FlagKind), (int)CompiledFlags.Kind(CompiledForm.Raw, 1));
                _e.Move(8, Host.Rdi, Host.Rdx);
                _e.Move(8, count, Host.Rcx);
                _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
                _e.Alu(AluSub, 8, Host.Rdx, Host.Rcx);
                if (kind == StringKind.Compare) _e.Lea(source, new HostAddress(source, 0, Host.Rdx, scale));
                _e.Lea(destination, new HostAddress(destination, 0, Host.Rdx, scale));
                break;
        }
        _e.Bind(none);
        FlagsUnknown();
        VectorsUnknown();
        _rejoins = true;
        return true;
    }
}
