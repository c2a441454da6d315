namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Model-specific registers (SDM Vol. 4; AMD APM Vol. 2 App. A).</summary>
internal static class Msr
{
    public const uint Tsc = 0x10, PlatformId = 0x17, ApicBase = 0x1B, TscAdjust = 0x3B, PatchLevel = 0x8B;
    public const uint MtrrCap = 0xFE, SysenterCs = 0x174, SysenterEsp = 0x175, SysenterEip = 0x176;
    public const uint McgCap = 0x179, McgStatus = 0x17A, MiscEnable = 0x1A0, DebugControl = 0x1D9;
    public const uint MtrrFirstVariable = 0x200, MtrrLastVariable = 0x20F, MtrrFixed64K = 0x250, MtrrFixed16K = 0x258, MtrrFixed4K = 0x268;
    public const uint Pat = 0x277, MtrrDefType = 0x2FF, TscDeadline = 0x6E0, FirstX2Apic = 0x800, LastX2Apic = 0x8FF;

    public const uint Efer = 0xC000_0080, Star = 0xC000_0081, Lstar = 0xC000_0082, Cstar = 0xC000_0083, SyscallMask = 0xC000_0084;
    public const uint FsBase = 0xC000_0100, GsBase = 0xC000_0101, KernelGsBase = 0xC000_0102, TscAux = 0xC000_0103;

    // AMD family 15.
    public const uint SysCfg = 0xC001_0010, HwCr = 0xC001_0015, TopOfMemory = 0xC001_001A, TopOfMemory2 = 0xC001_001D;
    public const uint InterruptPendingMessage = 0xC001_0055, TsegAddress = 0xC001_0112, TsegMask = 0xC001_0113, VmCr = 0xC001_0114;
    public const uint DecodeConfig = 0xC001_1029;

    /// <summary>Write-back, write-through, UC-, UC, twice: the PAT's reset value.</summary>
    public const ulong PatReset = 0x0007_0406_0007_0406;

    /// <summary>Eight variable ranges, fixed ranges, write combining.</summary>
    public const ulong MtrrCapValue = 8 | 1 << 8 | 1 << 10;

    /// <summary>
    /// What <see cref="VcpuState.Msrs"/> holds, in the order in which it must be restored. The APIC base travels in the special registers
    /// and the x2APIC registers in the APIC page.
    /// </summary>
    public static ReadOnlySpan<uint> Saved =>
    [
        Tsc, TscAdjust, SysenterCs, SysenterEsp, SysenterEip, McgStatus, MiscEnable, DebugControl, Pat, MtrrDefType,
        0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20A, 0x20B, 0x20C, 0x20D, 0x20E, 0x20F,
        0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F, TscDeadline,
        Star, Lstar, Cstar, SyscallMask, FsBase, GsBase, KernelGsBase, TscAux, SysCfg, HwCr, DecodeConfig,
    ];
}
