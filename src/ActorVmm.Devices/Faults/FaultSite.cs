namespace ActorVmm.Devices.Faults;

/// <summary>Something that a fault may happen to.</summary>
/// <param name="Direction">As in <see cref="FaultRule.Direction"/>; null where there is none.</param>
/// <param name="First">First sector, or register offset.</param>
/// <param name="Count">Sectors, or 1.</param>
/// <param name="Queue">Queue; -1 where there is none.</param>
/// <param name="Point">Crash point; null elsewhere.</param>
/// <param name="Retry">It belongs to an access that is tried once more.</param>
public readonly record struct FaultEvent(
    string? Direction, ulong First = 0, ulong Count = 1, int Queue = -1, string? Point = null, bool Retry = false);

/// <summary>One firing of one rule. Whoever acts on it says what came of it by <see cref="FaultSite.Report"/>.</summary>
/// <param name="Rule">The rule.</param>
/// <param name="Request">Which event of its rule this was, from 1.</param>
/// <param name="Draw">64 bits of the rule's own stream, for what is left to chance.</param>
/// <param name="First">It is the firing itself, and not what a lasting fault does afterwards.</param>
public readonly record struct FaultHit(FaultRule Rule, ulong Request, ulong Draw, bool First);

/// <summary>
/// Where faults of one family meet one device. Called on the device's own thread only; rules are added from any. A site without rules costs
/// its owner one look at <see cref="IsArmed"/>.
/// </summary>
public sealed class FaultSite
{
    private readonly FaultEngine _engine;
    private readonly List<FaultHit> _hits = [];
    private volatile RuleState[] _rules = [];

    internal FaultSite(FaultEngine engine, FaultFamily family, string device)
    {
        _engine = engine;
        Family = family;
        Device = device;
    }

    public FaultFamily Family { get; }

    public string Device { get; }

    /// <summary>True where any rule is for this site.</summary>
    public bool IsArmed => _rules.Length > 0;

    /// <summary>Called, once and from any thread, when the site gets its first rule; at once where it has one.</summary>
    public void OnArmed(Action armed) => _engine.OnArmed(this, armed);

    /// <summary>The engine that the site belongs to.</summary>
    public FaultEngine Engine => _engine;

    /// <summary>Something happens here: which rules fire. The answer holds until the next call.</summary>
    public IReadOnlyList<FaultHit> Fire(in FaultEvent happening)
    {
        _hits.Clear();
        var rules = _rules;
        if (rules.Length == 0 || _engine.IsHealed) return _hits;
        var now = _engine.Now;
        foreach (var rule in rules)
        {
            if (rule.Meets(happening, now, _engine) is { } hit) _hits.Add(hit);
        }

        return _hits;
    }

    /// <summary>True where there is a rule of this kind.</summary>
    public bool Has(FaultKind kind)
    {
        foreach (var rule in _rules)
            if (rule.Rule.Kind == kind) return true;
        return false;
    }

    /// <summary>True where a rule of this kind lasts now (a disk that is full, a line that is slow).</summary>
    public bool Lasts(FaultKind kind)
    {
        if (_engine.IsHealed) return false;
        var now = _engine.Now;
        foreach (var rule in _rules)
        {
            if (rule.Rule.Kind == kind && now < rule.LastsUntil) return true;
        }

        return false;
    }

    /// <summary>Writes what came of a firing into the trace.</summary>
    public void Report(in FaultHit hit, in FaultEvent happening, string outcome) =>
        _engine.Report(hit.Rule, Device, hit.Request, happening, outcome);

    internal void Add(FaultRule rule) => _rules = [.. _rules, new RuleState(rule, _engine, Device)];
}

/// <summary>How far one rule has come at one device.</summary>
internal sealed class RuleState(FaultRule rule, FaultEngine engine, string device)
{
    private readonly FaultStream _stream = new(engine.Plan.Seed, $"{device}/{rule.Name}");
    private ulong _seen;
    private ulong _fired;
    private ulong _notBefore;

    public FaultRule Rule { get; } = rule;

    /// <summary>Machine time at which what it began ends.</summary>
    public ulong LastsUntil { get; private set; }

    public FaultHit? Meets(in FaultEvent happening, ulong now, FaultEngine owner)
    {
        if (!Fits(happening)) return null;
        if (now < LastsUntil) return new FaultHit(Rule, _seen, _stream.Next(), First: false);
        if (!IsTime(now, owner)) return null;
        _seen++;
        if (!Counts() || !_stream.Chance(Rule.Probability)) return null;
        _fired++;
        if (Rule.Period is { } period) _notBefore = now - (now - Begin(owner)) % period + period;
        if ((Rule.For ?? LastsForGood) is { } lasting) LastsUntil = lasting > ulong.MaxValue - now ? ulong.MaxValue : now + lasting;
        return new FaultHit(Rule, _seen, _stream.Next(), First: true);
    }

    /// <summary>A disk that is full stays so, unless the rule says for how long.</summary>
    private ulong? LastsForGood => Rule.Kind == FaultKind.BlockDiskFull ? ulong.MaxValue : null;

    private ulong Begin(FaultEngine owner) => owner.SeenAt(Rule.AfterConsole) is { } seen ? Add(seen, Rule.From) : ulong.MaxValue;

    private bool IsTime(ulong now, FaultEngine owner)
    {
        if (_fired >= (Rule.Times ?? (Rule is { Nth: not null, Every: null } ? 1 : ulong.MaxValue))) return false;
        if (owner.SeenAt(Rule.AfterConsole) is not { } seen) return false;
        return now >= Add(seen, Rule.From) && now < Add(seen, Rule.Until) && now >= _notBefore;
    }

    /// <summary>QueueNotify of a virtio device (virtio 1.2 §4.2.2).</summary>
    private const ulong Doorbell = 0x50;

    private bool Fits(in FaultEvent happening)
    {
        if (FaultKinds.DirectionOf(Rule.Kind) is { } only && !string.Equals(only, happening.Direction, StringComparison.Ordinal)) return false;
        if (Rule.SpareRetry && happening.Retry) return false;
        if (Rule is { Kind: FaultKind.DoorbellLost, First: null } && happening.First != Doorbell) return false;
        if (Rule.Point is { } point && !string.Equals(point, happening.Point, StringComparison.Ordinal)) return false;
        // A crash without a point happens where a message arrives, and not at each of the places that it passes.
        if (Rule.Point is null && happening.Point is { } at && !string.Equals(at, FaultPoints.Entered, StringComparison.Ordinal)) return false;
        if (Rule.Queue is { } queue && queue != happening.Queue) return false;
        if (Rule.Direction is { } direction && !string.Equals(direction, happening.Direction, StringComparison.Ordinal)) return false;
        if (Rule.First is { } first && (happening.Count == 0 || happening.First + (happening.Count - 1) < first)) return false;
        return Rule.Last is not { } last || (happening.Count > 0 && happening.First <= last);
    }

    private bool Counts()
    {
        if (Rule.Every is { } every) return _seen >= (Rule.Nth ?? every) && (_seen - (Rule.Nth ?? every)) % every == 0;
        return Rule.Nth is not { } nth || _seen >= nth;
    }

    private static ulong Add(ulong time, ulong more) => more > ulong.MaxValue - time ? ulong.MaxValue : time + more;
}
