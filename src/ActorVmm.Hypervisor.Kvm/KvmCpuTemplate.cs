using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>Bits to change in a register: those of <paramref name="Mask"/> take <paramref name="Value"/>'s, the rest is kept.</summary>
public readonly record struct BitPattern(ulong Mask, ulong Value)
{
    /// <summary>The register after the change.</summary>
    public ulong Apply(ulong register) => (register & ~Mask) | (Value & Mask);

    /// <summary>
    /// Parses <c>0b…</c> of 0, 1 and x (keep; underscores are ignored), most significant first, at most <paramref name="width"/> places, as
    /// in Firecracker's cpu-config.
    /// </summary>
    public static bool TryParse(string text, int width, out BitPattern pattern)
    {
        pattern = default;
        if (!text.StartsWith("0b", StringComparison.Ordinal)) return false;
        ulong mask = 0, value = 0;
        var places = 0;
        foreach (var place in text.AsSpan(2))
        {
            if (place == '_') continue;
            if (++places > width) return false;
            mask <<= 1;
            value <<= 1;
            switch (place)
            {
                case '0': mask |= 1; break;
                case '1': mask |= 1; value |= 1; break;
                case 'x': break;
                default: return false;
            }
        }
        pattern = new BitPattern(mask, value);
        return places > 0;
    }
}

/// <summary>Registers of a CPUID leaf.</summary>
public enum CpuidRegister
{
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// <summary>A change to one register of one CPUID leaf.</summary>
public readonly record struct CpuidModifier(uint Leaf, uint Subleaf, CpuidRegister Register, BitPattern Bits);

/// <summary>A change to one model-specific register, relative to its value at start.</summary>
public readonly record struct MsrModifier(uint Index, BitPattern Bits);

/// <summary>A KVM capability that must be there (<c>"121"</c>), or need not be although it usually must (<c>"!56"</c>).</summary>
public readonly record struct CapabilityDemand(uint Number, bool Required);

/// <summary>A hypervisor that can show its guests another CPU than the host's.</summary>
public interface ICpuTemplateHypervisor : IHypervisor
{
    /// <summary>The same hypervisor, whose machines get <paramref name="template"/> in place of what it changed so far.</summary>
    IHypervisor With(KvmCpuTemplate template);
}

/// <summary>Changes to the CPU that a guest sees (<c>cpu-config</c> of the Firecracker contract). A leaf or MSR that the host lacks is
/// refused.</summary>
public sealed record KvmCpuTemplate
{
    /// <summary>No changes.</summary>
    public static readonly KvmCpuTemplate None = new();

    public IReadOnlyList<CpuidModifier> Cpuid { get; init; } = [];
    public IReadOnlyList<MsrModifier> Msrs { get; init; } = [];
    public IReadOnlyList<CapabilityDemand> Capabilities { get; init; } = [];

    /// <summary>Does it change nothing and ask for nothing?</summary>
    public bool IsEmpty => Cpuid.Count == 0 && Msrs.Count == 0 && Capabilities.Count == 0;

    internal void ApplyMsrs(KvmMsrs msrs, KvmFile vcpu)
    {
        if (Msrs.Count == 0) return;
        var current = msrs.Get(vcpu).ToDictionary(msr => msr.Index, msr => msr.Value);
        var changed = new List<MsrValue>(Msrs.Count);
        foreach (var modifier in Msrs)
        {
            if (!current.TryGetValue(modifier.Index, out var value))
                throw new HypervisorException($"cpu-config: MSR 0x{modifier.Index:x} does not exist on this host");
            changed.Add(new MsrValue(modifier.Index, modifier.Bits.Apply(value)));
        }
        msrs.Set(vcpu, changed);
    }
}
