using System.Runtime.InteropServices;
using System.Text;
using ActorVmm.Backends.Native;
using ActorVmm.Devices.Virtio.Net;
using Microsoft.Win32.SafeHandles;

namespace ActorVmm.Backends.Taps;

/// <summary>The open queues of one tap interface: one descriptor each.</summary>
internal sealed class TapHandles : IDisposable
{
    private readonly SafeFileHandle[] _queues;
    private int _enabled;

    private TapHandles(SafeFileHandle[] queues, bool created)
    {
        _queues = queues;
        _enabled = queues.Length;
        Created = created;
    }

    /// <summary>The interface came to be with these handles, and goes with them.</summary>
    public bool Created { get; }

    public int Count => _queues.Length;
    public SafeFileHandle this[int queue] => _queues[queue];

    /// <summary>Opens the interface of that name, or makes it.</summary>
    /// <param name="mayCreate">False: it has to be there.</param>
    /// <exception cref="TapException">It cannot be had.</exception>
    public static TapHandles Open(TapSettings settings, bool mayCreate)
    {
        var there = Directory.Exists($"/sys/class/net/{settings.Name}");
        if (!there && !mayCreate) throw new TapException($"tap '{settings.Name}': is not there");
        var multiQueue = there ? Existing(settings) : settings.Pairs > 1;
        var flags = (short)(Tun.IffTap | Tun.IffNoPi | Tun.IffVnetHdr | (multiQueue ? Tun.IffMultiQueue : 0));
        var name = Encoding.UTF8.GetBytes(settings.Name);
        var queues = new SafeFileHandle?[settings.Pairs];
        try
        {
            for (var i = 0; i < queues.Length; i++)
            {
                queues[i] = Tun.Open(out var error) ?? throw Refused(settings.Name, "/dev/net/tun cannot be opened", error);
                if (Tun.Attach(queues[i]!, name, flags) < 0)
                    throw Refused(settings.Name, there ? "cannot be opened" : "cannot be made", Marshal.GetLastPInvokeError());
                if (Tun.SetHeaderLength(queues[i]!, PacketHeader.Length) < 0)
                    throw Refused(settings.Name, "takes no packet header", Marshal.GetLastPInvokeError());
            }
            return new TapHandles(queues!, !there);
        }
        catch
        {
            foreach (var queue in queues) queue?.Dispose();
            throw;
        }
    }

    /// <summary>Sets what packets that are read may leave undone: as much of <paramref name="wanted"/> as the kernel has.</summary>
    public PacketOffloads SetOffloads(PacketOffloads wanted)
    {
        // Without checksums the kernel takes nothing else, and some kernels have no uncut UDP.
        if ((wanted & PacketOffloads.Checksum) == 0) wanted = PacketOffloads.None;
        if ((wanted & (PacketOffloads.Tcp4 | PacketOffloads.Tcp6)) == 0) wanted &= ~PacketOffloads.TcpEcn;
        foreach (var choice in (ReadOnlySpan<PacketOffloads>)[wanted, wanted & ~PacketOffloads.Udp, wanted & PacketOffloads.Checksum])
            if (Tun.SetOffloads(_queues[0], (uint)choice) >= 0) return choice;
        _ = Tun.SetOffloads(_queues[0], 0);
        return PacketOffloads.None;
    }

    /// <summary>Uses the first <paramref name="count"/> queues, so that the kernel puts nothing into the others.</summary>
    public void Enable(int count)
    {
        count = Math.Clamp(count, 1, _queues.Length);
        for (; _enabled < count; _enabled++) _ = Tun.SetQueueEnabled(_queues[_enabled], enabled: true);
        for (; _enabled > count; _enabled--) _ = Tun.SetQueueEnabled(_queues[_enabled - 1], enabled: false);
    }

    public void Dispose()
    {
        foreach (var queue in _queues) queue.Dispose();
    }

    /// <summary>Whether the interface that is there has several queues; what it was made as decides.</summary>
    private static bool Existing(TapSettings settings)
    {
        string text;
        try { text = File.ReadAllText($"/sys/class/net/{settings.Name}/tun_flags").Trim(); }
        catch (IOException cause) { throw new TapException($"tap '{settings.Name}': is an interface, but no tap", cause); }
        var flags = Convert.ToUInt32(text, 16);
        if ((flags & (ushort)Tun.IffTap) == 0) throw new TapException($"tap '{settings.Name}': is a tun, not a tap");
        var several = (flags & (ushort)Tun.IffMultiQueue) != 0;
        if (!several && settings.Pairs > 1)
            throw new TapException($"tap '{settings.Name}': has one queue; for {settings.Pairs} it must be made with 'multi_queue'");
        return several;
    }

    private static TapException Refused(string name, string what, int error)
    {
        var why = Marshal.GetPInvokeErrorMessage(error);
        var help = error switch
        {
            Libc.EPERM or Libc.EACCES => "; it takes CAP_NET_ADMIN, or a tap that an administrator made for this user",
            Libc.EBUSY => "; another process uses it",
            _ => "",
        };
        return new TapException($"tap '{name}': {what}: {why}{help}");
    }
}
