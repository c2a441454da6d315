using ActorVmm.Actors.Host.Vm.Faults;
using ActorVmm.Backends.Polling;
using ActorVmm.Backends.Taps;
using ActorVmm.Backends.UserNet;
using ActorVmm.Devices;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>A change of a network interface while its VM runs.</summary>
/// <param name="Plugged">The cable: false pulls it, true puts it in, null leaves it.</param>
/// <param name="ReceiveLimits">New limits; null leaves them.</param>
/// <param name="TransmitLimits">New limits; null leaves them.</param>
public sealed record NetUpdate(bool? Plugged = null, RateLimiterChange? ReceiveLimits = null, RateLimiterChange? TransmitLimits = null);

/// <summary>What outlives the instances of one network device: its outside, its settings, its operator's side.</summary>
internal sealed class NetUnit(IPacketPort packets, NetOptions options, IClock clock)
{
    // As they are now: a change of one bucket leaves the other as it is.
    private RateLimiterSpec _receive = options.ReceiveLimits;
    private RateLimiterSpec _transmit = options.TransmitLimits;

    public NetControl Control { get; } = new();

    /// <summary>The device of one place in a VM's plan, connected to what the description says.</summary>
    /// <exception cref="HypervisorException">The outside cannot be had.</exception>
    public static DeviceUnit Of(VmSpec spec, DeviceParts parts, VirtioPlace place)
    {
        var wanted = spec.Nets[place.Index];
        var options = new NetOptions
        {
            Mac = wanted.Mac ?? MacAddress.Derive(spec.Name, place.Name), Mtu = wanted.Mtu, Pairs = wanted.Pairs,
            QueueSize = (ushort)wanted.QueueSize, ReceiveLimits = wanted.ReceiveLimits, TransmitLimits = wanted.TransmitLimits,
            SpoofCheck = wanted.SpoofCheck, Features = wanted.Features,
        };
        var slot = new VirtioSlot(parts, place, options.Queues);
        var packets = Open(wanted, parts.Poller);
        slot.Own(packets);
        if (FaultHooks.Compiled && parts.Faults is { } faults) packets = faults.Wrap(place.Name, packets);
        var unit = new NetUnit(packets, options, slot.Clock);
        unit.Control.Ring = slot.Ring;
        packets.OnReady(slot.Ring);
        slot.Control = unit.Update;
        slot.Base.Work = () => DeviceWork.Of(slot.Ledger.Queues, net: unit.Control.Counters);
        return slot.Unit(unit.Make);
    }

    /// <summary>A fresh instance.</summary>
    public NetDevice Make() => new(options, packets, clock, Control);

    /// <summary>Changes the running device.</summary>
    /// <returns>Null, or why it cannot be.</returns>
    public string? Update(IVirtioDevice device, object what)
    {
        if (what is not NetUpdate update) return "a network interface knows no such change";
        if (update.Plugged is { } plugged) Control.SetPlugged(plugged);
        if (update.ReceiveLimits is null && update.TransmitLimits is null) return null;
        if (update.ReceiveLimits is { } receive) _receive = receive.ApplyTo(_receive);
        if (update.TransmitLimits is { } transmit) _transmit = transmit.ApplyTo(_transmit);
        Control.SetLimits(update.ReceiveLimits is null ? null : _receive, update.TransmitLimits is null ? null : _transmit);
        return null;
    }

    private static IPacketPort Open(NetSpec wanted, EventPoller poller)
    {
        try
        {
            return wanted.Backend switch
            {
                NetBackend.Tap tap => new TapPort(new TapSettings(tap.Name, wanted.Pairs), poller),
                NetBackend.User user => new UserNetwork(user.Settings),
                NetBackend.Own own => own.Open(),
                _ => throw new HypervisorException($"network interface {wanted.Id}: is connected to nothing"),
            };
        }
        catch (Exception cannot) when (cannot is TapException or UserNetworkException)
        {
            throw new HypervisorException($"network interface {wanted.Id}: {cannot.Message}", cannot);
        }
    }
}
