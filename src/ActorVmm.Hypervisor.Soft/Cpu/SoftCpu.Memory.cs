namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The slow paths of memory access: TLB misses, page crossings, MMIO, pages with translated code.</summary>
internal sealed unsafe partial class SoftCpu
{
    private bool IsUser => _s->Cpl == 3;

    /// <summary>Loads 1 to 8 bytes at the current privilege.</summary>
    public ulong ReadSlow(Op* op, ulong address, int size, bool forWrite)
    {
        if (!Aligned(address, size)) return Aborted(op);
        if ((address & 0xFFF) + (uint)size > 0x1000) return ReadCrossing(op, address, size, forWrite);
        var access = forWrite ? Access.Write : Access.Read;
        if (!Walk(address, access, IsUser, out var translation)) return Aborted(op, address);
        var host = _machine.Ram.Host(translation.Physical);
        if (host == null) return MmioRead(op, translation.Physical, size);
        Fill(IsUser, Access.Read, address, (ulong)host - address, translation);
        return Load(host, size);
    }

    /// <summary>Stores 1 to 8 bytes at the current privilege.</summary>
    public void WriteSlow(Op* op, ulong address, ulong value, int size)
    {
        if (!Aligned(address, size))
        {
            Aborted(op);
            return;
        }
        if ((address & 0xFFF) + (uint)size > 0x1000)
        {
            WriteCrossing(op, address, value, size);
            return;
        }
        if (!Walk(address, Access.Write, IsUser, out var translation))
        {
            Aborted(op, address);
            return;
        }
        var host = _machine.Ram.Host(translation.Physical);
        if (host == null)
        {
            MmioWrite(op, translation.Physical, value, size);
            return;
        }
        if (_machine.Ram.HasCode(translation.Physical))
        {
            if (!BeforeCodeWrite(op, translation.Physical, size)) return;
            Store(host, value, size);
            _machine.AfterCodeWrite(this, translation.Physical, size);
            return;
        }
        Fill(IsUser, Access.Write, address, (ulong)host - address, translation);
        // Another vCPU may have translated code from this page between the check and the fill; it asks us to drop the entry, and that
        // request is served before the next block. Its own re-check covers this block's writes.
        Store(host, value, size);
    }

    /// <summary>Raises the fault a write would raise; true where it would not.</summary>
    public bool ProbeWrite(Op* op, ulong address, int size)
    {
        if (!Walk(address, Access.Write, IsUser, out _) ||
            ((address & 0xFFF) + (uint)size > 0x1000 && !Walk((address & ~0xFFFUL) + 0x1000, Access.Write, IsUser, out _)))
        {
            Aborted(op);
            return false;
        }
        return true;
    }

    /// <summary>Host pointer for an atomic operation inside one page of RAM; null for MMIO, page crossings, and after a fault.</summary>
    public byte* LockPointer(Op* op, ulong address, int size)
    {
        if ((address & 0xFFF) + (uint)size > 0x1000) return null;
        if (!Walk(address, Access.Write, IsUser, out var translation))
        {
            Aborted(op);
            return null;
        }
        var host = _machine.Ram.Host(translation.Physical);
        if (host == null) return null;
        if (!_machine.Ram.HasCode(translation.Physical))
        {
            Fill(IsUser, Access.Write, address, (ulong)host - address, translation);
            return host;
        }
        if (!BeforeCodeWrite(op, translation.Physical, size)) return null;
        _machine.AfterCodeWrite(this, translation.Physical, size);
        return host;
    }

    /// <summary>Supervisor load from a linear address (descriptor tables, TSS, stacks during delivery). False: an exception is set in the state.</summary>
    public bool SystemRead(ulong linear, int size, out ulong value)
    {
        value = 0;
        for (var done = 0; done < size;)
        {
            var at = linear + (uint)done;
            var part = (int)Math.Min((uint)(size - done), 0x1000 - (at & 0xFFF));
            if (!Walk(at, Access.Read, user: false, out var translation)) return false;
            var host = _machine.Ram.Host(translation.Physical);
            for (var i = 0; i < part; i++) value |= (ulong)(host == null ? 0xFF : host[i]) << (8 * (done + i));
            done += part;
        }
        return true;
    }

    /// <summary>Supervisor store. False: an exception is set in the state and nothing was written.</summary>
    public bool SystemWrite(ulong linear, int size, ulong value)
    {
        var first = (int)Math.Min((uint)size, 0x1000 - (linear & 0xFFF));
        if (!Walk(linear, Access.Write, user: false, out var low)) return false;
        var high = default(Translation);
        if (first < size && !Walk(linear + (uint)first, Access.Write, user: false, out high)) return false;
        StoreSystem(low.Physical, value, first);
        if (first < size) StoreSystem(high.Physical, value >> (8 * first), size - first);
        return true;
    }

