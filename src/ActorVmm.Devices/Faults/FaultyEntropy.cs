using ActorVmm.Devices.Virtio.Rng;

namespace ActorVmm.Devices.Faults;

/// <summary>A source of entropy that runs dry for a while where a plan says so.</summary>
/// <param name="inner">The source.</param>
/// <param name="site">Rules for it.</param>
public sealed class FaultyEntropy(IEntropySource inner, FaultSite site) : IEntropySource
{
    private ulong _dryUntil;

    /// <inheritdoc/>
    public void Fill(ulong position, Span<byte> into) => inner.Fill(position, into);

    /// <inheritdoc/>
    public ulong? ReadyAt()
    {
        if (!site.IsArmed) return null;
        var happening = new FaultEvent(Direction: null);
        foreach (var hit in site.Fire(happening))
        {
            if (!hit.First) continue;
            _dryUntil = hit.Rule.For is { } time && time < ulong.MaxValue - site.Engine.Now ? site.Engine.Now + time : ulong.MaxValue;
            site.Report(hit, happening, $"nothing to give until {_dryUntil}");
        }

        return _dryUntil > site.Engine.Now && !site.Engine.IsHealed ? _dryUntil : null;
    }
}
