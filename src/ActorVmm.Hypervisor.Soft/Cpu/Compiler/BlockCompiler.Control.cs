using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// Jumps, calls, the stack, and what tests a condition. Jumps within the page go straight to the code of the next block; returns go where
/// their call said; all others ask the jump cache by virtual address.
/// </summary>
internal sealed unsafe partial class BlockCompiler
{
    private bool TryControl(in Instruction i)
    {
        switch (i.Mnemonic)
        {
            case Mnemonic.Push: return Push(i);
            case Mnemonic.Pop: return Pop(i);
            case Mnemonic.Leave: return Leave(i);
            case Mnemonic.Call: return Call(i);
            case Mnemonic.Jmp: return Jump(i);
            case Mnemonic.Ret: return Return(i);
            case Mnemonic.Loop or Mnemonic.Loope or Mnemonic.Loopne or Mnemonic.Jecxz or Mnemonic.Jrcxz: return Loop(i);
        }
        if (i.ConditionCode == ConditionCode.None) return false;
        if (i.IsJccShortOrNear) return JumpIf(i);
        if (i.FlowControl != FlowControl.Next) return false;
        return i.OpCount == 1 ? SetIf(i) : i.OpCount == 2 && IsRegister(i, 0) && MoveIf(i);
    }

    // --- conditions ---

    private bool SetIf(in Instruction i)
    {
        var condition = ConditionOf(i);
        if (!PrepareCondition(condition)) return false;
        if (IsMemory(i, 0))
        {
            _e.SetIf(condition, RegisterMap.At(RegisterMap.Transfer));
            Access(i, 1, write: true);
            _e.Load(1, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
            _e.Store(1, new HostAddress(Host.Rax), Host.Rdx);
            return true;
        }
        if (IsHighByte(i.Op0Register)) return false;
        var to = Number(i.Op0Register);
        BeforeWrite(to);
        if (RegisterMap.Of(to) is var host and not Host.None) _e.SetIf(condition, host);
        else _e.SetIf(condition, RegisterMap.Slot(to));
        return true;
    }

    private bool MoveIf(in Instruction i)
    {
        var bytes = SizeOf(i, 0);
        var to = Number(i.Op0Register);
        var condition = ConditionOf(i);
        if (IsMemory(i, 1))
        {
            Access(i, bytes, write: false);
            _e.Load(bytes, Host.Rdx, new HostAddress(Host.Rax));
            _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rdx);
        }
        if (!PrepareCondition(condition)) return false;
        BeforeWrite(to);
        if (IsMemory(i, 1))
        {
            var target = OpenDestination(to);
            _e.Memory(bytes, 0x0F40 | condition, target, RegisterMap.At(RegisterMap.Transfer));
            CloseDestination(to, bytes, target);
            return true;
        }
        var from = Read(Number(i.Op1Register), Host.Rdx);
        var into = OpenDestination(to);
        _e.Registers(bytes, 0x0F40 | condition, into, from);
        CloseDestination(to, bytes, into);
        return true;
    }

    // --- stack ---

    private const int Rsp = 4, Rbp = 5;

    private static readonly Host StackPointer = RegisterMap.Of(Rsp);

    /// <summary>Puts the host address of the stack's next slot into RAX; RSP is still what it was.</summary>
    private void ProbePush()
    {
        BeforeWrite(Rsp);
        _e.Lea(Host.Rax, new HostAddress(StackPointer, -8));
        Probe(8, write: true);
    }

    private void MoveStack(int bytes) => _e.Lea(StackPointer, new HostAddress(StackPointer, bytes));

