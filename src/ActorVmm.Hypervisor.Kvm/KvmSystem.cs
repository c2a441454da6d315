using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;
using Mono.Unix.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>The open /dev/kvm.</summary>
internal sealed class KvmSystem : IKvmCapabilitySource, IDisposable
{
    public const string DevicePath = "/dev/kvm";

    // The kernel's own limit (KVM_MAX_CPUID_ENTRIES); hosts return 75 and more.
    private const int MaxCpuidEntries = 256;
    private const int MaxMsrs = 4096;

    private readonly KvmFile _file;

    private KvmSystem(KvmFile file) => _file = file;

    /// <summary>Opens a KVM device.</summary>
    /// <exception cref="HypervisorException">Missing, or not permitted; with what to do.</exception>
    public static KvmSystem Open(string path = DevicePath)
    {
        var fd = Syscall.open(path, OpenFlags.O_RDWR | OpenFlags.O_CLOEXEC);
        if (fd < 0) throw KvmError.Of($"open {path}", NativeConvert.FromErrno(Stdlib.GetLastError()));
        return new KvmSystem(new KvmFile(fd));
    }

    public int ApiVersion => _file.Call(KvmApi.KVM_GET_API_VERSION, 0, nameof(KvmApi.KVM_GET_API_VERSION));

    public int RunPageSize => _file.Call(KvmApi.KVM_GET_VCPU_MMAP_SIZE, 0, nameof(KvmApi.KVM_GET_VCPU_MMAP_SIZE));

    public int Check(KvmCap capability) => _file.Call(KvmApi.KVM_CHECK_EXTENSION, (nuint)(uint)capability,
        nameof(KvmApi.KVM_CHECK_EXTENSION));

    /// <summary>KVM_CREATE_VM, default machine type.</summary>
    public KvmFile CreateVm()
    {
        // A signal to this thread makes the kernel give up (EINTR): ask again.
        for (var attempt = 0; ; attempt++)
        {
            var fd = Libc.Ioctl(_file, KvmApi.KVM_CREATE_VM, (nuint)0);
            if (fd >= 0) return new KvmFile(fd);
            var errno = Marshal.GetLastPInvokeError();
            if (errno != Libc.EINTR || attempt == 100) throw KvmError.Of(nameof(KvmApi.KVM_CREATE_VM), errno);
        }
    }

    /// <summary>KVM_GET_SUPPORTED_CPUID.</summary>
    public KvmCpuidEntry[] SupportedCpuid()
    {
        var size = Unsafe.SizeOf<KvmCpuidEntry>();
        var buffer = new byte[8 + (MaxCpuidEntries * size)];
        MemoryMarshal.Write(buffer, (uint)MaxCpuidEntries);
        _file.Call(KvmApi.KVM_GET_SUPPORTED_CPUID, buffer, nameof(KvmApi.KVM_GET_SUPPORTED_CPUID));
        var count = MemoryMarshal.Read<int>(buffer);
        return MemoryMarshal.Cast<byte, KvmCpuidEntry>(buffer.AsSpan(8))[..count].ToArray();
    }

    /// <summary>KVM_GET_MSR_INDEX_LIST: the registers that make up a vCPU's state.</summary>
    public uint[] MsrIndexList()
    {
        var buffer = new byte[4 + (MaxMsrs * 4)];
        MemoryMarshal.Write(buffer, (uint)MaxMsrs);
        _file.Call(KvmApi.KVM_GET_MSR_INDEX_LIST, buffer, nameof(KvmApi.KVM_GET_MSR_INDEX_LIST));
        var count = MemoryMarshal.Read<int>(buffer);
        return MemoryMarshal.Cast<byte, uint>(buffer.AsSpan(4))[..count].ToArray();
    }

    public void Dispose() => _file.Dispose();
}
