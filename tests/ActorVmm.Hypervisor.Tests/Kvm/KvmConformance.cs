using ActorVmm.Hypervisor.Tests.Subjects;

namespace ActorVmm.Hypervisor.Tests.Kvm;

public sealed class KvmPortIo : PortIoConformance<KvmSubject>;
