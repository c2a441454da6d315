using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm.Vcpus;

public sealed class ExitTelemetryTests
{
    [Fact]
    public async Task One_exit_in_1024_is_traced_and_timed_while_somebody_listens_and_none_otherwise()
    {
        static IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            for (var i = 0; i < 5 * 1024; i++) yield return cpu.In(0x3FD);
            yield return cpu.HaltForever();
        }

        async Task RunAsync(string name)
        {
            await using var fixture = new VmFixture();
            await fixture.RunAsync(new ScriptedHypervisor(Guest), VmFixture.Spec(name));
        }

        var traced = new ConcurrentQueue<Activity>();
        var timed = new ConcurrentQueue<double>();
        using (var activities = new ActivityListener
        {
            ShouldListenTo = source => source.Name == ExitTelemetry.Name,
            Sample = static (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = activity => { if (activity.GetTagItem("vm") is "watched" or "alone") traced.Enqueue(activity); },
        })
        using (var meters = new MeterListener())
        {
            meters.InstrumentPublished = (instrument, listener) =>
                { if (instrument.Name == "actorvmm.exit.duration") listener.EnableMeasurementEvents(instrument); };
            meters.SetMeasurementEventCallback<double>((_, value, tags, _) =>
                { if (tags.ToArray().Any(tag => tag.Value is "watched")) timed.Enqueue(value); });
            meters.Start();
            ActivitySource.AddActivityListener(activities);
            await RunAsync("watched");
        }

        Assert.Equal(5, traced.Count);
        Assert.Equal(5, timed.Count);
        Assert.All(timed, seconds => Assert.InRange(seconds, 1e-9, 20));
        var one = traced.First();
        Assert.Equal(("serial0", "Answered", "PortRead", 0x3FDUL),
            (one.GetTagItem("device"), one.GetTagItem("outcome"), one.GetTagItem("kind"), one.GetTagItem("address")));
        await RunAsync("alone");
        Assert.Equal(5, traced.Count);
    }
}
