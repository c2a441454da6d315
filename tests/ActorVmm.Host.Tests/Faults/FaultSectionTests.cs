using ActorVmm.Devices.Faults;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Faults;

namespace ActorVmm.Host.Tests.Faults;

public sealed class FaultSectionTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public FaultSectionTests() => _here.Write("initramfs.cpio", "");

    public void Dispose() => _here.Dispose();

    private FaultPlan Example() => _here.Hocon(Repository.Example("faults.conf")).Faults;

    [Fact]
    public void The_example_shows_every_kind_and_every_key()
    {
        var plan = Example();
        Assert.Equal(FaultKinds.All, plan.Rules.Select(rule => rule.Kind).Distinct().Order());
        Assert.Equal((42UL, 60_000_000_000UL, "no more faults"), (plan.Seed, plan.HealAt, plan.HealAfterConsole));

        var text = string.Join('\n', Repository.Example("faults.conf").Split('\n').Where(line => !line.TrimStart().StartsWith('#')));
        foreach (var key in (string[])["kind", "name", "device", "queue", "direction", "first", "last", "point", "vcpu", "gsi", "nth", "every",
            "probability", "times", "from", "until", "after-console", "period", "for", "delay", "amount", "factor", "spare-retry"])
            Assert.Contains($" {key} = ", text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_rule_says_what_it_says()
    {
        var rule = FaultSection.ParseRule(
            "kind = block-eio, name = bad, device = blk1, queue = 2, direction = write, first = 0x10, last = 31, nth = 3, every = 4, " +
            "probability = 0.25, times = 5, from = 1.5s, until = 2m, after-console = \"it is # ready\", period = 10ms, for = 250us");
        Assert.Equal(
            new FaultRule
            {
                Kind = FaultKind.BlockEio, Name = "bad", Device = "blk1", Queue = 2, Direction = "write", First = 16, Last = 31, Nth = 3,
                Every = 4, Probability = 0.25, Times = 5, From = 1_500_000_000, Until = 120_000_000_000, AfterConsole = "it is # ready",
                Period = 10_000_000, For = 250_000,
            },
            rule);
    }

    [Fact]
    public void A_plan_that_was_written_is_read_as_the_same_plan()
    {
        var plan = Example();
        var again = _here.Hocon($"kernel.path = vmlinuz\nfaults {{\n{FaultSection.Write(plan)}}}").Faults;
        Assert.Equal(plan.Rules, again.Rules);
        Assert.Equal(plan with { Rules = [] }, again with { Rules = [] }, (left, right) =>
            (left.Seed, left.HealAt, left.HealAfterConsole) == (right.Seed, right.HealAt, right.HealAfterConsole));
    }

    [Fact]
    public void Without_the_section_nothing_goes_wrong_and_the_seed_is_the_vms()
    {
        Assert.Empty(_here.Hocon("kernel.path = vmlinuz").Faults.Rules);
        Assert.Equal(5UL, _here.Hocon("kernel.path = vmlinuz, seed = 5, faults.rules = [ { kind = net-loss } ]").Faults.Seed);
    }

    [Theory]
    [InlineData("kind = block-eoi", "did you mean block-eio?")]
    [InlineData("device = blk0", "kind: missing")]
    [InlineData("kind = block-latency", "delay: block-latency needs one")]
    [InlineData("kind = block-latency, delay = 5", "a time such as")]
    [InlineData("kind = block-eio, probability = half", "allowed is a number")]
    [InlineData("kind = block-eio, probability = 2", "allowed is more than 0, up to 1")]
    [InlineData("kind = block-eio, probabilty = 3", "did you mean probability?")]
    [InlineData("kind = actor-crash, point = nowhere", "one of entered, handled")]
    [InlineData("kind = block-torn-write, direction = read", "happens to write only")]
    [InlineData("kind = host-kill, nth = 3", "fired by the clock")]
    public void A_rule_that_makes_no_sense_is_refused_by_name(string rule, string expected)
    {
        Assert.Contains(expected, Assert.Throws<DescriptionException>(() => FaultSection.ParseRule(rule)).Message, StringComparison.Ordinal);
        Assert.Contains(expected, _here.HoconErrors($"kernel.path = vmlinuz, faults.rules = [ {{ {rule} }} ]"), StringComparison.Ordinal);
    }

    [Fact]
    public void Two_rules_of_one_name_are_refused() =>
        Assert.Contains("another rule's name",
            _here.HoconErrors("kernel.path = vmlinuz, faults.rules = [ { kind = net-loss, name = a }, { kind = net-delay, delay = 1ms, name = a } ]"),
            StringComparison.Ordinal);
}
