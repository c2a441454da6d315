using ActorVmm.Hypervisor.Tests.Subjects;

namespace ActorVmm.Hypervisor.Tests.Kvm;

public sealed class KvmPortIo : PortIoConformance<KvmSubject>;

public sealed class KvmMmio : MmioConformance<KvmSubject>;

public sealed class KvmPaging : PagingConformance<KvmSubject>;

public sealed class KvmExceptions : ExceptionConformance<KvmSubject>;

public sealed class KvmPrivilege : PrivilegeConformance<KvmSubject>;

public sealed class KvmInterrupts : InterruptConformance<KvmSubject>;

public sealed class KvmSmp : SmpConformance<KvmSubject>;

public sealed class KvmCpu : CpuConformance<KvmSubject>;

public sealed class KvmState : StateConformance<KvmSubject>;

public sealed class KvmRing : RingConformance<KvmSubject>
{
    protected override bool HasDoorbells => true;
}

public sealed class KvmDevices : DeviceConformance<KvmSubject>
{
    protected override bool HasDoorbells => true;
}

public sealed class KvmDevicesByIrqfd : DeviceConformance<IrqfdSubject>
{
    protected override bool HasDoorbells => true;
}

public sealed class KvmPortIoKicked : PortIoConformance<KickedKvmSubject>;

public sealed class KvmMmioKicked : MmioConformance<KickedKvmSubject>;

public sealed class KvmExceptionsKicked : ExceptionConformance<KickedKvmSubject>;

public sealed class KvmInterruptsKicked : InterruptConformance<KickedKvmSubject>;

public sealed class KvmSmpKicked : SmpConformance<KickedKvmSubject>;

public sealed class KvmControl : ControlConformance<KvmSubject>;
