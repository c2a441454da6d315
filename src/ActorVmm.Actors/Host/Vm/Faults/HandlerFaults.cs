using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Actors.Host.Vm.Faults;

/// <summary>Faults of a device's actor: crashes at each place that a message passes, hangs, delays, a mailbox that stands still.</summary>
/// <param name="site">Rules for handlers.</param>
/// <param name="mailbox">Rules for the mailbox.</param>
/// <param name="faults">The VM's.</param>
internal sealed class HandlerFaults(FaultSite site, FaultSite mailbox, VmFaults faults)
{
    /// <summary>QueueNotify of a virtio device (virtio 1.2 §4.2.2).</summary>
    private const ulong Doorbell = 0x50;

    /// <summary>The message that is being handled is an access on its second try.</summary>
    private bool _retries;

    /// <summary>
    /// Whether the device works on a request for the second time, because the first time crashed: as with an access, a third time is not
    /// tried. Always false for devices without queues.
    /// </summary>
    public Func<bool> Repeats { get; set; } = static () => false;

    /// <summary>Questions and commands of the VM itself are spared: they are not the device's work.</summary>
    public static bool Concerns(object message) => message.GetType().DeclaringType != typeof(UnitProtocol)
        && message is not (DevicesProtocol.Freeze or DevicesProtocol.Thaw);

    /// <summary>A message has arrived: how long the mailbox stands still with it; null where it does not.</summary>
    public TimeSpan? Stall(object message)
    {
        var happening = Seen(message, FaultPoints.Entered);
        foreach (var hit in mailbox.Fire(happening))
        {
            if (!hit.First) continue;
            mailbox.Report(hit, happening, $"stands still for {hit.Rule.For} ns of host time");
            return Host(hit.Rule.For!.Value);
        }

        return null;
    }

    /// <summary>The device is about to handle a message; false where it does not get it.</summary>
    public bool Enter(object message)
    {
        var happening = EventOf(message, FaultPoints.Entered);
        _retries = happening.Retry;
        happening = Judged(happening);
        var arrives = true;
        foreach (var hit in site.Fire(happening))
        {
            switch (hit.Rule.Kind)
            {
                case FaultKind.DoorbellLost:
                    site.Report(hit, happening, "lost");
                    arrives = false;
                    break;
                case FaultKind.ActorSlow:
                    site.Report(hit, happening, $"takes {hit.Rule.Delay} ns of host time longer");
                    _ = faults.Wait(Host(hit.Rule.Delay!.Value));
                    break;
                case FaultKind.ActorHang:
                    site.Report(hit, happening, "hangs");
                    faults.WaitForEnd();
                    throw new InjectedFaultException($"{hit.Rule.Name}: the VM has ended");
                case FaultKind.ActorCrash: Crash(hit, happening); break;
                default: break;
            }
        }

        return arrives;
    }

    /// <summary>A message has come to a place: may throw.</summary>
    public void At(string point, object message)
    {
        var happening = Seen(message, point);
        foreach (var hit in site.Fire(happening))
            if (hit.Rule.Kind == FaultKind.ActorCrash) Crash(hit, happening);
    }

    /// <summary>A virtio request has come to a place: may throw.</summary>
    public void AtQueue(string point, int queue, ushort head)
    {
        var happening = Judged(new FaultEvent(Direction: null, First: head, Queue: queue, Point: point, Retry: _retries));
        foreach (var hit in site.Fire(happening))
            if (hit.Rule.Kind == FaultKind.ActorCrash) Crash(hit, happening);
    }

    private void Crash(in FaultHit hit, in FaultEvent happening)
    {
        site.Report(hit, happening, "crashes");
        throw new InjectedFaultException($"{hit.Rule.Name}: crash at {happening.Point}");
    }

    private FaultEvent Seen(object message, string point) => Judged(EventOf(message, point));

    private FaultEvent Judged(in FaultEvent happening) => happening.Retry || !Repeats() ? happening : happening with { Retry = true };

    private static FaultEvent EventOf(object message, string point) => message switch
    {
        BusAccess { IsWrite: true, Offset: Doorbell } ring =>
            new FaultEvent("write", Doorbell, Queue: (int)(ring.Data & 0xFFFF), Point: point, Retry: ring.Failures > 0),
        DoorbellRang rang => new FaultEvent("write", Doorbell, Queue: rang.Queue, Point: point), // the same without an exit
        BusAccess access =>
            new FaultEvent(access.IsWrite ? "write" : "read", access.Offset, Point: point, Retry: access.Failures > 0),
        _ => new FaultEvent(Direction: null, Point: point),
    };

    private static TimeSpan Host(ulong nanoseconds) => TimeSpan.FromTicks((long)Math.Min(nanoseconds / 100, (ulong)TimeSpan.MaxValue.Ticks / 2));
}

/// <summary>The crash points of virtio requests, by the names that a plan has for them.</summary>
/// <param name="faults">The device's.</param>
internal sealed class QueueFaults(HandlerFaults faults) : ICrashHook
{
    // In the order of the enumeration, after the four of every device.
    private static readonly string[] s_names = [.. FaultPoints.All.Skip(4)];

    /// <inheritdoc/>
    public void Reached(CrashPoint point, int queue, ushort head) => faults.AtQueue(s_names[(int)point], queue, head);
}
