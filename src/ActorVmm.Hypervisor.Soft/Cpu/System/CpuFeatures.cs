namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// What the software CPU offers, as CPUID words. A bit stands here only if the instructions and registers behind it work; offering one more
/// is one line.
/// </summary>
internal static class CpuFeatures
{
    /// <summary>Family 15, model 107, stepping 1 (CPUID leaf 1 EAX): a generation that guests expect to have no more than the below.</summary>
    public const uint Signature = 0x0006_0FB1;

    public const string Vendor = "AuthenticAMD";
    public const string Brand = "ActorVmm software CPU";
    public const string HypervisorSignature = "ActorVmmSoft";

    /// <summary>Physical and linear address bits, and the microcode level in MSR 0x8B.</summary>
    public const uint PhysicalBits = 40, LinearBits = 48;
    public const ulong PatchLevel = 0x0100_0065;

    /// <summary>Leaf 1 EDX. APIC (9) follows IA32_APIC_BASE and HTT (28) the number of CPUs; no VME, PSN, DS, ACPI, SS, TM, PBE.</summary>
    public const uint Leaf1Edx =
        Fpu | De | Pse | Tsc | Msr | Pae | Mce | Cx8 | Sep | Mtrr | Pge | Mca | Cmov | Pat | Pse36 | Clfsh | Mmx | Fxsr | Sse | Sse2;

    /// <summary>Leaf 1 ECX; no MONITOR, MOVBE, XSAVE, AVX, AES, PCLMUL, RDRAND.</summary>
    public const uint Leaf1Ecx = Sse3 | Ssse3 | Cx16 | Pcid | Sse41 | Sse42 | X2Apic | Popcnt | TscDeadline | Hypervisor;

    /// <summary>Leaf 7 EBX; no BMI, AVX2, SMAP, CLFLUSHOPT.</summary>
    public const uint Leaf7Ebx = FsGsBase | TscAdjust | Smep | Erms | Invpcid;

    /// <summary>0x80000001 EDX beyond the bits it repeats from leaf 1.</summary>
    public const uint Extended1Edx = Syscall | Nx | Pdpe1Gb | Rdtscp | LongMode;

    /// <summary>0x80000001 ECX: LAHF/SAHF in 64-bit mode and PREFETCHW.</summary>
    public const uint Extended1Ecx = LahfLm | PrefetchW;

    /// <summary>0x80000007 EDX.</summary>
    public const uint InvariantTsc = 1 << 8;

    /// <summary>The bits of leaf 1 EDX that AMD repeats in 0x80000001 EDX (APM Vol. 3 App. E).</summary>
    public const uint RepeatedEdx = 0x0183_F3FF;

    private const uint Fpu = 1 << 0, De = 1 << 2, Pse = 1 << 3, Tsc = 1 << 4, Msr = 1 << 5, Pae = 1 << 6, Mce = 1 << 7, Cx8 = 1 << 8;
    private const uint Sep = 1 << 11, Mtrr = 1 << 12, Pge = 1 << 13, Mca = 1 << 14, Cmov = 1 << 15, Pat = 1 << 16, Pse36 = 1 << 17;
    private const uint Clfsh = 1 << 19, Mmx = 1 << 23, Fxsr = 1 << 24, Sse = 1 << 25, Sse2 = 1 << 26;
    public const uint Apic = 1 << 9, Htt = 1 << 28;

    private const uint Sse3 = 1 << 0, Ssse3 = 1 << 9, Cx16 = 1 << 13, Pcid = 1 << 17, Sse41 = 1 << 19, Sse42 = 1 << 20, X2Apic = 1 << 21, Popcnt = 1 << 23;
    private const uint TscDeadline = 1 << 24, Hypervisor = 1u << 31;

    private const uint FsGsBase = 1 << 0, TscAdjust = 1 << 1, Smep = 1 << 7, Erms = 1 << 9, Invpcid = 1 << 10;

    private const uint Syscall = 1 << 11, Nx = 1 << 20, Pdpe1Gb = 1 << 26, Rdtscp = 1 << 27, LongMode = 1 << 29;
    private const uint LahfLm = 1 << 0, PrefetchW = 1 << 8;
}
