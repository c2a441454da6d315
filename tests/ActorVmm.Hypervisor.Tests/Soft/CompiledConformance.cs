using ActorVmm.Hypervisor.Tests.Subjects;

namespace ActorVmm.Hypervisor.Tests.Soft;

public sealed class CompiledPortIo : PortIoConformance<CompiledSubject>;

public sealed class CompiledMmio : MmioConformance<CompiledSubject>;

public sealed class CompiledPaging : PagingConformance<CompiledSubject>;

public sealed class CompiledExceptions : ExceptionConformance<CompiledSubject>;

public sealed class CompiledPrivilege : PrivilegeConformance<CompiledSubject>;

public sealed class CompiledInterrupts : InterruptConformance<CompiledSubject>;

public sealed class CompiledSmp : SmpConformance<CompiledSubject>;

public sealed class CompiledCpu : CpuConformance<CompiledSubject>;

public sealed class CompiledState : StateConformance<CompiledSubject>;
