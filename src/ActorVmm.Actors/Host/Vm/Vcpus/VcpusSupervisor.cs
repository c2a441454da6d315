using Akka.Actor;
using ActorVmm.Actors.Settings;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Vcpus;

/// <summary>
/// <c>vcpus</c>: one child per vCPU. A vCPU cannot be restarted (its state is the guest's): a lost one ends its VM, and only that.
/// </summary>
public sealed class VcpusSupervisor : UntypedActor
{
    private readonly VcpuLinks _links;
    private readonly TimeSpan _inspectDeadline;
    private readonly IReadOnlyList<IActorRef> _vcpus;

    public static Props Props(IReadOnlyList<IVcpu> vcpus, VcpuLinks links, TimeSpan inspectDeadline) =>
        Akka.Actor.Props.Create(() => new VcpusSupervisor(vcpus, links, inspectDeadline));

    public VcpusSupervisor(IReadOnlyList<IVcpu> vcpus, VcpuLinks links, TimeSpan inspectDeadline)
    {
        _links = links;
        _inspectDeadline = inspectDeadline;
        _vcpus = [.. vcpus.Select(vcpu =>
            Context.ActorOf(VcpuActor.Props(vcpu, links).WithDispatcher(ActorSettings.VcpuDispatcher), $"{vcpu.Id}"))];
    }

    /// <inheritdoc/>
    protected override SupervisorStrategy SupervisorStrategy() =>
        new OneForOneStrategy(maxNrOfRetries: 0, withinTimeMilliseconds: 0, cause =>
    {
        _links.Run.Ending = true;
        _links.Vm.Tell(new VcpuProtocol.Lost(Sender.Path.Name, cause), Self);
        return Directive.Stop;
    });

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        if (message is UnitProtocol.Inspect) _ = Inspection.GatherAsync("vcpus", _vcpus, _inspectDeadline).PipeTo(Sender, Self);
        else foreach (var vcpu in _vcpus) vcpu.Forward(message); // commands and questions are for all; each answers the asker itself
    }
}
