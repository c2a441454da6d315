using System.Runtime.InteropServices;
using ActorVmm.Memory;
using Microsoft.Win32.SafeHandles;

namespace ActorVmm.Backends.Native;

/// <summary>The system calls of a tap interface (linux/if_tun.h, netdevice(7)). Each returns -1 with the error number kept, like the call itself.</summary>
internal static unsafe partial class Tun
{
    public const short IffTap = 0x0002, IffNoPi = 0x1000, IffVnetHdr = 0x4000, IffMultiQueue = 0x0100;
    public const short IffUp = 0x1;
    public const int NameSize = 16;

    private const nuint TunSetIff = 0x400454ca, TunSetOffload = 0x400454d0, TunSetVnetHdrSz = 0x400454d8,
        TunSetQueue = 0x400454d9, SiocGifFlags = 0x8913, SiocSifFlags = 0x8914;

    private const short AttachQueue = 0x0200, DetachQueue = 0x0400;
    private const int OpenReadWrite = 2, OpenNonBlocking = 0x800, OpenCloseOnExec = 0x80000;

    /// <summary>struct ifreq, as far as it is used: a name and flags.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 40)]
    private struct InterfaceRequest
    {
        public fixed byte Name[NameSize];
        public short Flags;
    }

    /// <summary>Opens <c>/dev/net/tun</c>, non-blocking; null with the error number where that fails.</summary>
    public static SafeFileHandle? Open(out int error)
    {
        var fd = Libc.Open("/dev/net/tun"u8, OpenReadWrite | OpenNonBlocking | OpenCloseOnExec);
        error = fd < 0 ? Marshal.GetLastPInvokeError() : 0;
        return fd < 0 ? null : new SafeFileHandle(fd, ownsHandle: true);
    }

    /// <summary>Ties the handle to an interface, which comes to be where it is not there (TUNSETIFF).</summary>
    public static int Attach(SafeFileHandle tun, ReadOnlySpan<byte> name, short flags)
    {
        var request = Named(name);
        request.Flags = flags;
        // SAFETY: the kernel reads and writes one ifreq, a local.
        return Libc.Ioctl(tun, TunSetIff, &request);
    }

    /// <summary>The length of the header before each frame, in bytes.</summary>
    // SAFETY: the kernel reads one int, a local.
    public static int SetHeaderLength(SafeFileHandle tun, int length) => Libc.Ioctl(tun, TunSetVnetHdrSz, &length);

    /// <summary>What packets that are read may leave undone (TUN_F_*). The argument is the value itself.</summary>
    public static int SetOffloads(SafeFileHandle tun, uint offloads) => Libc.Ioctl(tun, TunSetOffload, (void*)(nuint)offloads);

    /// <summary>Puts one queue of several in or out of use.</summary>
    public static int SetQueueEnabled(SafeFileHandle tun, bool enabled)
    {
        var request = default(InterfaceRequest);
        request.Flags = enabled ? AttachQueue : DetachQueue;
        // SAFETY: the kernel reads one ifreq, a local.
        return Libc.Ioctl(tun, TunSetQueue, &request);
    }

    /// <summary>The interface's flags; false where there is none of that name.</summary>
    public static bool TryGetFlags(SafeFileHandle socket, ReadOnlySpan<byte> name, out short flags)
    {
        var request = Named(name);
        // SAFETY: the kernel reads and writes one ifreq, a local.
        var found = Libc.Ioctl(socket, SiocGifFlags, &request) >= 0;
        flags = request.Flags;
        return found;
    }

    /// <summary>Puts an interface up; false where there is none, or it is not ours to change.</summary>
    public static bool TryBringUp(SafeFileHandle socket, ReadOnlySpan<byte> name)
    {
        if (!TryGetFlags(socket, name, out var flags)) return false;
        var request = Named(name);
        request.Flags = (short)(flags | IffUp);
        // SAFETY: the kernel reads one ifreq, a local.
        return Libc.Ioctl(socket, SiocSifFlags, &request) >= 0;
    }

    /// <summary>One frame out of guest memory. Bytes, or minus the error number.</summary>
    public static int Write(SafeFileHandle tun, ReadOnlySpan<HostSegment> pieces)
    {
        fixed (HostSegment* vector = pieces)
        {
            // SAFETY: HostSegment is laid out like struct iovec, and each lies in memory that lives as long as the VM.
            var count = Libc.WriteV(tun, vector, pieces.Length);
            return count >= 0 ? (int)count : -Marshal.GetLastPInvokeError();
        }
    }

    /// <summary>One frame into guest memory. Bytes, or minus the error number.</summary>
    public static int Read(SafeFileHandle tun, ReadOnlySpan<HostSegment> pieces)
    {
        fixed (HostSegment* vector = pieces)
        {
            // SAFETY: as above; the kernel writes no more than the pieces' lengths.
            var count = Libc.ReadV(tun, vector, pieces.Length);
            return count >= 0 ? (int)count : -Marshal.GetLastPInvokeError();
        }
    }

    private static InterfaceRequest Named(ReadOnlySpan<byte> name)
    {
        var request = default(InterfaceRequest);
        // SAFETY: 16 bytes of a local; the copy is cut to 15, so a zero ends it.
        name[..Math.Min(name.Length, NameSize - 1)].CopyTo(new Span<byte>(request.Name, NameSize));
        return request;
    }
}
