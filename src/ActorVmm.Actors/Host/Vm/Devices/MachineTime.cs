using ActorVmm.Devices;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>The machine's clock as a device sees it.</summary>
/// <param name="clock">The machine's clock.</param>
/// <param name="bootUnixNanoseconds">Wall clock at machine time 0.</param>
public sealed class MachineTime(IMachineClock clock, ulong bootUnixNanoseconds = 0) : IClock
{
    /// <inheritdoc/>
    public ulong Nanoseconds => clock.Nanoseconds;

    /// <inheritdoc/>
    public ulong BootUnixNanoseconds { get; } = bootUnixNanoseconds;
}
