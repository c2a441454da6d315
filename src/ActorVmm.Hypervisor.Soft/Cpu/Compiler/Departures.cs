using System.Globalization;
using System.Runtime.InteropServices;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Cpu.Compiler;

/// <summary>
/// How often compiled code left to tier 0 for an instruction that it has no code for, by form: what the next instruction worth compiling
/// is. Slow paths of compiled instructions do not count.
/// </summary>
internal sealed unsafe class Departures : IDisposable
{
    private const int Shown = 12;

    /// <summary>More than the decoder knows forms (it has about 5,000).</summary>
    private const int Room = 8192;

    private readonly ulong* _counts;

    // SAFETY: one counter for every form that the decoder knows, freed in Dispose, when no vCPU runs any more.
    public Departures() => _counts = (ulong*)NativeMemory.AllocZeroed((nuint)Room, sizeof(ulong));

    /// <summary>The counter that compiled code raises.</summary>
    public ulong* Of(Code code) => _counts + (int)code;

    /// <summary>All of them.</summary>
    public ulong Total
    {
        get
        {
            ulong total = 0;
            for (var n = 0; n < Room; n++) total += _counts[n];
            return total;
        }
    }

    /// <summary>The total and the most frequent ones.</summary>
    public override string ToString()
    {
        var most = Enumerable.Range(0, Room).Where(n => _counts[n] > 0).OrderByDescending(n => _counts[n]).Take(Shown);
        var list = string.Join(", ", most.Select(n => string.Create(CultureInfo.InvariantCulture, $"{(Code)n} {_counts[n]}")));
        return string.Create(CultureInfo.InvariantCulture, $"{Total} departures") + (list.Length > 0 ? $" ({list})" : "");
    }

    public void Dispose() => NativeMemory.Free(_counts);
}
