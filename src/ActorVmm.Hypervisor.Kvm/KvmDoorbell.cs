using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>A guest address whose writes the kernel turns into an eventfd count, without leaving the guest (KVM_IOEVENTFD).</summary>
internal sealed class KvmDoorbell : IDoorbell
{
    private readonly KvmFile _vm;
    private readonly KvmFile _event;
    private readonly Action<IDisposable> _gone;
    private int _disposed;

    private KvmDoorbell(KvmFile vm, KvmFile eventFile, DoorbellAddress address, Action<IDisposable> gone)
    {
        _vm = vm;
        _event = eventFile;
        _gone = gone;
        Address = address;
    }

    /// <inheritdoc/>
    public DoorbellAddress Address { get; }

    /// <inheritdoc/>
    public int FileDescriptor => _event.Fd;

    public static KvmDoorbell Create(KvmFile vm, DoorbellAddress address, Action<IDisposable> gone)
    {
        var eventFile = EventFd.Create();
        try
        {
            var doorbell = new KvmDoorbell(vm, eventFile, address, gone);
            doorbell.Assign(0);
            return doorbell;
        }
        catch
        {
            eventFile.Dispose();
            throw;
        }
    }

    /// <summary>How often it was rung since the last call.</summary>
    public unsafe ulong TakeCount()
    {
        ulong count = 0;
        // SAFETY: eight bytes of a local. Empty is EAGAIN: zero.
        return Libc.Read(_event, &count, sizeof(ulong)) == sizeof(ulong) ? count : 0;
    }

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0) return;
        try
        {
            if (!_vm.IsClosed) Assign(KvmIoEventFd.Deassign);
        }
        finally
        {
            _event.Dispose();
            _gone(this);
        }
    }

    private void Assign(uint flags)
    {
        var request = new KvmIoEventFd
        {
            Address = Address.Address,
            Length = (uint)Address.Size,
            Match = Address.Match ?? 0,
            Fd = _event.Fd,
            Flags = flags | (Address.Match is null ? 0 : KvmIoEventFd.Datamatch) | (Address.IsPort ? KvmIoEventFd.Pio : 0),
        };
        _vm.Call(KvmApi.KVM_IOEVENTFD, ref request, nameof(KvmApi.KVM_IOEVENTFD));
    }
}

/// <summary>Non-blocking event counters.</summary>
internal static class EventFd
{
    public static KvmFile Create()
    {
        var fd = Libc.EventFd(0, Libc.EventFdNonBlocking | Libc.EventFdCloseOnExec);
        return fd >= 0 ? new KvmFile(fd) : throw KvmError.Of("eventfd", Marshal.GetLastPInvokeError());
    }
}
