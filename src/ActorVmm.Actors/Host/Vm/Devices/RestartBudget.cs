using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Host.Vm.Devices;

/// <summary>How many restarts each device has left in its window.</summary>
/// <param name="settings">The limits.</param>
/// <param name="time">Where the window's time comes from; the host's clock where left out.</param>
internal sealed class RestartBudget(SupervisionSettings settings, TimeProvider? time = null)
{
    private readonly TimeProvider _time = time ?? TimeProvider.System;
    private readonly Dictionary<string, Queue<long>> _restarts = new(StringComparer.Ordinal);

    /// <summary>Takes one restart of <paramref name="device"/>; false where it has none left.</summary>
    public bool TryTake(string device)
    {
        var limits = settings.Of(device);
        if (!_restarts.TryGetValue(device, out var times)) _restarts.Add(device, times = new Queue<long>());
        while (times.TryPeek(out var oldest) && _time.GetElapsedTime(oldest) > limits.Within) times.Dequeue();
        if (times.Count >= limits.MaxRetries) return false;
        times.Enqueue(_time.GetTimestamp());
        return true;
    }

    /// <summary>A fresh budget for all.</summary>
    public void Clear() => _restarts.Clear();
}
