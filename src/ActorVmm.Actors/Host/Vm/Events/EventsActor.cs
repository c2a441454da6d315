using Akka.Actor;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Devices.Serial;
using ActorVmm.Backends.Polling;

namespace ActorVmm.Actors.Host.Vm.Events;

/// <summary>
/// <c>events</c>: what comes from outside the machine without a vCPU asking. Console input that has become available is passed to the
/// serial port here. Doorbells and taps are watched by the poller, whose thread carries what it hears to the devices as a vCPU's thread does.
/// </summary>
public sealed class EventsActor : UntypedActor
{
    private readonly IConsoleInput _input;
    private readonly IActorRef _serial;
    private readonly EventPoller _poller;
    private long _inputs;

    public static Props Props(IConsoleInput input, IActorRef serial, EventPoller poller) =>
        Made.By(() => new EventsActor(input, serial, poller));

    public EventsActor(IConsoleInput input, IActorRef serial, EventPoller poller)
    {
        _input = input;
        _serial = serial;
        _poller = poller;
    }

    /// <summary>The poller's thread: it runs the mailboxes of the devices it tells.</summary>
    internal static void StartThread(Action loop) => StartThread("events", loop);

    /// <summary>A thread of a backend that runs the mailboxes of the devices it tells.</summary>
    internal static Thread StartThread(string name, Action loop)
    {
        var context = new CallerRunsContext(static () => false); // nobody wants this thread for anything else
        var thread = new Thread(() => context.Bind(loop)) { IsBackground = true, Name = name };
        thread.Start();
        return thread;
    }

    /// <inheritdoc/>
    protected override void PreStart()
    {
        var self = Self;
        var serial = _serial;
        _input.OnAvailable(() =>
        {
            // A script that answers what the guest has just printed does so on the vCPU's thread: its input enters right there, at the same
            // instruction in every run. A terminal's reader comes through this actor's mailbox.
            if (CallerRunsContext.Current is not null) serial.Tell(InputAvailable.Instance);
            else self.Tell(InputAvailable.Instance);
        });
        // What came before needs no word: the port pulls at each of its accesses, the first one that wants input included.
    }

    /// <inheritdoc/>
    protected override void PostStop() => _input.OnAvailable(static () => { });

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case InputAvailable: _inputs++; _serial.Tell(message); break;
            case UnitProtocol.Inspect: Sender.Tell(new UnitProtocol.Inspected(Inspect())); break;
            case UnitProtocol.Save: Sender.Tell(new UnitProtocol.Saved(Self.Path.Name, State: null)); break;
            case UnitProtocol.Start or UnitProtocol.Stop or UnitProtocol.Reset or UnitProtocol.Restore:
                Sender.Tell(new UnitProtocol.Done(Self.Path.Name));
                break;
            default: Unhandled(message); break;
        }
    }

    private InspectNode Inspect() => new(Self.Path.Name, new SortedDictionary<string, string>(StringComparer.Ordinal)
    {
        ["console-input"] = $"{_inputs}",
        ["watched"] = $"{_poller.Watches}",
        ["events"] = $"{_poller.Events}",
    });
}
