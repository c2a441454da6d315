using Akka.Event;
using ActorVmm.Devices.Faults;

namespace ActorVmm.Actors.Host.Vm.Faults;

/// <summary>Firings on their way to the embedding program and to the log.</summary>
internal sealed class FaultTrace(IExitHandler? handler, ILoggingAdapter log) : IFaultTrace
{
    public void Fired(FaultFiring firing)
    {
        log.Debug("fault {0} ({1}) at {2}: {3}", firing.Rule, firing.Kind, firing.Device, firing.Outcome);
        try { handler?.OnFault(firing); }
        catch (Exception cause) { log.Error(cause, "the exit handler failed in OnFault"); }
    }

    public void Healed(ulong nanoseconds)
    {
        log.Info("all faults end at {0} ns", nanoseconds);
        try { handler?.OnHealed(nanoseconds); }
        catch (Exception cause) { log.Error(cause, "the exit handler failed in OnHealed"); }
    }
}
