using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Memory;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Guest RAM as the CPUs see it: host pointers by physical address, and per page whether translated code came from it.</summary>
internal sealed unsafe class GuestRam : IDisposable
{
    private readonly byte* _low;
    private readonly ulong _lowSize;
    private readonly byte* _high;
    private readonly ulong _highSize;
    private readonly int* _codeHolders;

    public GuestRam(GuestMemory memory)
    {
        _low = (byte*)memory.Regions[0].HostAddress;
        _lowSize = memory.Regions[0].Size;
        if (memory.Regions.Count > 1)
        {
            _high = (byte*)memory.Regions[1].HostAddress;
            _highSize = memory.Regions[1].Size;
        }
        Pages = (_lowSize + _highSize) >> 12;
        // SAFETY: one counter per guest page, indexed through PageIndex, which stays below Pages for RAM addresses.
        _codeHolders = (int*)NativeMemory.AllocZeroed((nuint)Pages, sizeof(int));
    }

    /// <summary>Pages of RAM.</summary>
    public ulong Pages { get; }

    /// <summary>Host address of a byte of guest RAM, or null where there is no RAM. The rest of its page is RAM too.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public byte* Host(ulong physical)
    {
        // SAFETY: both bounds are checked; regions are whole pages, so an access that stays in its page stays in the mapping.
        if (physical < _lowSize) return _low + physical;
        var offset = physical - GuestMemory.HighStart;
        return offset < _highSize ? _high + offset : null;
    }

    /// <summary>Index of a RAM page in tables with one entry per page.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong PageIndex(ulong physical) =>
        (physical < _lowSize ? physical : physical - GuestMemory.HighStart + _lowSize) >> 12;

    /// <summary>First physical address of a page by its index.</summary>
    public ulong PhysicalOf(ulong pageIndex) =>
        pageIndex << 12 is var offset && offset < _lowSize ? offset : offset - _lowSize + GuestMemory.HighStart;

    /// <summary>The physical address of a byte of RAM.</summary>
    public ulong PhysicalAt(byte* host) =>
        host >= _low && host < _low + _lowSize ? (ulong)(host - _low) : (ulong)(host - _high) + GuestMemory.HighStart;

    /// <summary>True where some vCPU holds translated code of this page, which is RAM.</summary>
    public bool HasCode(ulong physical) => Volatile.Read(ref _codeHolders[PageIndex(physical)]) != 0;

    /// <summary>A vCPU makes its first block of a page.</summary>
    public void AddCodeHolder(ulong physical) => Interlocked.Increment(ref _codeHolders[PageIndex(physical)]);

    /// <summary>A vCPU dropped its last block of a page; without holders, writes may be fast again.</summary>
    public void RemoveCodeHolder(ulong physical) => Interlocked.Decrement(ref _codeHolders[PageIndex(physical)]);

    /// <summary>The CPU itself is about to write (page-table bits, stacks): translated code there is dropped first.</summary>
    public void BeforeSystemWrite(SoftCpu cpu, byte* host, int size)
    {
        var physical = PhysicalAt(host);
        if (!HasCode(physical)) return;
        cpu.NoteOutside();
        cpu.Machine.InvalidateCode(physical, (ulong)size, except: null);
    }

    public void Dispose() => NativeMemory.Free(_codeHolders);
}
