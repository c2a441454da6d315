using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// The software TLBs. One set serves the supervisor and keeps its global entries over every change of the address space; what is not global
/// there goes with each. Users have a set per process-context identifier (SDM Vol. 3 §4.10.1), so that a guest that comes back to an address
/// space finds its entries again; without CR4.PCIDE all is context 0, which every write to CR3 empties.
/// </summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>Address spaces remembered; Linux uses six.</summary>
    private const int MaxContexts = 8;

    private readonly TlbSet _supervisor;
    private readonly List<TlbSet> _users = [];
    private readonly TlbEntry* _noEntries = EmptyTable();
    private TlbSet? _user;
    private ulong _selections;
    private bool _checksAlignment;

    private static TlbEntry* EmptyTable()
    {
        // SAFETY: a table that stays empty, freed in Dispose.
        var table = (TlbEntry*)NativeMemory.AlignedAlloc((nuint)(Mem.TlbSize * sizeof(TlbEntry)), 64);
        for (var i = 0; i < Mem.TlbSize; i++) table[i] = new TlbEntry { Tag = TlbEntry.Invalid };
        return table;
    }

    private byte* ToZero => _tier == null ? null : _tier.ToZero;

    /// <summary>Times that jumps of compiled code were forgotten.</summary>
    private ulong JumpFlushes
    {
        get
        {
            var sum = _supervisor.JumpFlushes;
            for (var i = 0; i < _users.Count; i++) sum += _users[i].JumpFlushes;
            return sum;
        }
    }

    private ulong ContextId => (_s->Cr4 & Cr4Bits.Pcide) != 0 ? _s->Cr3 & 0xFFF : 0;

    private void SelectTlbs()
    {
        var set = _s->Cpl == 3 ? _user ??= UserSet(ContextId) : _supervisor;
        _s->TlbRead = set.Read;
        _s->TlbWrite = set.Write;
        _s->TlbCode = set.Code;
        _s->JumpCache = set.Jumps;
        // With alignment checks on, every data access takes the slow path, which looks.
        _checksAlignment = _s->Cpl == 3 && (_s->Cr0 & Cr0Bits.Am) != 0 && (_s->SystemFlags & Flags.Ac) != 0;
        if (_checksAlignment) _s->TlbRead = _s->TlbWrite = _noEntries;
    }

    /// <summary>The set of a context; where there is none yet, a new one, or the one that was not used for longest.</summary>
    private TlbSet UserSet(ulong context)
    {
        var set = FindUser(context);
        if (set == null && _users.Count < MaxContexts)
        {
            set = new TlbSet(ToZero) { Context = context };
            _users.Add(set);
        }
        if (set == null)
        {
            set = _users[0];
            foreach (var other in _users)
                if (other.LastUse < set.LastUse) set = other;
            set.Flush(includeGlobal: true);
            set.Context = context;
        }
        set.LastUse = ++_selections;
        return set;
    }

    private TlbSet? FindUser(ulong context)
    {
        for (var i = 0; i < _users.Count; i++)
            if (_users[i].Context == context) return _users[i];
        return null;
    }

    /// <summary>#AC for a misaligned access in ring 3 where CR0.AM and RFLAGS.AC ask for it (SDM Vol. 3 §6.15, interrupt 17).</summary>
    private bool Aligned(ulong address, int size) => !_checksAlignment || (address & (uint)(size - 1)) == 0 || Fault(Vector.Ac, 0);

    /// <summary>CR3 has a new value: another address space, or the same one afresh. Its own entries stay only where <paramref name="keep"/>.</summary>
    private void SwitchAddressSpace(bool keep)
    {
        _supervisor.Flush(includeGlobal: false);
        var context = ContextId;
        if (!keep) FindUser(context)?.Flush(includeGlobal: true);
        if (_user != null && _user.Context == context) return;
        _user = null; // chosen when it is needed
        if (_s->Cpl == 3) SelectTlbs();
    }

    /// <summary>Drops everything.</summary>
    public void FlushTlb()
    {
        _supervisor.Flush(includeGlobal: true);
        foreach (var user in _users) user.Flush(includeGlobal: true);
    }

    /// <summary>INVLPG: the page in the current context, and global entries of it everywhere.</summary>
    public void FlushPage(ulong linear)
    {
        _supervisor.FlushPage(linear);
        var context = ContextId;
        for (var i = 0; i < _users.Count; i++)
            if (_users[i].Context == context || _users[i].HasGlobal) _users[i].FlushPage(linear);
    }

    /// <summary>INVPCID (SDM Vol. 2A): an address of a context, a context, everything, everything but global entries. More may go than is asked.</summary>
    public void FlushContext(int type, ulong context, ulong linear)
    {
        switch (type)
        {
            case 0:
                _supervisor.FlushPage(linear);
                FindUser(context)?.FlushPage(linear);
                break;
            case 1:
                _supervisor.Flush(includeGlobal: false);
                FindUser(context)?.Flush(includeGlobal: true);
                break;
            case 2:
                FlushTlb();
                break;
            default:
                _supervisor.Flush(includeGlobal: false);
                foreach (var user in _users) user.Flush(includeGlobal: true);
                break;
        }
    }

    /// <summary>All machine code is gone.</summary>
    private void ForgetJumps()
    {
        _supervisor.FlushJumps();
        foreach (var user in _users) user.FlushJumps();
    }

    /// <summary>Drops write entries that lead to a physical page, because it now holds translated code.</summary>
    public void FlushWrites(ulong physicalPage)
    {
        var host = _machine.Ram.Host(physicalPage);
        _supervisor.FlushWrites(host);
        for (var i = 0; i < _users.Count; i++) _users[i].FlushWrites(host);
    }

    private void Fill(bool user, Access access, ulong linear, ulong addend, in Translation translation)
    {
        var set = user ? _user ??= UserSet(ContextId) : _supervisor;
        var entry = set.Fill(access, linear, addend, translation.Shift, translation.IsGlobal);
        if (access == Access.Write) _lockStep?.NoteWritable(entry, (byte*)((linear & ~0xFFFUL) + addend));
    }

    private void DisposeTlbs()
    {
        _supervisor.Dispose();
        foreach (var user in _users) user.Dispose();
        NativeMemory.AlignedFree(_noEntries);
    }
}
