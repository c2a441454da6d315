using System.Diagnostics;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Devices.Virtio.Queue;

namespace ActorVmm.Actors.Host.Vm.Devices.Virtio;

/// <summary>
/// Latency and traces of virtio requests, by sample: the first request that is begun within a sampled exit, so that its trace leads from
/// the doorbell to the answer, and besides one in 1024, because under KVM doorbells are no exits. A request that a restarted device begins
/// again is still the same. One sample per queue at a time; all other requests pay for one look at whether anybody listens.
/// </summary>
internal sealed class RequestTelemetry : IRequestWatch
{
    private readonly string _vm;
    private readonly string _device;
    private readonly Queue[] _queues;

    /// <param name="vm">Name of the VM.</param>
    /// <param name="device">Actor name of the device.</param>
    /// <param name="queues">Number of its queues.</param>
    /// <param name="wanted">Which of them are sampled.</param>
    public RequestTelemetry(string vm, string device, int queues, Func<int, bool> wanted)
    {
        (_vm, _device) = (vm, device);
        _queues = new Queue[queues];
        for (var i = 0; i < queues; i++) _queues[i].IsSampled = wanted(i);
    }

    /// <inheritdoc/>
    public void Taken(RequestId id, int attempts)
    {
        ref var queue = ref _queues[id.Queue];
        if (queue.Serial != 0 && queue.Head == id.Head) Meet(ref queue, id, attempts);
        if (!ExitTelemetry.AreRequestsWatched || !queue.IsSampled) return;
        var numbered = (++queue.Count & ExitTelemetry.SampleMask) == 0;
        if (queue.Serial != 0) return;
        var exit = ExitTelemetry.CurrentExit;
        if (exit is null && !numbered) return;
        (queue.Serial, queue.Head, queue.Began) = (id.Serial, id.Head, Stopwatch.GetTimestamp());
        queue.Activity = ExitTelemetry.BeginRequest(exit);
    }

    /// <inheritdoc/>
    public void Answered(RequestId id)
    {
        ref var queue = ref _queues[id.Queue];
        if (queue.Serial == 0 || queue.Serial != id.Serial || queue.Head != id.Head) return;
        queue.Serial = 0;
        ExitTelemetry.EndRequest(queue.Activity, Stopwatch.GetElapsedTime(queue.Began), _vm, _device, id.Queue);
        queue.Activity = null;
    }

    /// <summary>The sampled descriptor is handed out again: the same request once more, or another after a reset.</summary>
    private static void Meet(ref Queue queue, RequestId id, int attempts)
    {
        if (attempts > 1)
        {
            queue.Serial = id.Serial;
            queue.Activity?.SetTag("attempts", attempts);
            return;
        }

        queue.Serial = 0;
        ExitTelemetry.AbandonRequest(queue.Activity);
        queue.Activity = null;
    }

    private struct Queue
    {
        public ulong Serial; // 0: nothing is being timed
        public ushort Head;
        public long Began;
        public long Count;
        public bool IsSampled;
        public Activity? Activity;
    }
}
