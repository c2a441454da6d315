namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>What an access wants to do.</summary>
internal enum Access
{
    Read,
    Write,
    Execute,
}

/// <summary>Paging (SDM Vol. 3 ch. 4): page walks.</summary>
internal sealed unsafe partial class SoftCpu
{
    private const ulong Present = 1, Writable = 2, UserPage = 4, Accessed = 0x20, Dirty = 0x40, PageSize = 0x80, Global = 0x100, NoExecute = 1UL << 63;
    private const ulong AddressMask = 0x000F_FFFF_FFFF_F000;

    /// <summary>Physical address bits above the 40 that CPUID announces.</summary>
    private const ulong ReservedAddress = 0x000F_FF00_0000_0000;

    /// <summary>The result of a page walk.</summary>
    private struct Translation
    {
        public ulong Physical;
        public byte Shift;
        public bool IsGlobal;
    }

    /// <summary>Walks the page tables. False: the exception is in the state (without an op; the caller adds it).</summary>
    private bool Walk(ulong linear, Access access, bool user, out Translation result)
    {
        var s = _s;
        result = default;
        result.Shift = 12;
        if ((s->Cr0 & 0x8000_0000) == 0)
        {
            result.Physical = (uint)linear;
            return true;
        }
        if ((s->Cr4 & 0x20) == 0) return WalkTwoLevels((uint)linear, access, user, ref result);

        int level;
        ulong table;
        if ((s->Efer & 0x400) != 0)
        {
            if ((ulong)((long)linear >> 47) + 1 > 1) return Fault(Vector.Gp, 0);
            (level, table) = (4, s->Cr3 & AddressMask);
        }
        else
        {
            linear = (uint)linear;
            (level, table) = (3, s->Cr3 & 0xFFFF_FFE0);
        }

        ulong rights = Writable | UserPage, noExecute = 0;
        var path = stackalloc ulong*[4];
        var seen = stackalloc ulong[4];
        var depth = 0;
        for (; ; level--)
        {
            var shift = 12 + 9 * (level - 1);
            var index = (linear >> shift) & (level == 3 && (s->Efer & 0x400) == 0 ? 3UL : 511UL);
            var pointer = (ulong*)_machine.Ram.Host(table + index * 8);
            if (pointer == null) return PageFault(linear, access, user, present: false, reserved: false);
            var entry = Volatile.Read(ref *pointer);
            if ((entry & Present) == 0) return PageFault(linear, access, user, present: false, reserved: false);
            var legacyPdpte = level == 3 && (s->Efer & 0x400) == 0;
            if ((entry & ReservedAddress) != 0 || ((entry & NoExecute) != 0 && (s->Efer & 0x800) == 0))
                return PageFault(linear, access, user, present: true, reserved: true);
            if (!legacyPdpte)
            {
                rights &= entry;
                noExecute |= entry & NoExecute;
            }
            path[depth] = pointer;
            seen[depth] = entry;
            depth++;
            var large = level is 2 or 3 && !legacyPdpte && (entry & PageSize) != 0;
            if (level == 4 && (entry & PageSize) != 0) return PageFault(linear, access, user, present: true, reserved: true);
            if (level > 1 && !large)
            {
                table = entry & AddressMask;
                continue;
            }
            // Bits 13.. of a large page's address are reserved (bit 12 is PAT).
            if (large && (entry & ((1UL << shift) - 1) & ~0x1FFFUL) != 0)
                return PageFault(linear, access, user, present: true, reserved: true);
            if (!Allowed(access, user, rights, noExecute)) return PageFault(linear, access, user, present: true, reserved: false);
            for (var i = 0; i < depth; i++)
            {
                var last = i == depth - 1;
                var wanted = Accessed | (last && access == Access.Write ? Dirty : 0);
                if ((i > 0 || !legacyPdpte) && (seen[i] & wanted) != wanted && !SetBits(path[i], seen[i], wanted))
                    return Walk(linear, access, user, out result); // the guest changed the entry under us
            }
            var mask = (1UL << shift) - 1;
            result.Physical = (entry & AddressMask & ~mask) | (linear & mask);
            result.Shift = (byte)shift;
            result.IsGlobal = (entry & Global) != 0 && (s->Cr4 & 0x80) != 0;
            return true;
        }
    }

