using ActorVmm.Hypervisor;

namespace ActorVmm.Testing.Guests;

/// <summary>How a run of a tiny guest ended.</summary>
public enum GuestEnd
{
    Done,
    Fault,
    Halted,
    Shutdown,
    SystemEvent,
    Failed,
    Stopped,
    TimedOut,
}

/// <summary>One access that reached the outside.</summary>
public readonly record struct GuestAccess(int Vcpu, VcpuExitKind Kind, ulong Address, int Size, ulong Data);

/// <summary>An exception that the guest's handler reported.</summary>
public readonly record struct GuestFault(int Vcpu, byte Vector, uint ErrorCode, ulong Rip, ushort Cs, ulong Cr2, ulong Rsp, ulong Rflags);

/// <summary>Everything that came out of a tiny guest.</summary>
public sealed class GuestRun
{
    private readonly List<uint> _faultWords = [];
    private int _kicks;

    public GuestEnd End { get; internal set; }
    public int EndingVcpu { get; internal set; }
    public string? Detail { get; internal set; }

    /// <summary>Values that the guest reported, all vCPUs in order of arrival.</summary>
    public List<ulong> Reports { get; } = [];
    public List<GuestFault> Faults { get; } = [];
    public List<GuestAccess> Accesses { get; } = [];

    /// <summary>How often a vCPU came out because it was kicked.</summary>
    public int Kicks => Volatile.Read(ref _kicks);

    internal void CountKick() => Interlocked.Increment(ref _kicks);

    /// <summary>The words of a fault arrive one by one; the eleventh makes it whole.</summary>
    internal GuestFault? AddFaultWord(int vcpu, uint word)
    {
        _faultWords.Add(word);
        if (_faultWords.Count < 11) return null;
        var w = _faultWords;
        var fault = new GuestFault(vcpu, (byte)w[0], w[1], w[2] | ((ulong)w[3] << 32), (ushort)w[4], w[5] | ((ulong)w[6] << 32),
            w[7] | ((ulong)w[8] << 32),
            w[9] | ((ulong)w[10] << 32));
        w.Clear();
        Faults.Add(fault);
        return fault;
    }

    public override string ToString() =>
        $"end {End} on vCPU {EndingVcpu} {Detail}\n reports: {string.Join(" ", Reports.Select(r => $"0x{r:x}"))}\n faults: {string.Join("\n  ", Faults)}\n accesses: "
        + string.Join("\n  ", Accesses.Take(50));
}
