namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Port and memory-mapped I/O. An instruction that needs an answer from outside is abandoned, and executed again when the answer is there:
/// the accesses it already made are kept in a log, so that a device sees each of them once.
/// </summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>The longest instruction on MMIO (FXSAVE, ENTER with 31 levels) makes under a hundred accesses, page crossings by the byte included.</summary>
    private readonly ulong[] _log = new ulong[256];
    private int _logCount;
    private int _logNext;
    private bool _logWanted;
    private int _inSize;
    private VcpuExitKind _exitKind;

    /// <summary>Takes over the answer to the last exit.</summary>
    private void AnswerPending()
    {
        if (_inSize != 0)
        {
            var value = (long)Exit.Data;
            switch (_inSize)
            {
                case 1: Width<byte>.Set(_s, 0, value); break;
                case 2: Width<ushort>.Set(_s, 0, value); break;
                default: Width<uint>.Set(_s, 0, value); break;
            }
            _inSize = 0;
        }
        if (_logWanted)
        {
            _log[_logCount++] = Exit.Data;
            _logWanted = false;
        }
        _logNext = 0;
        _timeStale = true;
    }

    private void ForgetLog() => (_logCount, _logNext, _logWanted) = (0, 0, false);

    /// <summary>One element of a string instruction is committed.</summary>
    public void ElementDone()
    {
        if (_logCount > 0) ForgetLog();
    }

    /// <summary>Finishes the instruction of a pending read or write without running another; or returns its next access.</summary>
    public VcpuExitKind CompletePending()
    {
        AnswerPending();
        while (_logCount != 0)
        {
            Execute();
            if (_s->Abort == Abort.None) break;
            if (Settle() is not (var exit and not VcpuExitKind.None)) continue;
            if (_logCount != 0) return Report(exit);
            // The next element of a string instruction, of which nothing has happened yet: between two elements the state is whole.
            _logWanted = false;
        }
        return VcpuExitKind.None;
    }

    /// <summary>True with the answer where the access was made in an earlier try of the instruction; else describes the exit.</summary>
    private bool FromLog(Op* op, VcpuExitKind kind, ulong address, int size, ulong data, out ulong answer)
    {
        answer = 0;
        if (_logNext < _logCount)
        {
            answer = _log[_logNext++];
            return true;
        }
        Describe(kind, address, size, data);
        _logWanted = true;
        _s->Abort = Abort.Exit;
        _s->AbortOp = op;
        return false;
    }

    private void Describe(VcpuExitKind kind, ulong address, int size, ulong data)
    {
        Exit.Address = address;
        Exit.Size = size;
        Exit.Data = data;
        Exit.Detail = null;
        _exitKind = kind;
    }

    private ulong MmioRead(Op* op, ulong physical, int size)
    {
        if (_machine.TryReadChip(this, physical, size, out var value))
        {
            NoteOutside();
            return value;
        }
        FromLog(op, VcpuExitKind.MmioRead, physical, size, 0, out value);
        return size == 8 ? value : value & ((1UL << (8 * size)) - 1);
    }

    private void MmioWrite(Op* op, ulong physical, ulong value, int size)
    {
        if (_machine.TryWriteChip(this, physical, size, value))
        {
            NoteOutside();
            _timeStale = true;
            Attend();
            return;
        }
        FromLog(op, VcpuExitKind.MmioWrite, physical, size, value, out _);
    }

    /// <summary>IN: the chips of the machine answer at once; everything else leaves with RIP already behind the instruction.</summary>
    public void PortRead(Op* op, ushort port, int size)
    {
        if (!PortAllowed(op, port, size)) return;
        Advance(op);
        if (_machine.TryReadPort(port, size, out var value))
        {
            NoteOutside();
            _inSize = size;
            Exit.Data = value;
            AnswerPending();
            return;
        }
        Describe(VcpuExitKind.PortRead, port, size, 0);
        _inSize = size;
        _s->Abort = Abort.Exit;
        _s->AbortOp = null;
    }

    /// <summary>OUT.</summary>
    public void PortWrite(Op* op, ushort port, int size, ulong value)
    {
        if (!PortAllowed(op, port, size)) return;
        Advance(op);
        if (_machine.TryWritePort(port, size, value))
        {
            NoteOutside();
            _timeStale = true;
            return;
        }
        Describe(VcpuExitKind.PortWrite, port, size, value);
        _s->Abort = Abort.Exit;
        _s->AbortOp = null;
    }

    private void Advance(Op* op)
    {
        var next = _s->Rip + (ulong)op->NextOffset;
        _s->Rip = _s->Mode switch { CodeMode.Bits64 => next, CodeMode.Bits32 => (uint)next, _ => (ushort)next };
    }

    /// <summary>One element of INS.</summary>
    public ulong PortReadInString(Op* op, ushort port, int size)
    {
        if (_machine.TryReadPort(port, size, out var value)) NoteOutside();
        else FromLog(op, VcpuExitKind.PortRead, port, size, 0, out value);
        return value;
    }

    /// <summary>One element of OUTS.</summary>
    public void PortWriteInString(Op* op, ushort port, int size, ulong value)
    {
        if (_machine.TryWritePort(port, size, value)) NoteOutside();
        else FromLog(op, VcpuExitKind.PortWrite, port, size, value, out _);
    }

    /// <summary>I/O permission (SDM Vol. 1 §18.5): IOPL, else the bitmap of the TSS.</summary>
    public bool PortAllowed(Op* op, ushort port, int size)
    {
        var s = _s;
        if ((s->Cr0 & 1) == 0 || s->Cpl <= (int)((s->SystemFlags & Flags.Iopl) >> 12)) return true;
        if (s->Tr.Present && (s->Tr.Type & 8) != 0 && s->Tr.Limit >= 103)
        {
            if (!SystemRead(s->TrBase + 102, 2, out var map)) return NotAllowed(op);
            var at = map + (uint)(port >> 3);
            if (at + 1 <= s->Tr.Limit)
            {
                if (!SystemRead(s->TrBase + at, 2, out var bits)) return NotAllowed(op);
                if (((bits >> (port & 7)) & ((1UL << size) - 1)) == 0) return true;
            }
        }
        Flow.Raise(s, op, Vector.Gp, 0);
        return false;
    }

    private bool NotAllowed(Op* op)
    {
        _s->AbortOp = op;
        return false;
    }

    /// <summary>CMPXCHG16B. False after a fault.</summary>
    public bool CompareExchange16(Op* op, ulong address)
    {
        var s = _s;
        if ((address & 15) != 0)
        {
            Flow.Raise(s, op, Vector.Gp, 0);
            return false;
        }
        var p = LockPointer(op, address, 16);
        if (s->Abort != Abort.None) return false;
        var expected = new UInt128(s->Regs[2], s->Regs[0]);
        var value = new UInt128(s->Regs[1], s->Regs[3]);
        UInt128 old;
        if (p != null)
        {
            old = Atomic128.CompareExchange(p, value, expected);
        }
        else
        {
            old = Mem.Read128(s, op, address);
            if (s->Abort != Abort.None) return false;
            Mem.Write128(s, op, address, old == expected ? value : old);
            if (s->Abort != Abort.None) return false;
        }
        if (old != expected)
        {
            s->Regs[0] = (ulong)old;
            s->Regs[2] = (ulong)(old >> 64);
        }
        Flags.Change(s, Flags.Zf, old == expected ? Flags.Zf : 0);
        return true;
    }
}
