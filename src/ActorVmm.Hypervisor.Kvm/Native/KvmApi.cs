namespace ActorVmm.Hypervisor.Kvm.Native;

/// <summary>Request numbers of the KVM ioctls (linux/kvm.h). Kernel spelling stays inside this assembly.</summary>
internal static class KvmApi
{
    /// <summary>The only API version there is (kvm/api.rst §4.1).</summary>
    public const int ApiVersion = 12;

    // System descriptor.
    public const uint KVM_GET_API_VERSION = 0xAE00;
    public const uint KVM_CREATE_VM = 0xAE01;
    public const uint KVM_GET_MSR_INDEX_LIST = 0xC004AE02;
    public const uint KVM_CHECK_EXTENSION = 0xAE03;
    public const uint KVM_GET_VCPU_MMAP_SIZE = 0xAE04;
    public const uint KVM_GET_SUPPORTED_CPUID = 0xC008AE05;

    // VM descriptor.
    public const uint KVM_CREATE_VCPU = 0xAE41;
    public const uint KVM_SET_USER_MEMORY_REGION = 0x4020AE46;
    public const uint KVM_SET_TSS_ADDR = 0xAE47;
    public const uint KVM_SET_IDENTITY_MAP_ADDR = 0x4008AE48;
    public const uint KVM_CREATE_IRQCHIP = 0xAE60;
    public const uint KVM_IRQ_LINE = 0x4008AE61;
    public const uint KVM_GET_IRQCHIP = 0xC208AE62;
    public const uint KVM_SET_IRQCHIP = 0x8208AE63;
    public const uint KVM_SET_GSI_ROUTING = 0x4008AE6A;
    public const uint KVM_IRQFD = 0x4020AE76;
    public const uint KVM_CREATE_PIT2 = 0x4040AE77;
    public const uint KVM_IOEVENTFD = 0x4040AE79;
    public const uint KVM_SET_CLOCK = 0x4030AE7B;
    public const uint KVM_GET_CLOCK = 0x8030AE7C;
    public const uint KVM_GET_PIT2 = 0x8070AE9F;
    public const uint KVM_SET_PIT2 = 0x4070AEA0;
    public const uint KVM_ENABLE_CAP = 0x4068AEA3;
    public const uint KVM_SIGNAL_MSI = 0x4020AEA5;

    // vCPU descriptor.
    public const uint KVM_RUN = 0xAE80;
    public const uint KVM_GET_REGS = 0x8090AE81;
    public const uint KVM_SET_REGS = 0x4090AE82;
    public const uint KVM_GET_SREGS = 0x8138AE83;
    public const uint KVM_SET_SREGS = 0x4138AE84;
    public const uint KVM_TRANSLATE = 0xC018AE85;
    public const uint KVM_GET_MSRS = 0xC008AE88;
    public const uint KVM_SET_MSRS = 0x4008AE89;
    public const uint KVM_SET_SIGNAL_MASK = 0x4004AE8B;
    public const uint KVM_GET_LAPIC = 0x8400AE8E;
    public const uint KVM_SET_LAPIC = 0x4400AE8F;
    public const uint KVM_SET_CPUID2 = 0x4008AE90;
    public const uint KVM_GET_CPUID2 = 0xC008AE91;
    public const uint KVM_GET_MP_STATE = 0x8004AE98;
    public const uint KVM_SET_MP_STATE = 0x4004AE99;
    public const uint KVM_GET_VCPU_EVENTS = 0x8040AE9F;
    public const uint KVM_SET_VCPU_EVENTS = 0x4040AEA0;
    public const uint KVM_GET_DEBUGREGS = 0x8080AEA1;
    public const uint KVM_SET_DEBUGREGS = 0x4080AEA2;
    public const uint KVM_GET_TSC_KHZ = 0xAEA3;
    public const uint KVM_GET_XSAVE = 0x9000AEA4;
    public const uint KVM_SET_XSAVE = 0x5000AEA5;
    public const uint KVM_GET_XCRS = 0x8188AEA6;
    public const uint KVM_SET_XCRS = 0x4188AEA7;
    public const uint KVM_KVMCLOCK_CTRL = 0xAEAD;
    public const uint KVM_GET_XSAVE2 = 0x9000AECF;
    public const uint KVM_SET_DEVICE_ATTR = 0x4018AEE1;
    public const uint KVM_GET_DEVICE_ATTR = 0x4018AEE2;
}

/// <summary>KVM capability numbers, as <c>KVM_CHECK_EXTENSION</c> takes them; the names are the kernel's without the prefix.</summary>
internal enum KvmCap : uint
{
    IRQCHIP = 0,
    USER_MEMORY = 3,
    SET_TSS_ADDR = 4,
    EXT_CPUID = 7,
    NR_VCPUS = 9,
    NR_MEMSLOTS = 10,
    MP_STATE = 14,
    IRQ_ROUTING = 25,
    IRQFD = 32,
    PIT2 = 33,
    PIT_STATE2 = 35,
    IOEVENTFD = 36,
    SET_IDENTITY_MAP_ADDR = 37,
    ADJUST_CLOCK = 39,
    VCPU_EVENTS = 41,
    DEBUGREGS = 50,
    XSAVE = 55,
    XCRS = 56,
    GET_TSC_KHZ = 61,
    MAX_VCPUS = 66,
    TSC_DEADLINE_TIMER = 72,
    SIGNAL_MSI = 77,
    IRQFD_RESAMPLE = 82,
    X2APIC_API = 129,
    IMMEDIATE_EXIT = 136,
    EXIT_ON_EMULATION_FAILURE = 204,
    XSAVE2 = 208,
}

/// <summary>Why <c>KVM_RUN</c> returned (kvm/api.rst §5, <c>kvm_run.exit_reason</c>).</summary>
internal enum KvmExitReason : uint
{
    UNKNOWN = 0,
    EXCEPTION = 1,
    IO = 2,
    HYPERCALL = 3,
    DEBUG = 4,
    HLT = 5,
    MMIO = 6,
    IRQ_WINDOW_OPEN = 7,
    SHUTDOWN = 8,
    FAIL_ENTRY = 9,
    INTR = 10,
    SET_TPR = 11,
    TPR_ACCESS = 12,
    NMI = 16,
    INTERNAL_ERROR = 17,
    WATCHDOG = 21,
    SYSTEM_EVENT = 24,
    IOAPIC_EOI = 26,
    HYPERV = 27,
    X86_RDMSR = 29,
    X86_WRMSR = 30,
    DIRTY_RING_FULL = 31,
    AP_RESET_HOLD = 32,
    X86_BUS_LOCK = 33,
    XEN = 34,
    NOTIFY = 37,
    MEMORY_FAULT = 39,
}

/// <summary>Byte offsets inside the shared <c>kvm_run</c> page (linux/kvm.h, <c>struct kvm_run</c>).</summary>
internal static class RunPage
{
    public const int ImmediateExit = 1;
    public const int ExitReason = 8;
    public const int HardwareReason = 32;
    public const int IoDirection = 32;
    public const int IoSize = 33;
    public const int IoPort = 34;
    public const int IoCount = 36;
    public const int IoDataOffset = 40;
    public const int MmioAddress = 32;
    public const int MmioData = 40;
    public const int MmioLength = 48;
    public const int MmioIsWrite = 52;
    public const int SubError = 32;
    public const int SubErrorCount = 36;
    public const int SubErrorData = 40;
    public const int SystemEventType = 32;
}
