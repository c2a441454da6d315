namespace ActorVmm.Devices.Faults;

/// <summary>One line of a trace.</summary>
/// <param name="Number">From 1, in the order of the firings.</param>
/// <param name="Nanoseconds">Machine time.</param>
/// <param name="Device">Where.</param>
/// <param name="Rule">The rule's name.</param>
/// <param name="Kind">What.</param>
/// <param name="Request">Which event of its rule, from 1.</param>
/// <param name="Happening">What it happened to.</param>
/// <param name="Outcome">What came of it.</param>
public sealed record FaultFiring(
    ulong Number, ulong Nanoseconds, string Device, string Rule, FaultKind Kind, ulong Request, FaultEvent Happening, string Outcome);

/// <summary>Where firings are written. Any thread, one at a time.</summary>
public interface IFaultTrace
{
    void Fired(FaultFiring firing);

    /// <summary>From this machine time on nothing fires any more.</summary>
    void Healed(ulong nanoseconds) { }
}

/// <summary>
/// A fault plan at work in one VM: the sites at which its rules are asked, what the console has shown, and the trace. Pure: it knows no
/// actor, file or thread. With <see cref="FaultPlan.None"/> it is all there and does nothing, so that faults can be injected at run time.
/// </summary>
/// <param name="plan">What shall go wrong.</param>
/// <param name="clock">Machine time.</param>
/// <param name="trace">Takes each firing; null for none.</param>
public sealed class FaultEngine(FaultPlan plan, IClock clock, IFaultTrace? trace = null)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<(FaultFamily, string), FaultSite> _sites = [];
    private readonly List<FaultRule> _rules = [.. plan.Rules];
    private readonly Dictionary<FaultSite, List<Action>> _armed = [];
    private readonly Dictionary<string, ulong> _seen = new(StringComparer.Ordinal);
    private volatile PatternWatch[] _watches = [.. plan.Rules.Select(static rule => rule.AfterConsole).Append(plan.HealAfterConsole).OfType<string>()
        .Distinct(StringComparer.Ordinal).Select(static pattern => new PatternWatch(pattern))];
    private volatile bool _healed;
    private ulong _firings;

    /// <summary>What was asked for at first.</summary>
    public FaultPlan Plan { get; } = plan;

    /// <summary>Machine time in nanoseconds.</summary>
    public ulong Now => clock.Nanoseconds;

    /// <summary>True once <see cref="Heal"/> was called.</summary>
    public bool IsHealed => _healed;

    /// <summary>Firings so far. Any thread.</summary>
    public ulong Firings => Volatile.Read(ref _firings);

    /// <summary>Every rule, those injected later included. Any thread.</summary>
    public IReadOnlyList<FaultRule> Rules
    {
        get { lock (_lock) return [.. _rules]; }
    }

    /// <summary>Called when a rule is added. Any thread.</summary>
    public event Action<FaultRule>? Added;

    /// <summary>Called on the console's thread when a text has been seen that something waits for.</summary>
    public event Action? Seen;

    /// <summary>Called once by <see cref="Heal"/>. Any thread.</summary>
    public event Action? Healed;

    /// <summary>The place where faults of a family meet a device; the same object each time.</summary>
    public FaultSite Site(FaultFamily family, string device)
    {
        lock (_lock)
        {
            if (_sites.TryGetValue((family, device), out var known)) return known;
            var site = new FaultSite(this, family, device);
            _sites.Add((family, device), site);
            foreach (var rule in _rules)
                if (IsFor(rule, site)) site.Add(rule);
            return site;
        }
    }

    /// <summary>One more rule, at run time. Any thread.</summary>
    public void Add(FaultRule rule)
    {
        ArgumentNullException.ThrowIfNull(rule);
        List<Action> armed = [];
        lock (_lock)
        {
            _rules.Add(rule);
            if (rule.AfterConsole is { } pattern && !_watches.Any(watch => string.Equals(watch.Pattern, pattern, StringComparison.Ordinal)))
                _watches = [.. _watches, new PatternWatch(pattern)];
            foreach (var site in _sites.Values.Where(site => IsFor(rule, site)))
            {
                site.Add(rule);
                if (_armed.Remove(site, out var actions)) armed.AddRange(actions);
            }
        }

        foreach (var action in armed) action();
        Added?.Invoke(rule);
    }

    /// <summary>Nothing fires any more, and what lasts ends: the guest must recover from here. Any thread.</summary>
    public void Heal()
    {
        lock (_lock)
        {
            if (_healed) return;
            _healed = true;
            trace?.Healed(Now);
        }

        Healed?.Invoke();
    }

    /// <summary>The guest has printed something. On the console's thread.</summary>
    public void Printed(ReadOnlySpan<byte> bytes)
    {
        foreach (var watch in _watches)
        {
            if (!watch.Sees(bytes)) continue;
            lock (_lock) _seen.TryAdd(watch.Pattern, Now);
            if (string.Equals(watch.Pattern, Plan.HealAfterConsole, StringComparison.Ordinal)) Heal();
            Seen?.Invoke();
        }
    }

    /// <summary>Whether anything waits for the console.</summary>
    public bool WatchesConsole => _watches.Length > 0;

    /// <summary>Machine time at which the guest printed a text; 0 for no text, null where it has not yet.</summary>
    public ulong? SeenAt(string? pattern)
    {
        if (pattern is null) return 0;
        lock (_lock) return _seen.TryGetValue(pattern, out var at) ? at : null;
    }

    /// <summary>Writes a firing into the trace.</summary>
    public void Report(FaultRule rule, string device, ulong request, in FaultEvent happening, string outcome)
    {
        ArgumentNullException.ThrowIfNull(rule);
        lock (_lock)
        {
            _firings++;
            trace?.Fired(new FaultFiring(_firings, Now, device, rule.Name, rule.Kind, request, happening, outcome));
        }
    }

    internal void OnArmed(FaultSite site, Action armed)
    {
        lock (_lock)
        {
            if (!site.IsArmed)
            {
                if (!_armed.TryGetValue(site, out var waiting)) _armed.Add(site, waiting = []);
                waiting.Add(armed);
                return;
            }
        }

        armed();
    }

    private static bool IsFor(FaultRule rule, FaultSite site) =>
        !rule.IsTimed && FaultKinds.FamilyOf(rule.Kind) == site.Family
        && (rule.Device is FaultRule.AnyDevice || string.Equals(rule.Device, site.Device, StringComparison.Ordinal));

    /// <summary>Looks for one text in what the guest prints, wherever it is cut.</summary>
    private sealed class PatternWatch(string pattern)
    {
        private readonly byte[] _bytes = System.Text.Encoding.UTF8.GetBytes(pattern);
        private readonly List<byte> _tail = [];
        private bool _seen;

        public string Pattern { get; } = pattern;

        public bool Sees(ReadOnlySpan<byte> bytes)
        {
            if (_seen) return false;
            _tail.AddRange(bytes);
            var all = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_tail);
            _seen = all.IndexOf(_bytes) >= 0;
            var surplus = _tail.Count - (_bytes.Length - 1);
            if (surplus > 0) _tail.RemoveRange(0, surplus);
            return _seen;
        }
    }
}
