using ActorVmm.Actors.Host;
using ActorVmm.Actors.Tests.Settings;
using Akka.Actor;

namespace ActorVmm.Actors.Tests.Host;

public sealed class VerdictsTests
{
    [Fact]
    public void The_table_in_the_sources_is_the_table_in_the_architecture()
    {
        var page = Path.Combine(ShippedFileTests.FindUp(AppContext.BaseDirectory, "ActorVmm.sln"), "src", "ARCHITECTURE.md");
        var section = File.ReadAllText(page).Split("\n## What survives a failure\n")[1].Split("\n## ")[0];
        var rows = section.Split('\n').Where(line => line.StartsWith("| ", StringComparison.Ordinal)).Skip(1).ToArray();

        Assert.Equal(Verdicts.Table.Select(row => $"| {row.Fails} | {row.Outcome} | {row.GuestSees} |"), rows);
    }

    [Fact]
    public void Each_verdict_is_the_one_of_the_table()
    {
        var any = new InvalidOperationException("any");
        Assert.Equal(Directive.Restart, Verdicts.OfDevice(any));
        Assert.Equal(Directive.Stop, Verdicts.OfDevice(new ActorKilledException("meant")));
        Assert.Equal(Directive.Stop, Verdicts.OfDevice(new ActorInitializationException("cannot be made")));
        Assert.Equal(Directive.Stop, Verdicts.OfVcpu(any));
        Assert.Equal(Directive.Stop, Verdicts.OfUnit(any));
        Assert.Equal(Directive.Stop, Verdicts.OfVm(any));
    }
}
