using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Vcpus;

/// <summary>
/// A vCPU and what must be known about the thread that runs it when that thread is lost inside a device. Outlives the actor.
/// </summary>
/// <param name="vcpu">The vCPU.</param>
public sealed class VcpuSeat(IVcpu vcpu)
{
    private BusAccess? _access;
    private CallerRunsContext? _context;

    public IVcpu Vcpu { get; } = vcpu;

    /// <summary>How often another thread had to take the vCPU over.</summary>
    public int Rescues { get; private set; }

    /// <summary>The access of the actor that has the vCPU; null before the first. Any thread.</summary>
    internal BusAccess? Access
    {
        get => Volatile.Read(ref _access);
        set => Volatile.Write(ref _access, value);
    }

    internal void Take(CallerRunsContext context, BusAccess access)
    {
        Access = access;
        Volatile.Write(ref _context, context);
    }

    /// <summary>
    /// True where the thread was lost inside <paramref name="mailbox"/>: from now on it touches nothing, and another may take its place.
    /// </summary>
    internal bool TryAbandon(Akka.Dispatch.Mailbox mailbox)
    {
        if (Volatile.Read(ref _context)?.TryAbandon(mailbox) != true) return false;
        Rescues++;
        return true;
    }
}
