using System.Runtime.InteropServices;
using ActorVmm.Hypervisor;

namespace ActorVmm.Testing.Actors;

/// <summary>A doorbell with a real event file descriptor, rung by the test instead of by a kernel.</summary>
public sealed partial class ScriptedDoorbell : IDoorbell
{
    private const int NonBlocking = 0x800;
    private readonly Action<ScriptedDoorbell> _gone;

    internal ScriptedDoorbell(DoorbellAddress address, Action<ScriptedDoorbell> gone)
    {
        Address = address;
        _gone = gone;
        FileDescriptor = EventFd(0, NonBlocking);
        if (FileDescriptor < 0) throw new InvalidOperationException(Marshal.GetLastPInvokeErrorMessage());
    }

    public DoorbellAddress Address { get; }

    public int FileDescriptor { get; }

    /// <summary>The guest wrote the value that it waits for.</summary>
    public unsafe void Ring()
    {
        ulong one = 1;
        // SAFETY: eight bytes of a local.
        if (Write(FileDescriptor, &one, sizeof(ulong)) != sizeof(ulong))
            throw new InvalidOperationException(Marshal.GetLastPInvokeErrorMessage());
    }

    public void Dispose()
    {
        _gone(this);
        _ = Close(FileDescriptor);
    }

    [LibraryImport("libc", EntryPoint = "eventfd", SetLastError = true)]
    private static partial int EventFd(uint initial, int flags);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static unsafe partial nint Write(int descriptor, void* from, nuint count);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    private static partial int Close(int descriptor);
}
