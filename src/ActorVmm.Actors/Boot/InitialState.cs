using System.Buffers.Binary;
using ActorVmm.Boot;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors;

/// <summary>
/// The registers of vCPU 0 at the kernel's first instruction. The other vCPUs stay at reset and wait for INIT and SIPI, as the guest
/// expects.
/// </summary>
public static class InitialState
{
    private const ulong ProtectedMode = 1 << 0;
    private const ulong ExtensionType = 1 << 4;
    private const ulong Paging = 1UL << 31;
    private const ulong PhysicalAddressExtension = 1 << 5;
    private const ulong LongModeEnabledAndActive = (1 << 8) | (1 << 10);
    private const uint MtrrDefaultType = 0x2FF;
    private const int LvtLint0 = 0x350;
    private const int LvtLint1 = 0x360;

    /// <summary>
    /// The boot processor's state for <paramref name="plan"/>: flat segments, interrupts off, x87 and SSE control words at their defaults
    /// (FCW 0x37f, MXCSR 0x1f80). What the boot protocols do not speak of (MSRs, XCR0, APIC base) is kept from <paramref name="reset"/>.
    /// </summary>
    /// <param name="reset">The vCPU's state at reset, from <see cref="IVcpu.GetState"/>.</param>
    /// <param name="plan">What was loaded.</param>
    public static VcpuState For(VcpuState reset, BootPlan plan)
    {
        ArgumentNullException.ThrowIfNull(reset);
        ArgumentNullException.ThrowIfNull(plan);
        var longMode = plan.Protocol is EntryProtocol.Linux64;
        var data = Flat(EntryTables.DataSelector, type: 0x3, longMode: false, db: true);
        return reset with
        {
            General = longMode
                ? new GeneralRegisters
                {
                    Rip = plan.Entry.Value,
                    Rsi = plan.Parameters.Value,
                    Rsp = plan.StackTop.Value,
                    Rbp = plan.StackTop.Value,
                }
                : new GeneralRegisters { Rip = plan.Entry.Value, Rbx = plan.Parameters.Value },
            Special = reset.Special with
            {
                Cs = Flat(EntryTables.CodeSelector, type: 0xB, longMode, db: !longMode),
                Ds = data,
                Es = data,
                Fs = data,
                Gs = data,
                Ss = data,
                // A busy task segment, 64-bit or 32-bit alike type 0xB, as VM entry demands.
                Tr = new SegmentState(
                    EntryTables.TaskSelector, 0, 0x67,
                    Type: 0xB, Present: true, Dpl: 0, System: true, Long: false, Db: false, Granularity: false),
                Gdt = new TableRegister(plan.GdtBase.Value, plan.GdtLimit),
                Idt = new TableRegister(MemoryLayout.Idt, 7),
                Cr0 = ProtectedMode | ExtensionType | (longMode ? Paging : 0),
                Cr2 = 0,
                Cr3 = longMode ? plan.PageTableRoot.Value : 0,
                Cr4 = longMode ? PhysicalAddressExtension : 0,
                Cr8 = 0,
                Efer = longMode ? LongModeEnabledAndActive : 0,
            },
            Xsave = WithDefaultControlWords(reset.Xsave),
            Lapic = WithVirtualWire(reset.Lapic),
            // MTRRs on, memory write-back, as firmware hands it over: with 0 Linux reports them disabled and gives up PAT.
            Msrs = [.. reset.Msrs.Where(msr => msr.Index != MtrrDefaultType), new MsrValue(MtrrDefaultType, 0x806)],
            Events = new VcpuEvents(),
            Activity = VcpuActivity.Running,
        };
    }

    private static SegmentState Flat(ushort selector, byte type, bool longMode, bool db) =>
        new(selector, 0, 0xFFFF_FFFF, type, Present: true, Dpl: 0, System: false, longMode, db, Granularity: true);

    /// <summary>An empty XSAVE area with x87 and SSE in their initial configuration (SDM Vol. 1 §13.4).</summary>
    private static byte[] WithDefaultControlWords(byte[] reset)
    {
        var area = new byte[reset.Length];
        BinaryPrimitives.WriteUInt16LittleEndian(area, 0x37F);
        BinaryPrimitives.WriteUInt32LittleEndian(area.AsSpan(24), 0x1F80);
        area[512] = 0b11; // XSTATE_BV: x87 and SSE are in the area
        return area;
    }

    /// <summary>
    /// Delivery modes of a PC's firmware: LINT0 takes the 8259 (ExtINT, 7), LINT1 the NMI (4). Only bits 10:8 change (guest ABI: the mask
    /// is the reset value's).
    /// </summary>
    private static byte[] WithVirtualWire(byte[] reset)
    {
        var page = (byte[])reset.Clone();
        page[LvtLint0 + 1] = (byte)((page[LvtLint0 + 1] & ~7) | 7);
        page[LvtLint1 + 1] = (byte)((page[LvtLint1 + 1] & ~7) | 4);
        return page;
    }
}
