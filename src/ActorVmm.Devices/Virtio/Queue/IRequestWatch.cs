namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>Hears of each request of a device, on the device's thread; it decides nothing and must not throw.</summary>
public interface IRequestWatch
{
    /// <summary>A request was handed to the device type.</summary>
    /// <param name="id">Its id from now on.</param>
    /// <param name="attempts">1, or more where a failed instance had begun it.</param>
    void Taken(RequestId id, int attempts);

    /// <summary>The answer of a request is final; the driver sees it with the next publication.</summary>
    void Answered(RequestId id);
}
