using Akka.Actor;
using ActorVmm.Actors.Dispatch;

namespace ActorVmm.Actors.Tests.Dispatch;

public sealed class ExitQueueTests
{
    [Fact]
    public void A_queue_gives_back_what_it_got_in_order_and_knows_how_much_it_holds()
    {
        var queue = new ExitMailbox.ExitQueue();
        Assert.False(queue.TryDequeue(out _));
        Assert.False(queue.HasMessages);

        for (var round = 0; round < 3; round++)
        {
            for (var i = 1; i <= 4; i++)
            {
                queue.Enqueue(ActorRefs.Nobody, new Envelope(i, ActorRefs.Nobody));
                Assert.Equal(i, queue.Count);
            }

            for (var i = 1; i <= 4; i++)
            {
                Assert.True(queue.HasMessages);
                Assert.True(queue.TryDequeue(out var envelope));
                Assert.Equal(i, envelope.Message);
                Assert.Same(ActorRefs.Nobody, envelope.Sender);
            }

            Assert.Equal(0, queue.Count);
            Assert.False(queue.HasMessages);
        }
    }

    [Fact]
    public void A_message_queued_behind_another_is_not_overtaken_by_a_later_one()
    {
        var queue = new ExitMailbox.ExitQueue();
        queue.Enqueue(ActorRefs.Nobody, new Envelope("first", ActorRefs.Nobody));  // in the place
        queue.Enqueue(ActorRefs.Nobody, new Envelope("second", ActorRefs.Nobody)); // behind it
        Assert.True(queue.TryDequeue(out var envelope));
        Assert.Equal("first", envelope.Message);

        queue.Enqueue(ActorRefs.Nobody, new Envelope("third", ActorRefs.Nobody)); // the place is free, but not its turn

        Assert.True(queue.TryDequeue(out envelope));
        Assert.Equal("second", envelope.Message);
        Assert.True(queue.TryDequeue(out envelope));
        Assert.Equal("third", envelope.Message);
    }

    [Fact]
    public async Task Three_senders_at_once_lose_nothing_and_each_keeps_its_order()
    {
        const int Each = 100_000;
        const int Senders = 3;
        var queue = new ExitMailbox.ExitQueue();
        var senders = Enumerable.Range(0, Senders).Select(id => Task.Factory.StartNew(
            () =>
            {
                for (var i = 1; i <= Each; i++)
                {
                    queue.Enqueue(ActorRefs.Nobody, new Envelope((id, i), ActorRefs.Nobody));
                    // Lets the reader catch up, so that the empty queue, and the way from it to a full one, is met often.
                    if (i % 8 == 0) Thread.Yield();
                }
            },
            CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)).ToArray();

        var last = new int[Senders];
        var disorder = 0;
        using var late = new CancellationTokenSource(TimeSpan.FromMinutes(1));
        for (var taken = 0; taken < Senders * Each;)
        {
            if (queue.TryDequeue(out var envelope))
            {
                var (id, number) = ((int, int))envelope.Message;
                if (number != last[id] + 1) disorder++;
                last[id] = number;
                taken++;
            }
            else if (late.IsCancellationRequested)
            {
                Assert.Fail($"lost: {taken} of {Senders * Each} came");
            }
            else
            {
                Thread.Yield();
            }
        }

        await Task.WhenAll(senders);
        Assert.Equal(0, disorder);
        Assert.False(queue.TryDequeue(out _));
    }
}
