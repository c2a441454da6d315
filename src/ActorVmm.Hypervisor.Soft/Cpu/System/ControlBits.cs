namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Bits of CR0 (SDM Vol. 3 §2.5).</summary>
internal static class Cr0Bits
{
    public const ulong Pe = 1, Mp = 2, Em = 4, Ts = 8, Et = 0x10, Ne = 0x20, Wp = 0x1_0000, Am = 0x4_0000, Nw = 0x2000_0000, Cd = 0x4000_0000, Pg = 0x8000_0000;
    public const ulong All = Pe | Mp | Em | Ts | Et | Ne | Wp | Am | Nw | Cd | Pg;
}

/// <summary>Bits of CR4 (SDM Vol. 3 §2.5).</summary>
internal static class Cr4Bits
{
    public const ulong Tsd = 4, De = 8, Pse = 0x10, Pae = 0x20, Mce = 0x40, Pge = 0x80, Pce = 0x100, OsFxsr = 0x200, OsXmmExcpt = 0x400;
    public const ulong FsGsBase = 0x1_0000, Pcide = 0x2_0000, Smep = 0x10_0000;

    /// <summary>What this CPU offers; every other bit is reserved.</summary>
    public const ulong All = Tsd | De | Pse | Pae | Mce | Pge | Pce | OsFxsr | OsXmmExcpt | FsGsBase | Pcide | Smep;

    /// <summary>Bits whose change drops every translation (SDM Vol. 3 §4.10.4.1).</summary>
    public const ulong Paging = Pse | Pae | Pge | Smep;
}

/// <summary>Bits of IA32_EFER (SDM Vol. 3 §2.2.1).</summary>
internal static class EferBits
{
    public const ulong Sce = 1, Lme = 0x100, Lma = 0x400, Nxe = 0x800;
    public const ulong All = Sce | Lme | Lma | Nxe;
}
