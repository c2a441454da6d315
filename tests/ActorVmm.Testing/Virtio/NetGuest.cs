using System.Buffers.Binary;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Memory;
using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// Machine code that is its own driver of a network interface: round by round it gives one buffer to receive into, sends one frame, halts
/// until both queues have come to where they must, and looks at length and bytes of the answer, which is its own payload with every bit
/// turned over. It reports the rounds that were right, then the interrupts.
/// </summary>
public static class NetGuest
{
    /// <summary>Ethernet header and <see cref="Words"/> qwords.</summary>
    public const int FrameLength = 14 + (Words * 8);

    /// <summary>The interface's own address; the peer's ends in 01.</summary>
    public static readonly MacAddress Mac = MacAddress.TryParse("02:00:00:00:00:02", out var mac) ? mac : default;

    private const int Words = 6;
    private const int Room = 2048; // more than the 1526 bytes that a driver without MRG_RXBUF must give (virtio 1.2 §5.1.6.3.1)
    private const ulong Factor = 0xD6E8_FEB8_6659_FD93;
    private const byte Vector = 0x40;
    private const ulong Sent = GuestLayout.Free + 0x10000, Received = GuestLayout.Free + 0x11000;
    private const ulong Payload = PacketHeader.Length + 14;

    private static readonly GuestQueue s_receive = new(0, GuestLayout.Free), s_transmit = new(1, GuestLayout.Free + 0x8000);

    private static ReadOnlySpan<byte> Header => [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xB5]; // a type for experiments

    /// <summary>The frame of a round, as the outside must see it.</summary>
    public static byte[] Frame(int round)
    {
        var frame = new byte[FrameLength];
        Header.CopyTo(frame);
        for (var i = 0; i < Words; i++)
            BinaryPrimitives.WriteUInt64LittleEndian(frame.AsSpan(14 + (i * 8)), unchecked(((ulong)round * Factor) + (ulong)i));
        return frame;
    }

    /// <summary>The peer's answer to a frame.</summary>
    public static byte[] Answer(ReadOnlySpan<byte> frame)
    {
        var answer = frame.ToArray();
        frame[..6].CopyTo(answer.AsSpan(6));
        frame[6..12].CopyTo(answer);
        foreach (ref var octet in answer.AsSpan(14)) octet = (byte)~octet;
        return answer;
    }

    /// <summary>Puts the program into a machine, ready to run.</summary>
    /// <param name="guest">The machine's pages.</param>
    /// <param name="window">The interface's registers.</param>
    /// <param name="gsi">Its interrupt input; level-triggered.</param>
    /// <param name="rounds">Frames.</param>
    public static void Load(TinyGuest guest, ulong window, int gsi, int rounds)
    {
        ArgumentNullException.ThrowIfNull(guest);
        s_receive.Describe(guest, 0, Received, Room, GuestRing.Write);
        s_transmit.Describe(guest, 0, Sent, PacketHeader.Length + FrameLength, 0);
        for (var i = 0; i < Header.Length; i++) guest.Write(Sent + PacketHeader.Length + (ulong)i, Header[i]);
        guest.Handler(Vector, c => c.VirtioInterrupt(window));
        guest.Code(c =>
        {
            var (next, wrong) = (c.CreateLabel(), c.CreateLabel());
            c.MaskPic();
            c.EnableLocalApic();
            c.WriteIoApic(gsi, Vector | VirtioCode.LevelTriggered);
            c.InitializeVirtio(window, 0, s_receive, s_transmit);
            c.xor(ebx, ebx);   // interrupts
            c.xor(r12d, r12d); // rounds that were right
            c.xor(r13d, r13d); // the round
            c.Label(ref next);
            c.inc(r13d);
            Pattern();
            c.StoreRun(Sent + Payload, Words);
            c.mov(r15d, ebx);
            c.mov(__word_ptr[s_receive.Available + 2], r13w);
            c.NotifyVirtio(window, s_receive);
            c.mov(__word_ptr[s_transmit.Available + 2], r13w);
            c.NotifyVirtio(window, s_transmit);
            c.HaltUntil(s_transmit.UsedIndex, r13w);
            c.HaltUntil(s_receive.UsedIndex, r13w, before: r15d);
            // The element of this round: head 0, header and frame.
            c.lea(rdi, __[r13 - 1]);
            c.and(edi, VirtioCode.QueueSize - 1);
            c.cmp(__dword_ptr[(rdi * 8) + (int)(s_receive.Used + 4)], 0);
            c.jne(wrong);
            c.cmp(__dword_ptr[(rdi * 8) + (int)(s_receive.Used + 8)], PacketHeader.Length + FrameLength);
            c.jne(wrong);
            // ~x is -1 - x, so that the answer's words count down; counted up they are the sent ones.
            var word = c.CreateLabel();
            Pattern();
            c.mov(edi, (uint)(Received + Payload));
            c.mov(ecx, Words);
            c.Label(ref word);
            c.mov(rdx, __qword_ptr[rdi]);
            c.not(rdx);
            c.cmp(rdx, rax);
            c.jne(wrong);
            c.inc(rax);
            c.add(rdi, 8);
            c.dec(ecx);
            c.jne(word);
            c.inc(r12d);
            c.Label(ref wrong);
            c.cmp(r13d, rounds);
            c.jb(next);
            c.mov(eax, r12d);
            c.ReportEax();
            c.mov(eax, ebx);
            c.ReportEax();
            c.Done();

            void Pattern()
            {
                c.mov(rax, Factor);
                c.imul(rax, r13);
            }
        });
        guest.Start64();
    }
}

/// <summary>The outside of a network interface: keeps every frame, and answers it as <see cref="NetGuest"/> expects.</summary>
public sealed class AnsweringPackets : IPacketPort
{
    private readonly Lock _lock = new();
    private readonly Queue<byte[]> _answers = new();
    private Action _ready = static () => { };

    /// <summary>Frames that were sent, without their packet headers.</summary>
    public List<byte[]> Sent { get; } = [];

    public int MaxPairs => 1;
    public PacketOffloads SendOffloads => PacketOffloads.None;
    public PacketOffloads ReceiveOffloads => PacketOffloads.None;
    public bool LinkUp => true;
    public IEnumerable<KeyValuePair<string, long>> Counters => [];

    public void Configure(PacketOffloads receive, int pairs) { }

    public PacketSent Send(int pair, ReadOnlySpan<HostSegment> packet)
    {
        var bytes = new List<byte>();
        foreach (var segment in packet) bytes.AddRange(segment.Bytes);
        var frame = bytes.Skip(PacketHeader.Length).ToArray();
        lock (_lock)
        {
            Sent.Add(frame);
            _answers.Enqueue([.. new byte[PacketHeader.Length], .. NetGuest.Answer(frame)]);
        }
        // Never from inside a call to the port.
        ThreadPool.UnsafeQueueUserWorkItem(static port => port._ready(), this, preferLocal: false);
        return PacketSent.Done;
    }

    public int Receive(int pair, ReadOnlySpan<HostSegment> into)
    {
        byte[]? packet;
        lock (_lock) if (!_answers.TryDequeue(out packet)) return 0;
        var at = 0;
        foreach (var segment in into)
        {
            var part = Math.Min(segment.Length, packet.Length - at);
            packet.AsSpan(at, part).CopyTo(segment.Bytes);
            at += part;
        }
        return at;
    }

    public void OnReady(Action ready) => _ready = ready;

    public void Dispose() { }
}
