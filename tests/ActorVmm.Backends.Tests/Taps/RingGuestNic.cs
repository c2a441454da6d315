using System.Buffers.Binary;
using ActorVmm.Backends.Taps;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Testing.Devices;
using ActorVmm.Testing.Virtio;
using Xunit;

namespace ActorVmm.Backends.Tests.Taps;

/// <summary>
/// A guest's network driver on a device whose outside is a real tap: it negotiates what it is told to, and checks that no packet that comes
/// leaves more undone than that.
/// </summary>
internal sealed class RingGuestNic : IDisposable
{
    public static readonly MacAddress Mac = new(0x02_00_00_00_00_09);
    private const ushort QueueSize = 64;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private readonly VirtioRig<NetDevice> _rig;
    private readonly SemaphoreSlim _ready;
    private readonly Dictionary<uint, GuestBuffer> _posted = [];
    private readonly GuestBuffer _sending;
    private readonly List<byte[]> _parts = [];
    private readonly Queue<(PacketHeader Header, byte[] Frame)> _arrived = [];
    private readonly int _bufferLength;
    private int _partsLeft;

    public RingGuestNic(TapPort port, SemaphoreSlim ready, ulong features)
    {
        _ready = ready;
        Features = features;
        var control = new NetControl { Ring = () => ready.Release() };
        _rig = new VirtioRig<NetDevice>(() => new NetDevice(new NetOptions { Mac = Mac, QueueSize = QueueSize }, port, new ManualClock(), control));
        port.OnReady(() => ready.Release());
        Driver.Start(features | NetFeatures.Mac | VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors, QueueSize);
        Assert.Equal(features, Driver.Features & (NetFeatures.MergeBuffers | Offloads));
        _sending = Driver.Writable(PacketLimits.MaxPacket) with { Writable = false };
        // As Linux does: whole packets where they may come uncut and one buffer has to take each.
        var uncut = (features & (NetFeatures.GuestTso4 | NetFeatures.GuestTso6 | NetFeatures.GuestUfo)) != 0;
        _bufferLength = Has(NetFeatures.MergeBuffers) ? 4096 : uncut ? PacketLimits.MaxPacket : 1526;
        for (var i = 0; i < QueueSize; i++) Post(Driver.Writable((uint)_bufferLength));
        Publish();
    }

    /// <summary>Every feature that lets something undone in one direction.</summary>
    public static ulong Offloads => NetFeatures.Checksum | NetFeatures.GuestChecksum | NetFeatures.GuestTso4 | NetFeatures.GuestTso6
        | NetFeatures.GuestEcn | NetFeatures.GuestUfo | NetFeatures.HostTso4 | NetFeatures.HostTso6 | NetFeatures.HostEcn | NetFeatures.HostUfo;

    public ulong Features { get; }

    /// <summary>Packets received with a partial checksum; uncut; in several buffers.</summary>
    public int Partial { get; private set; }

    public int Uncut { get; private set; }

    public int Merged { get; private set; }

    private VirtioDriver Driver => _rig.Driver;

    public bool Has(ulong feature) => (Features & feature) != 0;

    public void Send(PacketHeader header, ReadOnlySpan<byte> frame)
    {
        Span<byte> head = stackalloc byte[PacketHeader.Length];
        header.Write(head);
        Driver.Memory.TryWrite(_sending.Address, head);
        Driver.Memory.TryWrite(_sending.Address + PacketHeader.Length, frame);
        Driver.Rings[1].Add(_sending with { Length = (uint)(PacketHeader.Length + frame.Length) });
        Driver.Rings[1].Publish();
        Driver.Ring(1);
        Assert.Single(Driver.Rings[1].Collect());
        Assert.Null(_rig.LastFailure);
    }

    /// <summary>The next packet.</summary>
    public (PacketHeader Header, byte[] Frame) Receive()
    {
        while (_arrived.Count == 0)
        {
            _rig.Backend();
            Collect();
            if (_arrived.Count == 0) Assert.True(_ready.Wait(Patience), $"no packet comes; {_rig.Device}");
        }
        return _arrived.Dequeue();
    }

    public override string ToString() => $"{_rig.Device}";

    public void Dispose() => _rig.Dispose();

    private void Post(GuestBuffer buffer) => _posted[(uint)Driver.Rings[0].Add(buffer)] = buffer;

    private void Publish()
    {
        Driver.Rings[0].Publish();
        Driver.Ring(0);
    }

    private void Collect()
    {
        var any = false;
        while (Driver.Rings[0].TryCollect(out var used))
        {
            any = true;
            var buffer = _posted[used.Head];
            var bytes = new byte[used.Written];
            Assert.True(Driver.Memory.TryRead(buffer.Address, bytes));
            Post(buffer);
            if (_partsLeft == 0)
            {
                _partsLeft = BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(PacketHeader.BufferCountOffset));
                if (_partsLeft > 1) Merged++;
                Assert.True(_partsLeft == 1 || Has(NetFeatures.MergeBuffers), "several buffers without leave");
            }
            _parts.Add(bytes);
            if (--_partsLeft == 0) Arrive();
        }
        if (any) Publish();
    }

    private void Arrive()
    {
        var packet = _parts.Count == 1 ? _parts[0] : [.. _parts.SelectMany(static part => part)];
        _parts.Clear();
        var header = PacketHeader.Read(packet);
        if ((header.Flags & PacketFlags.NeedsChecksum) != 0)
        {
            Assert.True(Has(NetFeatures.GuestChecksum), "a partial checksum without leave");
            Partial++;
        }
        var leave = (header.GsoType & ~GsoType.Ecn) switch
        {
            GsoType.None => ulong.MaxValue,
            GsoType.Tcp4 => NetFeatures.GuestTso4,
            GsoType.Tcp6 => NetFeatures.GuestTso6,
            GsoType.Udp => NetFeatures.GuestUfo,
            _ => 0UL,
        };
        Assert.True((Features & leave) != 0 || header.GsoType == GsoType.None, $"{header.GsoType} without leave");
        Assert.True((header.GsoType & GsoType.Ecn) == 0 || Has(NetFeatures.GuestEcn), "uncut packets with marks without leave");
        if (header.GsoType == GsoType.None) Assert.True(packet.Length <= PacketHeader.Length + 1514, $"{packet.Length} bytes, and not uncut");
        else Uncut++;
        _arrived.Enqueue((header, packet[PacketHeader.Length..]));
    }
}
