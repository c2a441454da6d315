using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>An interrupt input driven by an eventfd (KVM_IRQFD): any thread raises it with one write.</summary>
public sealed unsafe class KvmInterruptEvent : IDisposable
{
    private readonly KvmFile _vm;
    private readonly KvmFile _event;
    private readonly KvmFile? _resample;
    private readonly Action<IDisposable> _gone;
    private int _disposed;

    private KvmInterruptEvent(KvmFile vm, int gsi, KvmFile eventFile, KvmFile? resample, Action<IDisposable> gone)
    {
        _vm = vm;
        _event = eventFile;
        _resample = resample;
        _gone = gone;
        Gsi = gsi;
    }

    /// <summary>The input, or the message route's number.</summary>
    public int Gsi { get; }

    /// <summary>The eventfd: a write of 8 bytes, value 1, raises the interrupt.</summary>
    public int Descriptor => _event.Fd;

    /// <summary>Becomes readable when the guest has ended a level-triggered interrupt; -1 where edge-triggered.</summary>
    public int ResampleDescriptor => _resample?.Fd ?? -1;

    /// <summary>Raises the interrupt.</summary>
    public void Raise()
    {
        ulong one = 1;
        // SAFETY: eight bytes of a local.
        if (Libc.Write(_event, &one, sizeof(ulong)) != sizeof(ulong)) throw KvmError.Of("write to irqfd", Marshal.GetLastPInvokeError());
    }

    /// <summary>How often the guest ended the interrupt since the last call; the line is down then, and raised again by
    /// <see cref="Raise"/>.</summary>
    public ulong TakeEnded()
    {
        if (_resample is null) return 0;
        ulong count = 0;
        // SAFETY: eight bytes of a local. Empty is EAGAIN: zero.
        return Libc.Read(_resample, &count, sizeof(ulong)) == sizeof(ulong) ? count : 0;
    }

    internal static KvmInterruptEvent Create(KvmFile vm, int gsi, bool resample, Action<IDisposable> gone)
    {
        var eventFile = EventFd.Create();
        KvmFile? resampleFile = null;
        try
        {
            resampleFile = resample ? EventFd.Create() : null;
            var interrupt = new KvmInterruptEvent(vm, gsi, eventFile, resampleFile, gone);
            interrupt.Assign(resample ? KvmIrqfd.Resample : 0);
            return interrupt;
        }
        catch
        {
            eventFile.Dispose();
            resampleFile?.Dispose();
            throw;
        }
    }

    /// <summary>De-assigns the input and closes the descriptors.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0) return;
        try
        {
            if (!_vm.IsClosed) Assign(KvmIrqfd.Deassign);
        }
        finally
        {
            _event.Dispose();
            _resample?.Dispose();
            _gone(this);
        }
    }

    private void Assign(uint flags)
    {
        var request = new KvmIrqfd { Fd = (uint)_event.Fd, Gsi = (uint)Gsi, Flags = flags };
        if ((flags & KvmIrqfd.Resample) != 0) request.ResampleFd = (uint)_resample!.Fd;
        _vm.Call(KvmApi.KVM_IRQFD, ref request, nameof(KvmApi.KVM_IRQFD));
    }
}
