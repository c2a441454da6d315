using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Dispatch;

/// <summary>
/// The door between a vCPU's mailbox and its guest: a message kicks the vCPU out, or keeps it from going in. Nothing is lost in between,
/// and an exit costs no fence, because a kick lasts: a vCPU that has not yet seen the flag meets the kick in its next
/// <see cref="IVcpu.Run"/>.
/// </summary>
public sealed class VcpuGate
{
    private readonly Lock _kicking = new();
    private IVcpu? _vcpu;
    private int _mail;
    private long _kicks;

    /// <summary>Kicks given so far.</summary>
    public long Kicks => Volatile.Read(ref _kicks);

    /// <summary>True where a message waits that the running slice has not yet made room for.</summary>
    public bool HasMail => Volatile.Read(ref _mail) != 0;

    /// <summary>Names the vCPU to kick; null forbids further kicks (its machine is about to go).</summary>
    public void Attach(IVcpu? vcpu)
    {
        lock (_kicking) _vcpu = vcpu;
    }

    /// <summary>A message was queued. Any thread.</summary>
    /// <param name="ownThread">Told from the vCPU's own thread (by a device that ran inline): the flag is enough.</param>
    public void Ring(bool ownThread)
    {
        Interlocked.Exchange(ref _mail, 1);
        if (ownThread) return;

        // The lock keeps the vCPU's machine alive during the kick; the vCPU itself never takes it between exits.
        lock (_kicking)
        {
            if (_vcpu is null) return;
            _kicks++;
            _vcpu.Kick();
        }
    }

    /// <summary>
    /// The slice ends and the mailbox runs. Everything whose ring was seen is queued already, and the next slice's token is queued behind it;
    /// what rings from now on is seen by the next slice.
    /// </summary>
    public void EndSlice() => Interlocked.Exchange(ref _mail, 0);
}
