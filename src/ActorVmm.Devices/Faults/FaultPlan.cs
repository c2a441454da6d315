using System.Globalization;

namespace ActorVmm.Devices.Faults;

/// <summary>What shall go wrong in one VM: plain data, so that a run is repeated from it and nothing else.</summary>
/// <param name="Seed">Of everything that is drawn.</param>
/// <param name="Rules">In the order in which they are looked at.</param>
public sealed record FaultPlan(ulong Seed, IReadOnlyList<FaultRule> Rules)
{
    /// <summary>Machine time in nanoseconds at which all faults end; null: never.</summary>
    public ulong? HealAt { get; init; }

    /// <summary>What the guest prints when all faults shall end; null: nothing.</summary>
    public string? HealAfterConsole { get; init; }

    /// <summary>Nothing goes wrong.</summary>
    public static FaultPlan None { get; } = new(0, []);
}

/// <summary>
/// One thing that shall go wrong: what, where, when, for how long. Times are machine time in nanoseconds, except where the kind says host
/// time. What is left out does not restrict.
/// </summary>
public sealed record FaultRule
{
    /// <summary>Every device that the kind fits.</summary>
    public const string AnyDevice = "*";

    public required FaultKind Kind { get; init; }

    /// <summary>What the trace calls it.</summary>
    public required string Name { get; init; }

    // ---- Where.

    /// <summary>The device's name (<c>blk0</c>, <c>serial0</c>), or <see cref="AnyDevice"/>.</summary>
    public string Device { get; init; } = AnyDevice;

    /// <summary>Queue of a virtio device.</summary>
    public int? Queue { get; init; }

    /// <summary><c>read</c>, <c>write</c>, <c>flush</c>, <c>discard</c>; <c>tx</c> (from the guest) or <c>rx</c>; null for all.</summary>
    public string? Direction { get; init; }

    /// <summary>First sector (disks), register offset (handlers), guest address (memory).</summary>
    public ulong? First { get; init; }

    /// <summary>Last one, inclusive.</summary>
    public ulong? Last { get; init; }

    /// <summary>The crash point, for <see cref="FaultKind.ActorCrash"/>; one of <see cref="FaultPoints"/>, or of the virtio queue's.</summary>
    public string? Point { get; init; }

    /// <summary>
    /// For <see cref="FaultKind.ActorCrash"/>: not while an access, or a request of a virtio queue, is tried once more because the first try
    /// crashed. Several rules that wait for the same device would else meet it twice, and it is then given up.
    /// </summary>
    public bool SpareRetry { get; init; }

    /// <summary>vCPU number, for the kinds that concern one; null is vCPU 0.</summary>
    public int? Vcpu { get; init; }

    /// <summary>Interrupt input, for <see cref="FaultKind.IrqSpurious"/>.</summary>
    public int? Gsi { get; init; }

    // ---- When.

    /// <summary>The n-th event that matches, counted from 1; alone, only that one.</summary>
    public ulong? Nth { get; init; }

    /// <summary>Every n-th event that matches, from <see cref="Nth"/> on.</summary>
    public ulong? Every { get; init; }

    /// <summary>Drawn for each event that would fire: 0 to 1.</summary>
    public double Probability { get; init; } = 1;

    /// <summary>At most this often.</summary>
    public ulong? Times { get; init; }

    /// <summary>Not before.</summary>
    public ulong From { get; init; }

    /// <summary>Not at or after.</summary>
    public ulong Until { get; init; } = ulong.MaxValue;

    /// <summary>Not before the guest has printed this; <see cref="From"/>, <see cref="Until"/> and counting begin there.</summary>
    public string? AfterConsole { get; init; }

    /// <summary>At most once per period; what the clock alone fires (vCPU, clock, memory, host) fires once in each.</summary>
    public ulong? Period { get; init; }

    // ---- How long, how much.

    /// <summary>How long it lasts, for kinds that last.</summary>
    public ulong? For { get; init; }

    /// <summary>How much later, or for <see cref="FaultKind.ClockJump"/> how far.</summary>
    public ulong? Delay { get; init; }

    /// <summary>
    /// Bytes of a torn write that do happen; sectors by which a write goes astray; bytes per second of a slow line. Drawn where left out and
    /// the kind allows it.
    /// </summary>
    public ulong? Amount { get; init; }

    /// <summary>How many times slower a vCPU runs, or faster a clock: above 1.</summary>
    public double? Factor { get; init; }

    /// <summary>True where the clock alone fires it, and no event of a device.</summary>
    public bool IsTimed => FaultKinds.FamilyOf(Kind) == FaultFamily.Machine || Kind == FaultKind.NetLinkFlap;

