using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace ActorVmm.Hypervisor.Kvm.Native;

/// <summary>A descriptor of /dev/kvm, a VM, a vCPU or an eventfd; closed once, whatever happens.</summary>
internal sealed class KvmFile : SafeHandleZeroOrMinusOneIsInvalid
{
    public KvmFile() : base(ownsHandle: true) { }

    public KvmFile(int fd) : base(ownsHandle: true) => SetHandle(fd);

    /// <summary>The number, for handing to the kernel inside a structure while this object is alive.</summary>
    public int Fd => (int)handle;

    /// <summary>Calls <paramref name="request"/> and returns its result.</summary>
    /// <exception cref="HypervisorException">The kernel refused; the message names the call and the error.</exception>
    public int Call(uint request, nuint argument, string name)
    {
        var result = Libc.Ioctl(this, request, argument);
        return result >= 0 ? result : throw KvmError.Of(name, Marshal.GetLastPInvokeError());
    }

    /// <summary>Calls <paramref name="request"/> with a structure.</summary>
    public unsafe int Call<T>(uint request, ref T argument, string name) where T : unmanaged
    {
        // SAFETY: the structure is pinned for the call, and its size is the one that the request number carries.
        fixed (T* pointer = &argument)
        {
            var result = Libc.Ioctl(this, request, pointer);
            return result >= 0 ? result : throw KvmError.Of(name, Marshal.GetLastPInvokeError());
        }
    }

    /// <summary>Calls <paramref name="request"/> with a variable-sized buffer.</summary>
    public unsafe int Call(uint request, Span<byte> argument, string name)
    {
        // SAFETY: the buffer is pinned for the call; its length field, set by the caller, tells the kernel how much there is.
        fixed (byte* pointer = argument)
        {
            var result = Libc.Ioctl(this, request, pointer);
            return result >= 0 ? result : throw KvmError.Of(name, Marshal.GetLastPInvokeError());
        }
    }

    protected override bool ReleaseHandle() => Libc.Close(handle) == 0;
}
