using Akka.Actor;
using Akka.Event;
using Akka.Routing;

namespace ActorVmm.Actors.Host.Vm.Bus;

/// <summary>
/// The bus: an Akka router whose routing logic is the address table. <see cref="Route(object, IActorRef)"/> runs on the vCPU's thread, so
/// the bus adds a table look-up and no mailbox; adding and removing devices goes through the router actor, which also watches them.
/// </summary>
public sealed class BusRouter : Router
{
    private readonly AddressTable _table;
    private readonly BusPorts _ports;

    private BusRouter(BusPorts ports, AddressTable table, Routee[] routees) : base(NoLogic.Instance, routees)
    {
        _ports = ports;
        _table = table;
        ports.Table = table;
    }

    internal static BusRouter Create(BusPorts ports) => new(ports, AddressTable.Empty, []);

    /// <inheritdoc/>
    public override Router WithRoutees(params Routee[] routees)
    {
        ArgumentNullException.ThrowIfNull(routees);
        try
        {
            return new BusRouter(_ports, AddressTable.Build(routees.OfType<DeviceRoutee>(), _table), routees);
        }
        catch (ArgumentException overlap)
        {
            // Ranges are checked before a device is made, so this is a late hot-plug: the devices that answer now go on answering.
            _ports.Log.Error(overlap, "a device was refused by the bus: {0}", overlap.Message);
            return this;
        }
    }

    /// <inheritdoc/>
    public override void Route(object message, IActorRef sender)
    {
        if (message is BusAccess access)
        {
            Route(access, sender);
            return;
        }

        switch (message)
        {
            case UnitProtocol.Inspect: sender.Tell(Inspect()); break;
            case UnitProtocol.Reset: ResetCounters(); sender.Tell(new UnitProtocol.Done(BusGroup.ActorName)); break;
            case UnitProtocol.Start or UnitProtocol.Stop or UnitProtocol.Restore:
                sender.Tell(new UnitProtocol.Done(BusGroup.ActorName));
                break;
            case UnitProtocol.Save: // the table is made of devices
                sender.Tell(new UnitProtocol.Saved(BusGroup.ActorName, State: null));
                break;
            default: _ports.Log.Warning("the bus does not know {0}", message.GetType().Name); break;
        }
    }

    private void Route(BusAccess access, IActorRef sender)
    {
        if (_table.TryFind(access.IsPort, access.Address, access.Size, out var entry))
        {
            access.RouteTo(entry);
            entry.Actor.Tell(access, sender);
            return;
        }

        _ports.CountOpenBus();
        if (OfferToHandler(access)) access.Complete(access.Exit.Data);
        else access.CompleteOpenBus(AccessOutcome.OpenBus);
    }

    private bool OfferToHandler(BusAccess access)
    {
        if (_ports.Handler is not { } handler) return false;
        try
        {
            return handler.TryHandle(access.Exit);
        }
        catch (Exception cause)
        {
            // The embedding program's mistake must not take its guest down; and Tell would swallow it, leaving the vCPU without an answer.
            _ports.Log.Error(cause, "the exit handler failed on {0}", access.Exit);
            return false;
        }
    }

    private void ResetCounters() => _ports.ResetOpenBus();

    private UnitProtocol.Inspected Inspect()
    {
        var values = new SortedDictionary<string, string>(StringComparer.Ordinal) { ["open-bus"] = $"{_ports.OpenBus}" };
        foreach (var entry in _table.Entries)
            values[$"{entry.Range}"] = $"{entry.Device.Name} reads {entry.Reads} writes {entry.Writes}";
        return new UnitProtocol.Inspected(new InspectNode(BusGroup.ActorName, values));
    }

    /// <summary>Never asked: <see cref="Route(object, IActorRef)"/> decides by address.</summary>
    private sealed class NoLogic : RoutingLogic
    {
        public static readonly NoLogic Instance = new();

        public override Routee Select(object message, Routee[] routees) => Routee.NoRoutee;
    }
}

/// <summary>What every version of the bus's table shares: the exit handler, the counter of unclaimed accesses, the log.</summary>
internal sealed class BusPorts(IExitHandler? handler, ILoggingAdapter log)
{
    private long _openBus;

    public IExitHandler? Handler { get; } = handler;
    public ILoggingAdapter Log { get; } = log;

    /// <summary>The table in use, for whoever reads its counters. Any thread.</summary>
    public AddressTable Table
    {
        get => Volatile.Read(ref field);
        set => Volatile.Write(ref field, value);
    } = AddressTable.Empty;
    public long OpenBus => Volatile.Read(ref _openBus);

    public void CountOpenBus() => Interlocked.Increment(ref _openBus);
    public void ResetOpenBus() => Volatile.Write(ref _openBus, 0);
}

/// <summary>Makes the bus of one VM: <c>/user/host/{vm}/bus</c>.</summary>
internal sealed class BusGroup(BusPorts ports, string dispatcher) : Group([], dispatcher)
{
    public const string ActorName = "bus";

    /// <summary>A VM may lose all its devices and still answer as an open bus.</summary>
    public override bool StopRouterWhenAllRouteesRemoved => false;

    /// <summary>An access is none; said first, because the general answer costs three type checks per exit.</summary>
    public override bool IsManagementMessage(object message) => message is not BusAccess && base.IsManagementMessage(message);

    public override Router CreateRouter(ActorSystem system) => BusRouter.Create(ports);

    public override IEnumerable<string> GetPaths(ActorSystem system) => [];

    public override Akka.Util.ISurrogate ToSurrogate(ActorSystem system) =>
        throw new NotSupportedException("a bus belongs to one process; it is never deployed elsewhere");
}
