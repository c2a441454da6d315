using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>
/// The guest's CPUID: what KVM supports, with the host's topology replaced by the machine's (one package, one thread per core, APIC id =
/// vCPU id) and the template's changes.
/// </summary>
internal sealed class KvmCpuid
{
    private readonly KvmCpuidEntry[] _leaves;
    private readonly int _vcpus;
    private readonly IReadOnlyList<CpuidModifier> _modifiers;

    private KvmCpuid(KvmCpuidEntry[] leaves, int vcpus, IReadOnlyList<CpuidModifier> modifiers)
    {
        _leaves = leaves;
        _vcpus = vcpus;
        _modifiers = modifiers;
    }

    public static KvmCpuid ForMachine(KvmSystem system, int vcpus, KvmCpuTemplate template) =>
        For(system.SupportedCpuid(), vcpus, system.Check(KvmCap.TSC_DEADLINE_TIMER) > 0, template);

    /// <summary>The common part of all vCPUs. <paramref name="supported"/> is copied.</summary>
    public static KvmCpuid For(ReadOnlySpan<KvmCpuidEntry> supported, int vcpus, bool tscDeadline, KvmCpuTemplate template)
    {
        var leaves = supported.ToArray();
        foreach (ref var leaf in leaves.AsSpan()) Correct(ref leaf, vcpus, tscDeadline);
        return new KvmCpuid(leaves, vcpus, template.Cpuid);
    }

    /// <summary>The entries of one vCPU.</summary>
    public KvmCpuidEntry[] EntriesOf(int vcpu)
    {
        var entries = (KvmCpuidEntry[])_leaves.Clone();
        foreach (ref var entry in entries.AsSpan()) SetApicId(ref entry, (uint)vcpu);
        foreach (var modifier in _modifiers) Modify(entries, modifier);
        return entries;
    }

    /// <summary>The entries of one vCPU as KVM_SET_CPUID2 takes them.</summary>
    public byte[] ForVcpu(int vcpu)
    {
        var entries = EntriesOf(vcpu);
        var table = new byte[8 + (entries.Length * Unsafe.SizeOf<KvmCpuidEntry>())];
        MemoryMarshal.Write(table, (uint)entries.Length);
        MemoryMarshal.AsBytes(entries.AsSpan()).CopyTo(table.AsSpan(8));
        return table;
    }

    /// <summary>What is the same on all vCPUs (SDM Vol. 2 CPUID; AMD APM Vol. 3 appendix E).</summary>
    private static void Correct(ref KvmCpuidEntry leaf, int vcpus, bool tscDeadline)
    {
        var count = (uint)vcpus;
        var idBits = IdBits(vcpus);
        switch (leaf.Function)
        {
            case 1:
                leaf.Ecx |= 1u << 31; // running under a hypervisor
                leaf.Ecx = tscDeadline ? leaf.Ecx | (1u << 24) : leaf.Ecx & ~(1u << 24);
                // EBX: brand index kept, CLFLUSH line 8 x 8 bytes, logical processors of the package.
                leaf.Ebx = (leaf.Ebx & 0xFF) | (8 << 8) | (Math.Min(count, 255) << 16);
                leaf.Edx = vcpus > 1 ? leaf.Edx | (1u << 28) : leaf.Edx & ~(1u << 28);
                break;
            case 4 when (leaf.Eax & 0x1F) != 0:
                // Bits 25:14 threads that share the cache, 31:26 cores of the package, each less one. First and second level are private.
                var level = (leaf.Eax >> 5) & 7;
                leaf.Eax = (leaf.Eax & 0x3FFF) | (level >= 3 ? ((1u << idBits) - 1) << 14 : 0) | (Math.Min((1u << idBits) - 1, 63) << 26);
                break;
            case 6:
                leaf.Ecx &= ~8u; // no energy-performance bias: the MSR behind it is not the guest's
                break;
            case 0xB or 0x1F:
                // Sub-leaf 0: threads of a core (one), sub-leaf 1: cores of the package; then the end of the list.
                (leaf.Eax, leaf.Ebx, leaf.Ecx) = leaf.Index switch
                {
                    0 => (0u, 1u, 0x100u),
                    1 => ((uint)idBits, count, 0x201u),
                    _ => (0u, 0u, leaf.Index & 0xFF),
                };
                break;
            case 0x80000001 when vcpus == 1:
                leaf.Ecx &= ~2u; // CmpLegacy goes with HTT
                break;
            case 0x80000008:
                leaf.Ecx = (leaf.Ecx & ~0xF0FFu) | (count - 1 & 0xFF) | ((uint)idBits << 12);
                break;
            case 0x8000001D when (leaf.Eax & 0x1F) != 0:
                leaf.Eax = (leaf.Eax & ~(0xFFFu << 14)) | (((leaf.Eax >> 5) & 7) >= 3 ? (count - 1) << 14 : 0);
                break;
            case 0x8000001E:
                leaf.Ebx = 0; // one thread per core
                leaf.Ecx = 0; // one node
                break;
        }
    }

    private static void SetApicId(ref KvmCpuidEntry leaf, uint id)
    {
        switch (leaf.Function)
        {
            case 1: leaf.Ebx |= id << 24; break;
            case 0xB or 0x1F: leaf.Edx = id; break;
            case 0x8000001E:
                leaf.Eax = id;
                leaf.Ebx |= id & 0xFF;
                break;
        }
    }

    private static void Modify(KvmCpuidEntry[] entries, CpuidModifier modifier)
    {
        foreach (ref var entry in entries.AsSpan())
        {
            if (entry.Function != modifier.Leaf || entry.Index != modifier.Subleaf) continue;
            ref var register = ref entry.Eax;
            switch (modifier.Register)
            {
                case CpuidRegister.Ebx: register = ref entry.Ebx; break;
                case CpuidRegister.Ecx: register = ref entry.Ecx; break;
                case CpuidRegister.Edx: register = ref entry.Edx; break;
            }
            register = (uint)modifier.Bits.Apply(register);
            return;
        }
        throw new HypervisorException(
            $"cpu-config: CPUID leaf 0x{modifier.Leaf:x} sub-leaf 0x{modifier.Subleaf:x} does not exist on this host");
    }

    /// <summary>Bits that number the vCPUs.</summary>
    private static int IdBits(int vcpus) => vcpus <= 1 ? 0 : 32 - System.Numerics.BitOperations.LeadingZeroCount((uint)(vcpus - 1));
}
