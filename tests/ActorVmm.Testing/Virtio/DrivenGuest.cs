using System.Collections.Concurrent;
using ActorVmm.Devices;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Testing.Virtio;

/// <summary>
/// A guest whose code is the test itself: each access that the test makes here leaves a scripted vCPU as an exit, and comes back with its
/// answer. <see cref="Dispose"/> halts it, which ends the VM.
/// </summary>
/// <param name="window">Where the device's registers are, guest physical.</param>
public sealed class DrivenGuest(ulong window) : IBusDevice, IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(120);

    private readonly BlockingCollection<Access> _accesses = [];

    /// <summary>The guest, for a <see cref="ScriptedHypervisor"/>.</summary>
    public IEnumerator<VcpuExitKind> Play(ScriptedVcpu cpu)
    {
        foreach (var access in _accesses.GetConsumingEnumerable())
        {
            if (access.IsPort)
                yield return access.IsWrite ? cpu.Out((ushort)access.Address, access.Size, access.Value) : cpu.In((ushort)access.Address, access.Size);
            else yield return access.IsWrite ? cpu.Store(access.Address, access.Size, access.Value) : cpu.Load(access.Address, access.Size);
            access.Done.SetResult(cpu.Answer);
        }
    }

    public ulong Read(ulong offset, int size) => Make(new Access(IsWrite: false, window + offset, size, 0));

    public void Write(ulong offset, int size, ulong value) => Make(new Access(IsWrite: true, window + offset, size, value));

    /// <summary>OUT of one byte; does not wait, since it may be the last thing that this guest does.</summary>
    public void Out(ushort port, byte value) => _accesses.Add(new Access(IsWrite: true, port, 1, value) { IsPort = true });

    /// <summary>OUT, done when this returns.</summary>
    public void OutNow(ushort port, byte value) => Make(new Access(IsWrite: true, port, 1, value) { IsPort = true });

    /// <summary>IN.</summary>
    public ulong In(ushort port, int size = 1) => Make(new Access(IsWrite: false, port, size, 0) { IsPort = true });

    public void Reset() => throw new NotSupportedException("a guest has no such access");

    public void Dispose() => _accesses.CompleteAdding();

    private ulong Make(Access access)
    {
        _accesses.Add(access);
        if (!access.Done.Task.Wait(s_patience)) throw new TimeoutException($"no answer to an access to 0x{access.Address:x}");
        return access.Done.Task.Result;
    }

    private sealed record Access(bool IsWrite, ulong Address, int Size, ulong Value)
    {
        public bool IsPort { get; init; }

        public TaskCompletionSource<ulong> Done { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
