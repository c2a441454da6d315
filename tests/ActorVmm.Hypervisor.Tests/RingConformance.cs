using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>
/// A guest's own code drives a virtqueue of a device in its actor: the same requests, answers and interrupts under each hypervisor. Where
/// the hypervisor has doorbells, the notification does not leave the guest as an exit.
/// </summary>
public abstract class RingConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    private static readonly int s_rounds = (int)Nightly.Count(300, 100_000);

    // With the ten points: 300 crashes and 12,000.
    private static readonly int s_crashRounds = (int)Nightly.Count(300, 12_000);

    /// <summary>True where notifications end in an event file descriptor.</summary>
    protected abstract bool HasDoorbells { get; }

    [SkippableFact]
    public async Task Each_request_is_answered_and_interrupts_once()
    {
        Needs();
        await using var vm = await RingVm.RunAsync(Subject.Hypervisor, s_rounds);
        Assert.Equal([(ulong)s_rounds, (ulong)s_rounds], vm.Reports);
        AssertNotified(vm);
    }

    [SkippableFact]
    public async Task A_guest_that_polls_gets_its_answers_without_interrupts()
    {
        Needs();
        await using var vm = await RingVm.RunAsync(Subject.Hypervisor, s_rounds, polls: true);
        Assert.Equal([(ulong)s_rounds, 0UL], vm.Reports);
        AssertNotified(vm);
    }

    [SkippableTheory, MemberData(nameof(RingCrashPoints.All), MemberType = typeof(RingCrashPoints))]
    public async Task A_device_that_crashes_again_and_again_is_not_noticed(CrashPoint point)
    {
        Needs();
        const int Every = 10;
        var crash = new CrashEvery(point, Every);
        await using var vm = await RingVm.RunAsync(Subject.Hypervisor, s_crashRounds, hook: crash);
        Assert.Equal((ulong)s_crashRounds, vm.Reports[0]);
        Assert.InRange(vm.Reports[1], (ulong)s_crashRounds, (ulong)(s_crashRounds + crash.Crashes)); // an interrupt in doubt is raised again
        Assert.True(crash.Crashes >= s_crashRounds / Every, $"{crash.Crashes} crashes");
        Assert.Equal(crash.Crashes, vm.Slot.Base.Restarts);
    }

    private void AssertNotified(RingVm vm)
    {
        Assert.Contains($"doorbells = {(HasDoorbells ? 1 : 0)}", vm.Tree, StringComparison.Ordinal);
        Assert.Contains($"notifications = {s_rounds}", vm.Tree, StringComparison.Ordinal);
        // 13 registers are written to initialize, one to acknowledge each interrupt; notifications only where there are no doorbells.
        var line = vm.Tree.Split('\n').Single(line => line.Contains("echo0 reads", StringComparison.Ordinal));
        var writes = int.Parse(line[(line.LastIndexOf(' ') + 1)..], System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(13 + (int)vm.Reports[1] + (HasDoorbells ? 0 : s_rounds), writes);
    }

    private sealed class CrashEvery(CrashPoint at, int every) : ICrashHook
    {
        private int _seen;

        public int Crashes { get; private set; }

        public void Reached(CrashPoint point, int queue, ushort head)
        {
            if (point != at || ++_seen % every != 0) return;
            Crashes++;
            throw new InvalidOperationException($"a crash at {point}");
        }
    }
}

/// <summary>The crash points that a guest must not notice.</summary>
public static class RingCrashPoints
{
    /// <summary>All but the one at which a request has crashed once already: it is then given up, which a guest notices.</summary>
    public static TheoryData<CrashPoint> All => [.. Enum.GetValues<CrashPoint>().Where(static point => point != CrashPoint.Resubmitting)];
}
