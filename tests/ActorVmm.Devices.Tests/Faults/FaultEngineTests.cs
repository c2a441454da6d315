using ActorVmm.Devices.Faults;
using ActorVmm.Testing.Devices;
using Xunit;

namespace ActorVmm.Devices.Tests.Faults;

/// <summary>What, where, when and how long: the plan engine by itself.</summary>
public sealed class FaultEngineTests
{
    private readonly ManualClock _clock = new();
    private readonly RecordingTrace _trace = new();

    private static FaultRule Rule(FaultKind kind = FaultKind.BlockEio) => new() { Kind = kind, Name = "r" };

    private FaultSite Site(params FaultRule[] rules) =>
        new FaultEngine(new FaultPlan(1, rules), _clock, _trace).Site(FaultFamily.Disk, "blk0");

    /// <summary>The numbers, from 1, of those of <paramref name="events"/> events at which the rule fired.</summary>
    private static int[] Fired(FaultSite site, int events, FaultEvent? happening = null) =>
        [.. Enumerable.Range(1, events).Where(_ => site.Fire(happening ?? new FaultEvent("write")).Count > 0)];

    [Fact]
    public void Nothing_fires_where_nothing_is_planned()
    {
        var site = Site();
        Assert.False(site.IsArmed);
        Assert.Empty(Fired(site, 100));
    }

    [Fact]
    public void The_nth_event_is_hit_and_no_other() => Assert.Equal([3], Fired(Site(Rule() with { Nth = 3 }), 10));

    [Fact]
    public void Every_nth_event_is_hit() => Assert.Equal([4, 8], Fired(Site(Rule() with { Every = 4 }), 11));

    [Fact]
    public void Every_nth_begins_where_it_is_told_and_ends_after_so_many_times() =>
        Assert.Equal([2, 5, 8], Fired(Site(Rule() with { Nth = 2, Every = 3, Times = 3 }), 30));

    [Fact]
    public void Only_events_that_match_are_counted()
    {
        var site = Site(Rule() with { Nth = 2, Direction = "write", First = 100, Last = 199, Queue = 1 });
        Assert.Empty(Fired(site, 5, new FaultEvent("read", 100, 8, 1)));
        Assert.Empty(Fired(site, 5, new FaultEvent("write", 200, 8, 1)));
        Assert.Empty(Fired(site, 5, new FaultEvent("write", 92, 8, 1)));
        Assert.Empty(Fired(site, 5, new FaultEvent("write", 100, 8, 0)));
        Assert.Equal([2], Fired(site, 3, new FaultEvent("write", 93, 8, 1))); // its last sector is 100
    }

    [Fact]
    public void A_chance_is_the_same_chance_for_the_same_seed_and_path()
    {
        var half = Rule() with { Probability = 0.5 };
        var first = Fired(Site(half), 1000);
        Assert.InRange(first.Length, 400, 600);
        Assert.Equal(first, Fired(Site(half), 1000));
        Assert.Equal(first, Fired(Site(Rule() with { Name = "another", Probability = 0.9, Direction = "flush" }, half), 1000)); // what others draw changes nothing
        Assert.NotEqual(first, Fired(new FaultEngine(new FaultPlan(2, [half]), _clock).Site(FaultFamily.Disk, "blk0"), 1000));
        Assert.NotEqual(first, Fired(new FaultEngine(new FaultPlan(1, [half]), _clock).Site(FaultFamily.Disk, "blk1"), 1000));
    }

    [Fact]
    public void Machine_time_opens_and_closes_the_window()
    {
        var site = Site(Rule() with { From = 100, Until = 200 });
        Assert.Empty(Fired(site, 1));
        _clock.Nanoseconds = 100;
        Assert.Single(Fired(site, 1));
        _clock.Nanoseconds = 200;
        Assert.Empty(Fired(site, 1));
    }

    [Fact]
    public void A_period_has_one_firing()
    {
        var site = Site(Rule() with { From = 50, Period = 100 });
        var at = new List<ulong>();
        for (_clock.Nanoseconds = 0; _clock.Nanoseconds < 400; _clock.Nanoseconds += 10)
            if (site.Fire(new FaultEvent("write")).Count > 0) at.Add(_clock.Nanoseconds);
        Assert.Equal([50, 150, 250, 350], at);
    }

    [Fact]
    public void What_the_guest_prints_starts_the_rule_however_the_text_is_cut()
    {
        var engine = new FaultEngine(new FaultPlan(1, [Rule() with { AfterConsole = "ready", From = 10 }]), _clock);
        var site = engine.Site(FaultFamily.Disk, "blk0");
        engine.Printed("not yet rea"u8);
        Assert.Empty(Fired(site, 3));
        _clock.Nanoseconds = 1000;
        engine.Printed("dy\n"u8);
        Assert.Empty(Fired(site, 3));
        _clock.Nanoseconds = 1010;
        Assert.Single(Fired(site, 1));
    }

