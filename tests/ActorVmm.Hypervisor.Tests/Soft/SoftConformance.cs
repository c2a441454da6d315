using ActorVmm.Hypervisor.Tests.Subjects;

namespace ActorVmm.Hypervisor.Tests.Soft;

public sealed class SoftPortIo : PortIoConformance<SoftSubject>;

public sealed class SoftMmio : MmioConformance<SoftSubject>;

public sealed class SoftPaging : PagingConformance<SoftSubject>;

public sealed class SoftExceptions : ExceptionConformance<SoftSubject>;

public sealed class SoftPrivilege : PrivilegeConformance<SoftSubject>;

public sealed class SoftInterrupts : InterruptConformance<SoftSubject>;

public sealed class SoftSmp : SmpConformance<SoftSubject>;

public sealed class SoftCpu : CpuConformance<SoftSubject>;

public sealed class SoftState : StateConformance<SoftSubject>;

public sealed class SoftRing : RingConformance<SoftSubject>
{
    protected override bool HasDoorbells => false;
}

public sealed class SoftDevices : DeviceConformance<SoftSubject>
{
    protected override bool HasDoorbells => false;
}
