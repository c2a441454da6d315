using System.Runtime.InteropServices;
using Mono.Unix.Native;

namespace ActorVmm.Hypervisor.Kvm.Native;

/// <summary>The <c>kvm_run</c> pages shared with the kernel; unmapped once.</summary>
internal sealed unsafe class KvmRunMapping : SafeHandle
{
    private readonly int _length;

    private KvmRunMapping(nint address, int length) : base(-1, ownsHandle: true)
    {
        SetHandle(address);
        _length = length;
    }

    /// <summary>Maps the first <paramref name="length"/> bytes of a vCPU descriptor.</summary>
    public static KvmRunMapping Map(KvmFile vcpu, int length)
    {
        var address = Syscall.mmap(0, (ulong)length, MmapProts.PROT_READ | MmapProts.PROT_WRITE, MmapFlags.MAP_SHARED, vcpu.Fd, 0);
        return address != -1 ? new KvmRunMapping(address, length) : throw KvmError.Of("mmap of kvm_run",
            NativeConvert.FromErrno(Stdlib.GetLastError()));
    }

    public override bool IsInvalid => handle == -1;

    /// <summary>First byte; valid until disposal.</summary>
    public byte* Base => (byte*)handle;

    /// <summary>Reads a field of the page. <paramref name="offset"/> is a constant of <see cref="RunPage"/> or comes from the
    /// kernel.</summary>
    public ref T Field<T>(int offset) where T : unmanaged
    {
        if ((uint)offset > (uint)(_length - sizeof(T))) throw new ArgumentOutOfRangeException(nameof(offset));
        // SAFETY: the bounds were just checked against the mapping, and the vCPU that owns it keeps it alive while it runs.
        return ref *(T*)(Base + offset);
    }

    protected override bool ReleaseHandle() => Syscall.munmap(handle, (ulong)_length) == 0;
}
