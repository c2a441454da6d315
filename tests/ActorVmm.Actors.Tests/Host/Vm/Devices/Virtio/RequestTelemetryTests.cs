using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Devices.Virtio.Queue;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing.Virtio;

namespace ActorVmm.Actors.Tests.Host.Vm.Devices.Virtio;

/// <summary>A trace leads from the exit that rang the doorbell to the answer of the request.</summary>
public sealed class RequestTelemetryTests : IDisposable
{
    private readonly ConcurrentQueue<Activity> _ended = new();
    private readonly ConcurrentQueue<(double Seconds, KeyValuePair<string, object?>[] Tags)> _timed = new();
    private readonly string _vm = $"vm-{Guid.NewGuid():N}";
    private readonly ActivityListener _activities;
    private readonly MeterListener _meters = new();

    public RequestTelemetryTests()
    {
        _activities = new ActivityListener
        {
            ShouldListenTo = source => source.Name == ExitTelemetry.Name,
            Sample = static (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = _ended.Enqueue,
        };
        ActivitySource.AddActivityListener(_activities);
        _meters.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Name == "actorvmm.request.duration") listener.EnableMeasurementEvents(instrument);
        };
        _meters.SetMeasurementEventCallback<double>((_, value, tags, _) => _timed.Enqueue((value, tags.ToArray())));
        _meters.Start();
    }

    public void Dispose()
    {
        _activities.Dispose();
        _meters.Dispose();
    }

    private RequestTelemetry Watch() => new(_vm, "blk0", queues: 2, wanted: queue => queue == 0);

    private Activity[] Mine => [.. _ended.Where(activity => _vm.Equals(activity.GetTagItem("vm")))];

    [Fact]
    public void A_request_that_a_sampled_exit_rang_for_is_its_child_even_where_it_ends_after_it()
    {
        var watch = Watch();
        var exit = ExitTelemetry.Begin(_vm, vcpu: 0, VcpuExitKind.MmioWrite, address: 0xd0000050);
        watch.Taken(new RequestId(0, 3, Serial: 1), attempts: 1);
        Assert.Same(exit.Activity, Activity.Current); // the exit goes on
        ExitTelemetry.End(exit, "blk0", "Answered");
        watch.Answered(new RequestId(0, 3, Serial: 1));
        Assert.Null(Activity.Current);

        Assert.Equal(["exit", "request"], Mine.Select(activity => activity.OperationName));
        var (first, second) = (Mine[0], Mine[1]);
        Assert.Equal((first.TraceId, first.SpanId), (second.TraceId, second.ParentSpanId));
        Assert.Equal(("blk0", 0), (second.GetTagItem("device"), second.GetTagItem("queue")));
        var (seconds, tags) = Assert.Single(_timed, timed => timed.Tags.Contains(new("vm", _vm)));
        Assert.InRange(seconds, 1e-9, 60);
        Assert.Contains(new("device", "blk0"), tags);
    }

    [Fact]
    public void Without_a_sampled_exit_one_request_in_1024_is_traced_by_itself()
    {
        var watch = Watch();
        for (ulong i = 1; i <= 3 * 1024; i++)
        {
            watch.Taken(new RequestId(0, 1, i), attempts: 1);
            watch.Answered(new RequestId(0, 1, i));
        }

        Assert.Equal(3, Mine.Length);
        Assert.All(Mine, activity => Assert.Equal(default, activity.ParentSpanId));
    }

    [Fact]
    public void A_request_that_a_restarted_device_begins_again_is_still_the_same()
    {
        var watch = Watch();
        var exit = ExitTelemetry.Begin(_vm, vcpu: 0, VcpuExitKind.MmioWrite, address: 0);
        watch.Taken(new RequestId(0, 3, Serial: 1), attempts: 1);
        ExitTelemetry.End(exit, "blk0", "Answered");
        watch.Taken(new RequestId(0, 3, Serial: 9), attempts: 2);
        watch.Answered(new RequestId(0, 3, Serial: 1)); // what the failed instance was told late
        Assert.Single(Mine);
        watch.Answered(new RequestId(0, 3, Serial: 9));

        Assert.Equal((2, ActivityStatusCode.Unset), (Mine[1].GetTagItem("attempts"), Mine[1].Status));
    }

    [Fact]
    public void A_request_that_a_reset_has_swallowed_is_not_timed_and_the_next_one_may_be()
    {
        var watch = Watch();
        for (ulong serial = 1; serial <= 2; serial++)
        {
            var exit = ExitTelemetry.Begin(_vm, vcpu: 0, VcpuExitKind.MmioWrite, address: 0);
            watch.Taken(new RequestId(0, 3, serial), attempts: 1);
            ExitTelemetry.End(exit, "blk0", "Answered");
        }

        watch.Answered(new RequestId(0, 3, 2));
        Assert.Single(_timed, timed => timed.Tags.Contains(new("vm", _vm)));
        Assert.Contains(_ended, activity => activity is { OperationName: "request", Status: ActivityStatusCode.Error, StatusDescription: "abandoned" });
    }

    [Fact]
    public void Queues_that_are_not_wanted_are_left_alone()
    {
        var watch = Watch();
        var exit = ExitTelemetry.Begin(_vm, vcpu: 0, VcpuExitKind.MmioWrite, address: 0);
        watch.Taken(new RequestId(1, 3, 1), attempts: 1);
        watch.Answered(new RequestId(1, 3, 1));
        ExitTelemetry.End(exit, "net0", "Answered");
        Assert.Equal(["exit"], Mine.Select(activity => activity.OperationName));
    }

    /// <summary>A guest's requests through a real machine: counted exactly, and some of them timed.</summary>
    [Fact]
    public async Task Requests_of_a_guest_are_counted_and_sampled()
    {
        const int Rounds = 2500;
        await using var vm = await RingVm.RunAsync(new SoftHypervisor(), Rounds);
        var counters = vm.Slot.Ledger.Queues[0].Counters;
        Assert.Equal(Rounds, counters.Requests);
        Assert.True(counters.BytesFromGuest > 0 && counters.BytesToGuest > 0, $"{counters.BytesFromGuest} {counters.BytesToGuest}");
        Assert.True(_timed.Count(timed => timed.Tags.Contains(new("device", "echo0"))) >= 2);
    }
}
