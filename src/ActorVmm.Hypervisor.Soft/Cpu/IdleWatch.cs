namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// Tells when a vCPU has idled for long enough that the memory of its translated code is worth more to the host than the time to translate
/// what is still used anew. Looks at retired instructions per span of host time and nothing else, so a guest cannot see it.
/// </summary>
internal sealed class IdleWatch
{
    /// <summary>How long a vCPU must have idled.</summary>
    public static readonly TimeSpan Span = TimeSpan.FromSeconds(5);

    /// <summary>A vCPU that retires less than this in a <see cref="Span"/> idles: less than a hundredth of its speed.</summary>
    private const ulong FewInstructions = 25_000_000;

    private readonly TimeProvider _time;
    private long _began;
    private ulong _retired;

    public IdleWatch(TimeProvider time)
    {
        _time = time;
        _began = time.GetTimestamp();
    }

    /// <summary>Asked whenever the vCPU is about to wait: true once at the end of each span in which it hardly ran.</summary>
    public bool HasIdled(ulong retired)
    {
        if (_time.GetElapsedTime(_began) < Span) return false;
        var few = retired - _retired < FewInstructions;
        (_began, _retired) = (_time.GetTimestamp(), retired);
        return few;
    }

    /// <summary>Milliseconds, at least one, until it is worth asking again.</summary>
    public int MillisecondsLeft => (int)Math.Max(1, (Span - _time.GetElapsedTime(_began)).TotalMilliseconds + 1);
}