    private bool SetBits(ulong* entry, ulong seen, ulong bits)
    {
        // A table entry lives in guest RAM, which can also hold translated code.
        _machine.Ram.BeforeSystemWrite(this, (byte*)entry, 8);
        if (Interlocked.CompareExchange(ref *entry, seen | bits, seen) != seen) return false;
        _lockStep?.NoteWalk((byte*)entry, bits);
        return true;
    }

    private bool WalkTwoLevels(uint linear, Access access, bool user, ref Translation result)
    {
        var s = _s;
        var directory = (uint*)_machine.Ram.Host((s->Cr3 & 0xFFFF_F000) + (linear >> 22) * 4);
        if (directory == null || (*directory & Present) == 0) return PageFault(linear, access, user, present: false, reserved: false);
        var upper = *directory;
        if ((upper & PageSize) != 0 && (s->Cr4 & 0x10) != 0)
        {
            if (!Allowed(access, user, upper, 0)) return PageFault(linear, access, user, present: true, reserved: false);
            Interlocked.Or(ref *directory, (uint)(Accessed | (access == Access.Write ? Dirty : 0)));
            result.Physical = (upper & 0xFFC0_0000) | ((ulong)(upper & 0x1FE000) << 19) | (linear & 0x3F_FFFF);
            result.Shift = 22;
            result.IsGlobal = (upper & Global) != 0 && (s->Cr4 & 0x80) != 0;
            return true;
        }
        var table = (uint*)_machine.Ram.Host((upper & 0xFFFF_F000) + ((linear >> 12) & 0x3FF) * 4);
        if (table == null || (*table & Present) == 0) return PageFault(linear, access, user, present: false, reserved: false);
        var entry = *table;
        if (!Allowed(access, user, entry & upper, 0)) return PageFault(linear, access, user, present: true, reserved: false);
        Interlocked.Or(ref *directory, (uint)Accessed);
        Interlocked.Or(ref *table, (uint)(Accessed | (access == Access.Write ? Dirty : 0)));
        result.Physical = (entry & 0xFFFF_F000) | (linear & 0xFFF);
        result.IsGlobal = (entry & Global) != 0 && (s->Cr4 & 0x80) != 0;
        return true;
    }

    private bool Allowed(Access access, bool user, ulong rights, ulong noExecute)
    {
        if (access == Access.Execute)
        {
            if (noExecute != 0) return false;
            return user ? (rights & UserPage) != 0 : (rights & UserPage) == 0 || (_s->Cr4 & (1UL << 20)) == 0; // SMEP
        }
        if (user) return (rights & UserPage) != 0 && (access == Access.Read || (rights & Writable) != 0);
        return access == Access.Read || (rights & Writable) != 0 || (_s->Cr0 & 0x10000) == 0; // WP
    }

    private bool PageFault(ulong linear, Access access, bool user, bool present, bool reserved)
    {
        var fetchBit = access == Access.Execute && ((_s->Efer & 0x800) != 0 || (_s->Cr4 & (1UL << 20)) != 0);
        _s->Cr2 = linear;
        return Fault(Vector.Pf, (present ? 1u : 0) | (access == Access.Write ? 2u : 0) | (user ? 4u : 0) | (reserved ? 8u : 0) | (fetchBit ? 16u : 0));
    }

    private bool Fault(int vector, uint errorCode)
    {
        _s->Abort = Abort.Exception;
        _s->AbortOp = null;
        _s->ExceptionVector = vector;
        _s->HasErrorCode = 1;
        _s->ExceptionErrorCode = errorCode;
        return false;
    }
}
