using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Devices.Tests.Virtio.Net;

/// <summary>A network device with a driver on one side and a scripted outside on the other.</summary>
internal sealed class NetRig : IDisposable
{
    public static readonly MacAddress Mac = new(0x02_AC_00_00_00_01);
    public const ulong AllOffloads = 0b111_1111_1000_0011;

    private bool _rung;

    public NetRig(NetOptions? options = null, ScriptedPackets? packets = null)
    {
        Options = options ?? new NetOptions { Mac = Mac };
        Packets = packets ?? new ScriptedPackets { MaxPairs = Options.Pairs };
        Control.Ring = () => _rung = true;
        Rig = new VirtioRig<NetDevice>(() => new NetDevice(Options, Packets, Clock, Control), memoryMib: 32);
    }

    public NetOptions Options { get; }
    public ScriptedPackets Packets { get; }
    public NetControl Control { get; } = new();
    public ManualClock Clock { get; } = new();
    public VirtioRig<NetDevice> Rig { get; }
    public VirtioDriver Driver => Rig.Driver;
    public GuestRing Rx => Driver.Rings[0];
    public GuestRing Tx => Driver.Rings[1];
    public NetDevice Device => Rig.Device;

    public long this[NetCounter counter] => Control.Counters[counter];

    public NetRig Start(ulong features = NetFeatures.Mac | NetFeatures.Status | NetFeatures.ControlQueue, ushort size = 0,
        ulong transport = VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors)
    {
        Driver.Start(features | transport, size);
        return this;
    }

    /// <summary>The backend rings, and goes on as long as the device asks for more.</summary>
    public void Backend()
    {
        do
        {
            _rung = false;
            Rig.Backend();
        }
        while (_rung);
    }

    /// <summary>Whether the device has asked to be called again.</summary>
    public bool AskedAgain => _rung;

    /// <summary>Sends one packet; gives back when the device has taken it.</summary>
    public void Send(ReadOnlySpan<byte> packet, params ReadOnlySpan<int> cuts)
    {
        var buffers = new List<GuestBuffer>();
        var at = 0;
        foreach (var cut in cuts)
        {
            buffers.Add(Driver.Readable(packet[at..cut]));
            at = cut;
        }
        buffers.Add(Driver.Readable(packet[at..]));
        Tx.Add(buffers.ToArray());
        Driver.Ring(SendQueue(Publish(Tx)));
    }

    public static byte[] Frame(int length, MacAddress? to = null, MacAddress? from = null)
    {
        var frame = new byte[length];
        for (var i = 14; i < length; i++) frame[i] = (byte)(i * 7 + length);
        (to ?? Mac).CopyTo(frame);
        (from ?? Mac).CopyTo(frame.AsSpan(6));
        frame[12] = 8;
        return frame;
    }

    public static byte[] Packet(byte[] frame, PacketHeader header = default)
    {
        var packet = new byte[PacketHeader.Length + frame.Length];
        header.Write(packet);
        frame.CopyTo(packet, PacketHeader.Length);
        packet[10] = packet[11] = 0;
        return packet;
    }

    /// <summary>Posts receive buffers.</summary>
    public GuestBuffer[] Post(int count, uint length, bool ring = true)
    {
        var buffers = new GuestBuffer[count];
        for (var i = 0; i < count; i++) Rx.Add(buffers[i] = Driver.Writable(length));
        Publish(Rx);
        if (ring) Driver.Ring(0);
        return buffers;
    }

    /// <summary>One command; the answer.</summary>
    public byte Command(byte type, byte command, params ReadOnlySpan<byte> data)
    {
        var ring = Driver.Rings[^1];
        var ack = Driver.Writable(1);
        Driver.Memory.TryWrite<byte>(ack.Address, 0xee);
        ring.Add(Driver.Readable([type, command]), Driver.Readable(data), ack);
        Publish(ring);
        Driver.Ring(Driver.Rings.Count - 1);
        ring.Collect();
        return Driver.Bytes(ack)[0];
    }

    public void Dispose() => Rig.Dispose();

    private static GuestRing Publish(GuestRing ring)
    {
        ring.Publish();
        return ring;
    }

    private int SendQueue(GuestRing ring) => ReferenceEquals(ring, Tx) ? 1 : 3;
}
