using Akka.Actor;
using ActorVmm.Actors.Tests.Settings;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm;

public sealed class VmTreeTests
{
    [Fact]
    public async Task The_live_actor_paths_are_the_tree_that_is_drawn()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu) { yield return cpu.ComputeForever(); }
        await using var fixture = new VmFixture();
        var vm = await fixture.StartAsync(new ScriptedHypervisor(Guest), VmFixture.Spec("vm", vcpus: 2));

        var live = new SortedSet<string>(StringComparer.Ordinal);
        Walk((ActorRefWithCell)await fixture.Host.System.ActorSelection("/user/host").ResolveOne(VmFixture.Patience), live);

        Assert.Equal(Drawn(vcpus: 2), live);
        vm.Stop();
        await vm.Completion.WaitAsync(VmFixture.Patience);
    }

    private static void Walk(ActorRefWithCell actor, SortedSet<string> into)
    {
        into.Add(actor.Path.ToStringWithoutAddress());
        foreach (var child in actor.Children) Walk((ActorRefWithCell)child, into);
    }

    /// <summary>The lines that begin with /user in the drawing, with {vm}, {a,b,c} and {0..n} written out.</summary>
    private static SortedSet<string> Drawn(int vcpus)
    {
        var page = Path.Combine(ShippedFileTests.FindUp(AppContext.BaseDirectory, "ActorVmm.sln"), "src", "ARCHITECTURE.md");
        var paths = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var line in File.ReadLines(page).Where(line => line.StartsWith("/user/", StringComparison.Ordinal)))
        {
            var path = line.Split(' ', 2)[0].Replace("{vm}", "vm", StringComparison.Ordinal);
            var open = path.IndexOf('{', StringComparison.Ordinal);
            if (open < 0)
            {
                paths.Add(path);
                continue;
            }

            var (parent, names) = (path[..(open - 1)], path[(open + 1)..^1]);
            paths.Add(parent);
            foreach (var name in names == "0..n" ? Enumerable.Range(0, vcpus).Select(id => $"{id}") : names.Split(','))
                paths.Add($"{parent}/{name}");
        }

        Assert.NotEmpty(paths);
        return paths;
    }
}
