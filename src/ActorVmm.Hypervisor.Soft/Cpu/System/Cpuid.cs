using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using ActorVmm.Devices.Chipset;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>What one CPU of the machine is, as far as CPUID shows it.</summary>
/// <param name="ApicId">x2APIC id.</param>
/// <param name="Count">CPUs in the machine: one package, one thread per core.</param>
/// <param name="ApicEnabled">Bit 11 of IA32_APIC_BASE.</param>
/// <param name="TscKhz">TSC frequency in kHz; 0 leaves it to the guest to measure.</param>
internal readonly record struct CpuIdentity(uint ApicId, uint Count, bool ApicEnabled, uint TscKhz);

/// <summary>The four registers that CPUID returns.</summary>
internal readonly record struct CpuidResult(uint Eax, uint Ebx, uint Ecx, uint Edx);

/// <summary>CPUID (SDM Vol. 2A CPUID; AMD APM Vol. 3 App. E): a function of the leaf and of who asks.</summary>
internal static class Cpuid
{
    public const uint MaxBasic = 0xD, MaxExtended = 0x8000_001E, HypervisorBase = 0x4000_0000, MaxHypervisor = 0x4000_0010;

    private const uint CacheLine = 64;

    /// <summary>What CPUID returns for EAX = <paramref name="leaf"/> and ECX = <paramref name="subleaf"/>. Unknown leaves are zero (AMD's rule).</summary>
    public static CpuidResult Query(uint leaf, uint subleaf, in CpuIdentity cpu) => leaf switch
    {
        0 => new(MaxBasic, Word(CpuFeatures.Vendor, 0), Word(CpuFeatures.Vendor, 8), Word(CpuFeatures.Vendor, 4)),
        1 => new(CpuFeatures.Signature, Leaf1Ebx(cpu), CpuFeatures.Leaf1Ecx, Leaf1Edx(cpu)),
        4 => Cache(subleaf, cpu, amd: false),
        7 when subleaf == 0 => new(0, CpuFeatures.Leaf7Ebx, 0, 0),
        0xB => Topology(subleaf, cpu),
        HypervisorBase => new(MaxHypervisor, Word(CpuFeatures.HypervisorSignature, 0), Word(CpuFeatures.HypervisorSignature, 4), Word(CpuFeatures.HypervisorSignature, 8)),
        // Frequencies of the TSC and of the APIC timer in kHz, where hypervisors by convention tell them.
        MaxHypervisor => new(cpu.TscKhz, cpu.TscKhz == 0 ? 0 : (uint)(LocalApic.BusFrequencyHz / 1000), 0, 0),
        0x8000_0000 => new(MaxExtended, Word(CpuFeatures.Vendor, 0), Word(CpuFeatures.Vendor, 8), Word(CpuFeatures.Vendor, 4)),
        0x8000_0001 => new(CpuFeatures.Signature, 0, Extended1Ecx(cpu), (Leaf1Edx(cpu) & CpuFeatures.RepeatedEdx) | CpuFeatures.Extended1Edx),
        >= 0x8000_0002 and <= 0x8000_0004 => Brand((int)(leaf - 0x8000_0002) * 16),
        // L1 TLBs, L1 caches (64 KiB, 8 ways) and L2 (512 KiB, 16 ways), in AMD's older encoding.
        0x8000_0005 => new(0xFF20_FF20, 0xFF20_FF20, 64u << 24 | 8 << 16 | 1 << 8 | CacheLine, 64u << 24 | 8 << 16 | 1 << 8 | CacheLine),
        0x8000_0006 => new(0, 0x4200_4200, 512u << 16 | 8 << 12 | 1 << 8 | CacheLine, 0),
        0x8000_0007 => new(0, 0, 0, CpuFeatures.InvariantTsc),
        0x8000_0008 => new(CpuFeatures.LinearBits << 8 | CpuFeatures.PhysicalBits, 0, cpu.Count > 1 ? IdBits(cpu) << 12 | (cpu.Count - 1) & 0xFF : 0, 0),
        0x8000_001D => Cache(subleaf, cpu, amd: true),
        _ => default,
    };

    private static uint Leaf1Ebx(in CpuIdentity cpu) => cpu.ApicId << 24 | Math.Min(cpu.Count, 255) << 16 | CacheLine / 8 << 8;

    private static uint Leaf1Edx(in CpuIdentity cpu) =>
        CpuFeatures.Leaf1Edx | (cpu.ApicEnabled ? CpuFeatures.Apic : 0) | (cpu.Count > 1 ? CpuFeatures.Htt : 0);

    /// <summary>CmpLegacy (bit 1) says that the logical processors of leaf 1 are cores, not threads of one core.</summary>
    private static uint Extended1Ecx(in CpuIdentity cpu) => CpuFeatures.Extended1Ecx | (cpu.Count > 1 ? 2u : 0);

    /// <summary>Bits of the APIC id that tell the cores of the package apart.</summary>
    private static uint IdBits(in CpuIdentity cpu) => (uint)BitOperations.Log2(BitOperations.RoundUpToPowerOf2(cpu.Count));

    /// <summary>Leaf 0xB: level 0 threads (always one), level 1 cores.</summary>
    private static CpuidResult Topology(uint level, in CpuIdentity cpu) => level switch
    {
        0 => new(0, 1, 1 << 8, cpu.ApicId),
        1 => new(IdBits(cpu), cpu.Count, 2 << 8 | 1, cpu.ApicId),
        _ => new(0, 0, level & 0xFF, cpu.ApicId),
    };

    /// <summary>Deterministic cache parameters: private L1d, L1i and L2. Leaf 0x8000001D has the same layout without the core count.</summary>
    private static CpuidResult Cache(uint index, in CpuIdentity cpu, bool amd)
    {
        var cores = amd ? 0 : Math.Min((1u << (int)IdBits(cpu)) - 1, 63) << 26;
        return index switch
        {
            0 => new(cores | SelfInitializing | 1 << 5 | 1, Shape(8), 64 * 1024 / (8 * CacheLine) - 1, 0),
            1 => new(cores | SelfInitializing | 1 << 5 | 2, Shape(8), 64 * 1024 / (8 * CacheLine) - 1, 0),
            2 => new(cores | SelfInitializing | 2 << 5 | 3, Shape(16), 512 * 1024 / (16 * CacheLine) - 1, 0),
            _ => default,
        };
    }

    private const uint SelfInitializing = 1 << 8;

    private static uint Shape(uint ways) => (ways - 1) << 22 | (CacheLine - 1);

    private static CpuidResult Brand(int at) =>
        new(Word(CpuFeatures.Brand, at), Word(CpuFeatures.Brand, at + 4), Word(CpuFeatures.Brand, at + 8), Word(CpuFeatures.Brand, at + 12));

    /// <summary>Four ASCII characters as CPUID packs them; zero beyond the end.</summary>
    private static uint Word(string text, int at)
    {
        Span<byte> bytes = stackalloc byte[4];
        bytes.Clear();
        if (at < text.Length) Encoding.ASCII.GetBytes(text.AsSpan(at, Math.Min(4, text.Length - at)), bytes);
        return BinaryPrimitives.ReadUInt32LittleEndian(bytes);
    }
}