    private void StoreSystem(ulong physical, ulong value, int size)
    {
        var host = _machine.Ram.Host(physical);
        if (host == null) return;
        _machine.Ram.BeforeSystemWrite(this, host, size);
        _lockStep?.NoteWrite(host);
        if (size is 1 or 2 or 4 or 8) Store(host, value, size);
        else for (var i = 0; i < size; i++) host[i] = (byte)(value >> (8 * i));
    }

    /// <summary>As below; a non-canonical address of the stack raises #SS instead of #GP (SDM Vol. 3 §6.15, interrupt 12).</summary>
    private ulong Aborted(Op* op, ulong address)
    {
        if (_s->ExceptionVector == Vector.Gp && IsStack(op, address)) _s->ExceptionVector = Vector.Ss;
        return Aborted(op);
    }

    private bool IsStack(Op* op, ulong address) =>
        op->Seg == CpuState.ZeroRegister && op->Base is 4 * 8 or 5 * 8 || (address - _s->Regs[4] + 8 <= 8 && op->Base == CpuState.ZeroRegister);

    private ulong Aborted(Op* op)
    {
        _s->AbortOp = op;
        return 0;
    }

    private ulong ReadCrossing(Op* op, ulong address, int size, bool forWrite)
    {
        var access = forWrite ? Access.Write : Access.Read;
        var first = (int)(0x1000 - (address & 0xFFF));
        if (!Walk(address, access, IsUser, out var low) || !Walk(address + (uint)first, access, IsUser, out var high)) return Aborted(op);
        var value = ReadPart(op, low.Physical, first);
        if (_s->Abort != Abort.None) return 0;
        return value | (ReadPart(op, high.Physical, size - first) << (8 * first));
    }

    private ulong ReadPart(Op* op, ulong physical, int size)
    {
        var host = _machine.Ram.Host(physical);
        ulong value = 0;
        for (var i = 0; i < size; i++)
        {
            value |= (host == null ? MmioRead(op, physical + (uint)i, 1) : host[i]) << (8 * i);
            if (_s->Abort != Abort.None) return 0;
        }
        return value;
    }

    private void WriteCrossing(Op* op, ulong address, ulong value, int size)
    {
        var first = (int)(0x1000 - (address & 0xFFF));
        if (!Walk(address, Access.Write, IsUser, out var low) || !Walk(address + (uint)first, Access.Write, IsUser, out var high))
        {
            Aborted(op);
            return;
        }
        // Both halves are writable; code under either is dropped before anything is stored, so that a restart repeats nothing.
        if (!PrepareCode(op, low.Physical, first) || !PrepareCode(op, high.Physical, size - first)) return;
        WritePart(op, low.Physical, value, first);
        if (_s->Abort != Abort.None) return;
        WritePart(op, high.Physical, value >> (8 * first), size - first);
    }

    private bool PrepareCode(Op* op, ulong physical, int size) =>
        _machine.Ram.Host(physical) == null || !_machine.Ram.HasCode(physical) || BeforeCodeWrite(op, physical, size);

    private void WritePart(Op* op, ulong physical, ulong value, int size)
    {
        var host = _machine.Ram.Host(physical);
        if (host != null) _lockStep?.NoteWrite(host);
        for (var i = 0; i < size; i++)
        {
            if (host != null) host[i] = (byte)(value >> (8 * i));
            else MmioWrite(op, physical + (uint)i, (byte)(value >> (8 * i)), 1);
            if (_s->Abort != Abort.None) return;
        }
        if (host != null && _machine.Ram.HasCode(physical)) _machine.AfterCodeWrite(this, physical, size);
    }

    /// <summary>
    /// Drops own blocks under a write. False: the block that is running is among them, so the instruction is abandoned and run again alone.
    /// </summary>
    private bool BeforeCodeWrite(Op* op, ulong physical, int size)
    {
        NoteOutside();
        if (!_blocks.Invalidate(physical, size, op)) return true;
        _s->Abort = Abort.Restart;
        _s->AbortOp = op;
        return false;
    }

    private static ulong Load(byte* host, int size) => size switch
    {
        1 => Volatile.Read(ref *host),
        2 => *(ushort*)host,
        4 => *(uint*)host,
        8 => *(ulong*)host,
        _ => LoadBytes(host, size),
    };

    private static ulong LoadBytes(byte* host, int size)
    {
        ulong value = 0;
        for (var i = 0; i < size; i++) value |= (ulong)host[i] << (8 * i);
        return value;
    }

    private static void Store(byte* host, ulong value, int size)
    {
        switch (size)
        {
            case 1: *host = (byte)value; break;
            case 2: *(ushort*)host = (ushort)value; break;
            case 4: *(uint*)host = (uint)value; break;
            case 8: *(ulong*)host = value; break;
            default:
                for (var i = 0; i < size; i++) host[i] = (byte)(value >> (8 * i));
                break;
        }
    }
}
