using Akka.Actor;
using ActorVmm.Actors.Settings;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Vcpus;

/// <summary>
/// <c>vcpus</c>: one child per vCPU. A vCPU that fails cannot be restarted (its state is the guest's): a lost one ends its VM, and only
/// that.
/// One whose thread is stuck in a device that was given up has a whole state, and goes on with another thread.
/// </summary>
public sealed class VcpusSupervisor : UntypedActor
{
    private readonly VcpuLinks _links;
    private readonly TimeSpan _inspectDeadline;
    private readonly VcpuSeat[] _seats;
    private readonly IActorRef[] _vcpus;
    private (object Command, IActorRef Asker)? _lastOrder;

    public static Props Props(IReadOnlyList<IVcpu> vcpus, VcpuLinks links, TimeSpan inspectDeadline) =>
        Made.By(() => new VcpusSupervisor(vcpus, links, inspectDeadline));

    public VcpusSupervisor(IReadOnlyList<IVcpu> vcpus, VcpuLinks links, TimeSpan inspectDeadline)
    {
        _links = links;
        _inspectDeadline = inspectDeadline;
        _seats = [.. vcpus.Select(vcpu => new VcpuSeat(vcpu))];
        _vcpus = [.. _seats.Select(seat => Make(seat, $"{seat.Vcpu.Id}"))];
    }

    /// <inheritdoc/>
    protected override SupervisorStrategy SupervisorStrategy() =>
        new OneForOneStrategy(maxNrOfRetries: 0, withinTimeMilliseconds: 0, cause =>
    {
        _links.Run.Ending = true;
        _links.Vm.Tell(new VcpuProtocol.Lost(Sender.Path.Name, cause), Self);
        return Verdicts.OfVcpu(cause);
    });

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case UnitProtocol.Inspect: _ = Inspection.GatherAsync("vcpus", _vcpus, _inspectDeadline).PipeTo(Sender, Self); break;
            case VcpuProtocol.Rescue rescue: Rescue(rescue.Mailbox); break;
            default: ForwardToAll(message); break;
        }
    }

    private void ForwardToAll(object message)
    {
        if (message is VcpuProtocol.Pause or VcpuProtocol.Resume) _lastOrder = (message, Sender);
        foreach (var vcpu in _vcpus) vcpu.Forward(message); // commands and questions are for all; each answers the asker itself
    }

    private void Rescue(Akka.Dispatch.Mailbox mailbox)
    {
        for (var i = 0; i < _seats.Length; i++)
        {
            if (!_seats[i].TryAbandon(mailbox)) continue;
            Context.Stop(_vcpus[i]); // when its thread comes back, if ever
            _vcpus[i] = Make(_seats[i], $"{_seats[i].Vcpu.Id}-{_seats[i].Rescues}");
            // Whatever was ordered last, the lost thread has not heard of it or has not gone on with it.
            if (_lastOrder is var (command, asker)) _vcpus[i].Tell(command, asker);
            _links.Vm.Tell(new VcpuProtocol.Rescued(_seats[i].Vcpu.Id), Self);
        }
    }

    private IActorRef Make(VcpuSeat seat, string name) =>
        Context.ActorOf(VcpuActor.Props(seat, _links).WithDispatcher(ActorSettings.VcpuDispatcher), name);
}
