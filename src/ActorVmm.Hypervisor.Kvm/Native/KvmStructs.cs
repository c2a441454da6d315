using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Kvm.Native;

// The layouts of linux/kvm.h and asm/kvm.h; a test checks each size against its ioctl number, which carries it.

[InlineArray(4)] internal struct FourWords { private ulong _first; }
[InlineArray(9)] internal struct NineWords { private ulong _first; }
[InlineArray(16)] internal struct SixteenWords { private ulong _first; }
[InlineArray(26)] internal struct EventPadding { private byte _first; }
[InlineArray(512)] internal struct ChipBytes { private byte _first; }

[StructLayout(LayoutKind.Sequential)]
internal struct KvmRegs
{
    public ulong Rax, Rbx, Rcx, Rdx, Rsi, Rdi, Rsp, Rbp, R8, R9, R10, R11, R12, R13, R14, R15, Rip, Rflags;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmSegment
{
    public ulong Base;
    public uint Limit;
    public ushort Selector;
    public byte Type, Present, Dpl, Db, S, L, G, Avl, Unusable, Padding;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmTable
{
    public ulong Base;
    public ushort Limit, Padding0, Padding1, Padding2;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmSregs
{
    public KvmSegment Cs, Ds, Es, Fs, Gs, Ss, Tr, Ldt;
    public KvmTable Gdt, Idt;
    public ulong Cr0, Cr2, Cr3, Cr4, Cr8, Efer, ApicBase;

    /// <summary>Bit n: external interrupt n was taken but not delivered.</summary>
    public FourWords InterruptBitmap;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmDebugRegs
{
    public ulong Db0, Db1, Db2, Db3, Dr6, Dr7, Flags;
    public NineWords Reserved;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmXcrs
{
    public uint Count, Flags;
    public uint Xcr, Reserved;
    public ulong Value;
    public SixteenWords OtherXcrs0;
    public SixteenWords OtherXcrs1AndPadding;
    private readonly ulong _w0, _w1, _w2, _w3, _w4, _w5, _w6, _w7, _w8, _w9, _w10, _w11, _w12, _w13;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmVcpuEvents
{
    public const uint ValidNmiPending = 1, ValidSipiVector = 2, ValidShadow = 4;

    public byte ExceptionInjected, ExceptionNumber, ExceptionHasErrorCode, ExceptionPending;
    public uint ExceptionErrorCode;
    public byte InterruptInjected, InterruptNumber, InterruptSoft, InterruptShadow;
    public byte NmiInjected, NmiPending, NmiMasked, NmiPadding;
    public uint SipiVector, Flags;
    public byte SmiSmm, SmiPending, SmiInsideNmi, SmiLatchedInit;
    public byte TripleFaultPending;
    public EventPadding Reserved;
    public byte ExceptionHasPayload;
    public ulong ExceptionPayload;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmMemoryRegion
{
    public uint Slot, Flags;
    public ulong GuestAddress, Size, HostAddress;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqLevel
{
    public uint Irq, Level;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmMsi
{
    public uint AddressLow, AddressHigh, Data, Flags, DeviceId, Padding0, Padding1, Padding2;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqfd
{
    public const uint Deassign = 1, Resample = 2;

    public uint Fd, Gsi, Flags, ResampleFd;
    private readonly ulong _padding0, _padding1;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmIoEventFd
{
    public const uint Datamatch = 1, Pio = 2, Deassign = 4;

    public ulong Match, Address;
    public uint Length;
    public int Fd;
    public uint Flags, Padding;
    private readonly ulong _padding0, _padding1, _padding2, _padding3;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqChip
{
    public uint ChipId, Padding;
    public ChipBytes Chip;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmPitConfig
{
    public const uint SpeakerDummy = 1;

    public uint Flags, Padding;
    private readonly ulong _p0, _p1, _p2, _p3, _p4, _p5, _p6;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmPitState
{
    private readonly ulong _w0, _w1, _w2, _w3, _w4, _w5, _w6, _w7, _w8, _w9, _w10, _w11, _w12, _w13;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmClockData
{
    public ulong Clock;
    public uint Flags, Padding;
    public ulong Realtime, HostTsc, Reserved0, Reserved1;
}

/// <summary>An attribute of a vCPU (kvm/api.rst §4.80, devices/vcpu.rst); <c>Address</c> is where its value stands.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmDeviceAttr
{
    public uint Flags, Group;
    public ulong Attribute, Address;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmTranslation
{
    public ulong LinearAddress, PhysicalAddress;
    public byte Valid, Writable, UserMode;
    private readonly byte _p0, _p1, _p2, _p3, _p4;
}

/// <summary>One CPUID leaf (<c>kvm_cpuid_entry2</c>).</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmCpuidEntry
{
    /// <summary>The index field matters for this leaf.</summary>
    public const uint SignificantIndex = 1;

    public uint Function, Index, Flags, Eax, Ebx, Ecx, Edx;
    private readonly uint _p0, _p1, _p2;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmMsrEntry
{
    public uint Index, Reserved;
    public ulong Data;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqRoutingEntry
{
    public const uint IrqChip = 1, Msi = 2;

    public uint Gsi, Type, Flags, Padding;

    /// <summary>Chip: irqchip, pin. MSI: address low, address high, data, device id.</summary>
    public uint Word0, Word1, Word2, Word3;
    private readonly ulong _p0, _p1;
}

[StructLayout(LayoutKind.Sequential)]
internal struct KvmEnableCap
{
    public uint Cap, Flags;
    public ulong Argument0, Argument1, Argument2, Argument3;
    private readonly ulong _p0, _p1, _p2, _p3, _p4, _p5, _p6, _p7;
}