    private bool Push(in Instruction i)
    {
        if (i.StackPointerIncrement != -8) return false;
        if (IsMemory(i, 0))
        {
            BeforeWrite(Rsp);
            Access(i, 8, write: false);
            _e.Load(8, Host.Rax, new HostAddress(Host.Rax));
            _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
            ProbePush();
            _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Transfer));
            _e.Store(8, new HostAddress(Host.Rax), Host.Rdx);
        }
        else
        {
            ProbePush();
            if (IsRegister(i, 0)) _e.Store(8, new HostAddress(Host.Rax), Read(Number(i.Op0Register), Host.Rdx));
            else _e.StoreImmediate(8, new HostAddress(Host.Rax), (int)(long)i.GetImmediate(0));
        }
        MoveStack(-8);
        return true;
    }

    private bool Pop(in Instruction i)
    {
        if (i.StackPointerIncrement != 8 || !IsRegister(i, 0)) return false;
        var to = Number(i.Op0Register);
        BeforeWrite(Rsp);
        BeforeWrite(to);
        _e.Move(8, Host.Rax, StackPointer);
        Probe(8, write: false);
        _e.Load(8, Host.Rdx, new HostAddress(Host.Rax));
        MoveStack(8);
        Write(to, 8, Host.Rdx);
        return true;
    }

    private bool Leave(in Instruction i)
    {
        if (i.Code != Code.Leaveq) return false;
        BeforeWrite(Rsp);
        BeforeWrite(Rbp);
        var frame = RegisterMap.Of(Rbp);
        _e.Move(8, Host.Rax, frame);
        Probe(8, write: false);
        _e.Lea(StackPointer, new HostAddress(frame, 8));
        _e.Load(8, frame, new HostAddress(Host.Rax));
        return true;
    }

    // --- jumps ---

    /// <summary>The end of a block without a jump.</summary>
    private void FallThrough()
    {
        LoseHostFlags();
        StoreFlags();
        StoreVectors();
        GoTo(_start - _page + (uint)_block->Length);
    }

    /// <summary>Jumps to a distance from the start of the page; flags are in the state.</summary>
    private void GoTo(ulong displacement)
    {
        if (displacement < 0x1000)
        {
            EdgeTo((int)displacement, _e.Jump());
            return;
        }
        _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Page));
        _e.Lea(Host.Rax, new HostAddress(Host.Rax, (int)displacement));
        JumpCached();
    }

    /// <summary>Leaves to tier 0, which raises the fault, where the address in RAX is none. Uses RCX.</summary>
    private void BailUnlessCanonical()
    {
        _e.Move(8, Host.Rcx, Host.Rax);
        _e.Shift(7, 8, Host.Rcx, 47);
        _e.AluImmediate(AluAdd, 8, Host.Rcx, 1);
        _e.AluImmediate(AluCmp, 8, Host.Rcx, 1);
        BailIf(7);
    }

    /// <summary>Jumps to the address in RAX, which is canonical, through the jump cache.</summary>
    private void JumpCached()
    {
        ProbeJumpCache();
        _e.JumpIfTo(5, _stubs.Dispatch);
        EnterCached();
    }

    private void ProbeJumpCache()
    {
        Stubs.EmitHash(_e, Host.Rax, Host.Rdx);
        _e.Alu(AluAdd, 8, Host.Rdx, RegisterMap.At(RegisterMap.JumpCache));
        _e.Alu(AluCmp, 8, Host.Rax, new HostAddress(Host.Rdx));
    }

    private void EnterCached()
    {
        _e.AluImmediate(AluAnd, 8, Host.Rax, -4096);
        _e.Store(8, RegisterMap.At(RegisterMap.Page), Host.Rax);
        _e.JumpMemory(new HostAddress(Host.Rdx, 8));
    }

    private ulong TargetDisplacement(in Instruction i) => i.NearBranchTarget - _page;

    /// <summary>True where a branch target can be reached by a 32-bit distance from the page.</summary>
    private bool InReach(in Instruction i) => i.Op0Kind == OpKind.NearBranch64 && (long)TargetDisplacement(i) is >= int.MinValue and <= int.MaxValue;

    private bool JumpIf(in Instruction i)
    {
        if (!InReach(i)) return false;
        var condition = ConditionOf(i);
        if (!PrepareCondition(condition)) return false;
        StoreFlags();
        _ended = true;
        if (TargetDisplacement(i) < 0x1000)
        {
            EdgeTo((int)TargetDisplacement(i), _e.JumpIf(condition));
        }
        else
        {
            var not = _e.JumpIf(condition ^ 1);
            GoTo(TargetDisplacement(i));
            _e.Bind(not);
        }
        GoTo(i.NextIP - _page);
        return true;
    }

    private bool Jump(in Instruction i)
    {
        if (i.Op0Kind == OpKind.NearBranch64)
        {
            if (!InReach(i)) return false;
            LoseHostFlags();
            StoreFlags();
            GoTo(TargetDisplacement(i));
        }
        else
        {
            if (!TryTarget(i)) return false;
            ProbeJumpCache();
            var missed = _e.JumpIf(5);
            EnterCached();
            _e.Bind(missed);
            BailUnlessCanonical();
            _e.JumpTo(_stubs.Dispatch);
        }
        _ended = true;
        return true;
    }

    /// <summary>Puts the target of an indirect jump or call into RAX.</summary>
    private bool TryTarget(in Instruction i)
    {
        LoseHostFlags();
        StoreFlags();
        if (IsRegister(i, 0))
        {
            if (i.Op0Register.GetSize() != 8) return false;
            LoadGuest(Host.Rax, Number(i.Op0Register));
            return true;
        }
        if (i.Op0Kind != OpKind.Memory || i.MemorySize != MemorySize.QwordOffset) return false;
        Access(i, 8, write: false);
        _e.Load(8, Host.Rax, new HostAddress(Host.Rax));
        return true;
    }

    private bool Call(in Instruction i)
    {
        var direct = i.Op0Kind == OpKind.NearBranch64;
        if (direct)
        {
            if (!InReach(i)) return false;
            LoseHostFlags();
            StoreFlags();
        }
        else
        {
            if (!TryTarget(i)) return false;
            BailUnlessCanonical();
            _e.Store(8, RegisterMap.At(RegisterMap.Transfer), Host.Rax);
        }
        ProbePush();
        _e.Load(8, Host.Rdx, RegisterMap.At(RegisterMap.Page));
        _e.Lea(Host.Rdx, new HostAddress(Host.Rdx, (int)(i.NextIP - _page)));
        _e.Store(8, new HostAddress(Host.Rax), Host.Rdx);
        MoveStack(-8);
        NoteReturn(i.NextIP - _page);
        _ended = true;
        if (direct)
        {
            GoTo(TargetDisplacement(i));
            return true;
        }
        _e.Load(8, Host.Rax, RegisterMap.At(RegisterMap.Transfer));
        JumpCached();
        return true;
    }

    /// <summary>By the return that its call left; else as any jump. A target that is not canonical faults here (SDM Vol. 2 RET).</summary>
    private bool Return(in Instruction i)
    {
        var drop = i.OpCount > 0 ? i.Immediate16 : 0;
        if (i.StackPointerIncrement != 8 + drop) return false;
        LoseHostFlags();
        StoreFlags();
        _e.Move(8, Host.Rax, StackPointer);
        Probe(8, write: false);
        _e.Load(8, Host.Rax, new HostAddress(Host.Rax));
        FindReturn();
        _e.Alu(AluCmp, 8, Host.Rax, new HostAddress(Host.Rcx, JumpCache.ReturnAddress));
        var other = _e.JumpIf(5);
        MoveStack(8 + drop);
        _e.AluImmediate(AluAnd, 8, Host.Rax, -4096);
        _e.Store(8, RegisterMap.At(RegisterMap.Page), Host.Rax);
        _e.JumpMemory(new HostAddress(Host.Rcx, JumpCache.ReturnCode));
        _e.Bind(other);
        BailUnlessCanonical();
        MoveStack(8 + drop);
        JumpCached();
        _ended = true;
        return true;
    }

    /// <summary>RCX = the slot of the return whose address lies on top of the stack.</summary>
    private void FindReturn()
    {
        _e.Move(4, Host.Rcx, StackPointer);
        _e.AluImmediate(AluAnd, 4, Host.Rcx, JumpCache.ReturnMask);
        _e.Alu(AluAdd, 8, Host.Rcx, RegisterMap.At(RegisterMap.JumpCache));
    }

    /// <summary>RDX = the address of the instruction behind a call, which was pushed: leaves it, and the code that goes on there.</summary>
    private void NoteReturn(ulong displacement)
    {
        if (displacement >= 0x1000) return; // in another page, of which this code knows nothing
        FindReturn();
        _e.Store(8, new HostAddress(Host.Rcx, JumpCache.ReturnAddress), Host.Rdx);
        _returns.Add(new Edge((nuint)_e.LeaCode(Host.Rdx), (int)displacement));
        _e.Store(8, new HostAddress(Host.Rcx, JumpCache.ReturnCode), Host.Rdx);
    }
}