    /// <summary>What is wrong with this rule, as key and reason; null where it is sound.</summary>
    public (string Key, string Reason)? Problem()
    {
        if (!(Probability is > 0 and <= 1)) return ("probability", "allowed is more than 0, up to 1");
        if (Nth == 0) return ("nth", "allowed is 1 or more");
        if (Every == 0) return ("every", "allowed is 1 or more");
        if (Times == 0) return ("times", "allowed is 1 or more");
        if (Period == 0) return ("period", "allowed is more than zero");
        if (Until <= From) return ("until", "must be after from");
        if (Last < First) return ("last", "must not be below first");
        if (Direction is { } direction && FaultKinds.DirectionOf(Kind) is { } only && !string.Equals(direction, only, StringComparison.Ordinal))
            return ("direction", $"{FaultKinds.NameOf(Kind)} happens to {only} only");
        if (AfterConsole is { Length: 0 or > 256 }) return ("after-console", "allowed are 1 to 256 characters");
        if (Name.Length is 0 or > 64) return ("name", "allowed are 1 to 64 characters");
        if (IsTimed && (Nth ?? Every) is not null)
            return (Nth is null ? "every" : "nth", $"{FaultKinds.NameOf(Kind)} is fired by the clock: use from, period, times");
        return KindProblem();
    }

    private (string Key, string Reason)? KindProblem() => Kind switch
    {
        FaultKind.BlockLatency or FaultKind.NetDelay or FaultKind.IrqLate or FaultKind.ActorSlow or FaultKind.ClockJump when Delay is null or 0 =>
            ("delay", $"{FaultKinds.NameOf(Kind)} needs one, more than zero"),
        FaultKind.MailboxStall or FaultKind.VcpuPause or FaultKind.NetLinkFlap when For is null or 0 =>
            ("for", $"{FaultKinds.NameOf(Kind)} needs a time, more than zero"),
        FaultKind.VcpuSlow or FaultKind.ClockDrift when !(Factor is > 1 and <= 1000) =>
            ("factor", $"{FaultKinds.NameOf(Kind)} needs one, above 1 and up to 1000"),
        FaultKind.VcpuSlow or FaultKind.ClockDrift when For is null or 0 => ("for", $"{FaultKinds.NameOf(Kind)} needs a time, more than zero"),
        FaultKind.NetBandwidth when Amount is null or 0 => ("amount", "net-bandwidth needs bytes per second, more than zero"),
        FaultKind.IrqSpurious when Gsi is null or < 0 or > 23 => ("gsi", "irq-spurious needs an interrupt input, 0 to 23"),
        FaultKind.MemoryBitFlip when First is null || Last is null => ("first", "memory-bit-flip needs first and last, guest addresses"),
        not FaultKind.ActorCrash when Point is not null => ("point", "only actor-crash has one"),
        not FaultKind.ActorCrash when SpareRetry => ("spare-retry", "only actor-crash has one"),
        FaultKind.ActorCrash when Point is not null && !FaultPoints.IsKnown(Point) =>
            ("point", $"one of {string.Join(", ", FaultPoints.All)} is expected"),
        _ => null,
    };

    /// <summary>The rule in a word, for people.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Name} ({FaultKinds.NameOf(Kind)} on {Device})");
}

/// <summary>The crash points of a device's actor; those of virtio queues stand beside them, by their own names.</summary>
public static class FaultPoints
{
    /// <summary>The message has arrived; the device has not seen it.</summary>
    public const string Entered = "entered";

    /// <summary>The device has handled the message; nothing of it is stored.</summary>
    public const string Handled = "handled";

    /// <summary>The checkpoint is stored; no effect has left.</summary>
    public const string Stored = "stored";

    /// <summary>The effects have left; the vCPU has no answer yet.</summary>
    public const string EffectsOut = "effects-out";

    /// <summary>All of them, in the order in which a message passes them; then those of virtio queues.</summary>
    public static IReadOnlyList<string> All { get; } = [Entered, Handled, Stored, EffectsOut, .. QueuePoints()];

    /// <summary>True for a name in <see cref="All"/>.</summary>
    public static bool IsKnown(string point) => All.Contains(point, StringComparer.Ordinal);

    private static IEnumerable<string> QueuePoints() =>
    [
        "resubmitting", "chain-walked", "request-marked", "request-taken", "request-done", "answer-marked", "answer-recorded",
        "elements-written", "index-published", "publication-recorded", "interrupt-decided",
    ];
}
