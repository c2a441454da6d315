using ActorVmm.Actors.Host.Vm.Devices;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices;

public sealed class RestartPausesTests
{
    [Fact]
    public void Without_a_restart_there_is_none()
    {
        Assert.Null(new RestartPauses().Percentile(50));
        Assert.Equal("none", new RestartPauses().ToString());
    }

    [Fact]
    public void Percentiles_are_by_nearest_rank_over_the_latest()
    {
        var pauses = new RestartPauses();
        for (var i = 0; i < RestartPauses.Kept; i++) pauses.Add(TimeSpan.FromHours(1)); // all of them forgotten below
        for (var i = RestartPauses.Kept; i >= 1; i--) pauses.Add(TimeSpan.FromMilliseconds(i));

        Assert.Equal(TimeSpan.FromMilliseconds(8192), pauses.Percentile(50));
        Assert.Equal(TimeSpan.FromMilliseconds(16_221), pauses.Percentile(99));
        Assert.Equal("p50 8192.00 ms, p99 16221.00 ms, max 16384.00 ms", pauses.ToString());
    }
}
