using ActorVmm.Backends.Polling;
using Xunit;

namespace ActorVmm.Backends.Tests.Polling;

public sealed class EventPollerTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(90);

    private readonly EventPoller _poller;
    private readonly List<int> _events = [];
    private Thread? _thread;
    private int _starts;

    public EventPollerTests() => _poller = new EventPoller(loop =>
    {
        _starts++;
        _thread = new Thread(() => loop()) { IsBackground = true };
        _thread.Start();
    });

    public void Dispose()
    {
        _poller.Dispose();
        foreach (var descriptor in _events) _ = EpollNative.Close(descriptor);
    }

    [Fact]
    public void Without_a_watch_there_is_no_thread()
    {
        _poller.Dispose();
        Assert.Equal(0, _starts);
    }

    [Fact]
    public void Each_ring_is_reported_although_nobody_reads_the_descriptor()
    {
        using var rung = new SemaphoreSlim(0);
        var descriptor = Event();
        using var watch = _poller.Watch(descriptor, () => rung.Release());
        for (var i = 0; i < 1_000; i++)
        {
            EpollNative.Ring(descriptor);
            Assert.True(rung.Wait(s_patience));
        }

        Assert.Equal(1_000, _poller.Events);
        Assert.Equal(0, rung.CurrentCount);
        Assert.Equal(1, _starts);
    }

    [Fact]
    public void Descriptors_are_told_apart_and_one_that_is_no_longer_watched_is_silent()
    {
        using var last = new SemaphoreSlim(0);
        int[] counts = new int[3];
        var descriptors = counts.Select(_ => Event()).ToArray();
        var watches = descriptors.Select((descriptor, index) => _poller.Watch(descriptor, () =>
        {
            counts[index]++;
            if (index == 2) last.Release();
        })).ToArray();
        Assert.Equal(3, _poller.Watches);
        watches[1].Dispose();
        watches[1].Dispose(); // again is nothing
        Assert.Equal(2, _poller.Watches);
        foreach (var descriptor in descriptors)
        {
            EpollNative.Ring(descriptor);
        }

        Assert.True(last.Wait(s_patience));
        EpollNative.Ring(descriptors[2]); // a round trip later the first has been reported too
        Assert.True(last.Wait(s_patience));
        Assert.Equal((1, 0, 2), (counts[0], counts[1], counts[2]));
        watches[0].Dispose();
        watches[2].Dispose();
    }

    [Fact]
    public void What_happened_before_the_watch_is_reported_as_well()
    {
        using var rung = new SemaphoreSlim(0);
        var descriptor = Event();
        EpollNative.Ring(descriptor);
        using var watch = _poller.Watch(descriptor, () => rung.Release());
        Assert.True(rung.Wait(s_patience));
    }

    [Fact]
    public void Its_end_ends_the_thread_and_refuses_new_watches()
    {
        var descriptor = Event();
        using var watch = _poller.Watch(descriptor, static () => { });
        _poller.Dispose();
        _poller.Dispose();
        Assert.True(_thread!.Join(s_patience));
        Assert.Throws<ObjectDisposedException>(() => _poller.Watch(descriptor, static () => { }));
    }

    [Fact]
    public void A_descriptor_that_cannot_be_watched_is_refused()
    {
        var refusal = Assert.Throws<InvalidOperationException>(() => _poller.Watch(-1, static () => { }));
        Assert.StartsWith("epoll_ctl: ", refusal.Message, StringComparison.Ordinal);
        Assert.Equal(0, _poller.Watches);
    }

    private int Event()
    {
        var descriptor = EpollNative.CreateEvent();
        Assert.True(descriptor >= 0);
        _events.Add(descriptor);
        return descriptor;
    }
}