    [Fact]
    public void What_lasts_hits_every_event_until_it_ends()
    {
        var site = Site(Rule(FaultKind.BlockDiskFull) with { Nth = 2, For = 100 });
        Assert.Equal([2, 3, 4], Fired(site, 4));
        Assert.True(site.Lasts(FaultKind.BlockDiskFull));
        _clock.Nanoseconds = 100;
        Assert.Empty(Fired(site, 4));
        Assert.False(site.Lasts(FaultKind.BlockDiskFull));
    }

    [Fact]
    public void Healing_ends_everything()
    {
        var engine = new FaultEngine(new FaultPlan(1, [Rule()]) { HealAfterConsole = "done" }, _clock, _trace);
        var site = engine.Site(FaultFamily.Disk, "blk0");
        Assert.Single(Fired(site, 1));
        engine.Printed("done"u8);
        Assert.Empty(Fired(site, 10));
        Assert.Equal(0UL, Assert.Single(_trace.Heals));
    }

    [Fact]
    public void A_rule_may_come_at_run_time()
    {
        var engine = new FaultEngine(FaultPlan.None, _clock);
        var site = engine.Site(FaultFamily.Disk, "blk0");
        var armed = 0;
        site.OnArmed(() => armed++);
        Assert.Equal(0, armed);
        engine.Add(Rule() with { Device = "blk1" });
        Assert.Equal(0, armed);
        engine.Add(Rule() with { Device = "blk0", Times = 1 });
        engine.Add(Rule() with { Name = "s", Times = 1 });
        Assert.Equal(1, armed);
        Assert.Equal([1], Fired(site, 3));
    }

    [Fact]
    public void Each_firing_is_one_line_of_json_and_the_same_one_each_time()
    {
        var site = Site(Rule() with { Nth = 2 });
        _clock.Nanoseconds = 42;
        var happening = new FaultEvent("write", 2048, 8, 0);
        _ = site.Fire(happening);
        foreach (var hit in site.Fire(happening)) site.Report(hit, happening, "answered IoError");

        Assert.Equal(
            """{"n":1,"t":42,"device":"blk0","rule":"r","fault":"block-eio","request":2,"direction":"write","queue":0,"at":2048,"outcome":"answered IoError"}""",
            FaultTraceLine.Of(Assert.Single(_trace.Firings)));
    }

    [Fact]
    public void Every_kind_has_a_name_that_leads_back_to_it()
    {
        foreach (var kind in FaultKinds.All)
        {
            Assert.True(FaultKinds.TryParse(FaultKinds.NameOf(kind), out var back));
            Assert.Equal(kind, back);
            Assert.Matches("^[a-z]+(-[a-z]+)+$", FaultKinds.NameOf(kind));
        }

        Assert.False(FaultKinds.TryParse("block-nothing", out _));
    }

    [Theory]
    [InlineData("nth")]
    [InlineData("probability")]
    [InlineData("until")]
    [InlineData("delay")]
    [InlineData("for")]
    [InlineData("factor")]
    [InlineData("gsi")]
    [InlineData("point")]
    [InlineData("every")]
    public void A_rule_that_makes_no_sense_is_refused_by_its_key(string key)
    {
        var wrong = key switch
        {
            "nth" => Rule() with { Nth = 0 },
            "probability" => Rule() with { Probability = 1.5 },
            "until" => Rule() with { From = 5, Until = 5 },
            "delay" => Rule(FaultKind.BlockLatency),
            "for" => Rule(FaultKind.MailboxStall),
            "factor" => Rule(FaultKind.VcpuSlow) with { For = 1 },
            "gsi" => Rule(FaultKind.IrqSpurious) with { Gsi = 24 },
            "point" => Rule(FaultKind.ActorCrash) with { Point = "somewhere" },
            _ => Rule(FaultKind.HostKill) with { Every = 2 }, // fired by the clock: there is nothing to count
        };
        Assert.Equal(key, wrong.Problem()?.Key);
        Assert.Null(Rule().Problem());
    }

    internal sealed class RecordingTrace : IFaultTrace
    {
        public List<FaultFiring> Firings { get; } = [];
        public List<ulong> Heals { get; } = [];
        public void Fired(FaultFiring firing) => Firings.Add(firing);
        public void Healed(ulong nanoseconds) => Heals.Add(nanoseconds);
    }
}
