using ActorVmm.Actors.Dispatch;

namespace ActorVmm.Actors.Tests.Dispatch;

public sealed class TurnTests
{
    [Fact]
    public void A_thread_that_has_moved_is_not_given_up()
    {
        var turn = new Turn();
        turn.Enter();
        var sample = turn.Sample;
        Assert.True(turn.TryLeave());
        Assert.False(turn.TryFence(sample));
        turn.End();
        turn.Enter();
        Assert.False(turn.TryFence(sample)); // inside again, but not in that turn
        Assert.True(turn.TryLeave());
    }

    [Fact]
    public void A_thread_that_was_given_up_is_told_when_it_comes_back()
    {
        var turn = new Turn();
        turn.Enter();
        Assert.True(turn.TryFence(turn.Sample));
        Assert.False(turn.TryFence(turn.Sample)); // once
        Assert.False(turn.TryLeave());
    }

    [Fact]
    public void Nobody_is_given_up_outside()
    {
        var turn = new Turn();
        Assert.False(turn.TryFence(turn.Sample));
        turn.Enter();
        Assert.True(turn.TryLeave());
        Assert.False(turn.TryFence(turn.Sample)); // what it does now is not a handler any more
    }

    /// <summary>The race that the fence is for: the thread comes back at the moment at which it is given up. Exactly one of both wins.</summary>
    [Fact]
    public void Either_the_thread_goes_on_or_the_watchdog_has_it_and_never_both()
    {
        var (stayed, fenced) = (0, 0);
        for (var round = 0; round < 3000; round++)
        {
            var turn = new Turn();
            turn.Enter();
            var sample = turn.Sample;
            using var start = new Barrier(2);
            var left = false;
            var thread = new Thread(() =>
            {
                start.SignalAndWait();
                left = turn.TryLeave();
            });
            thread.Start();
            start.SignalAndWait();
            var given = turn.TryFence(sample);
            thread.Join();

            Assert.NotEqual(given, left);
            if (given) fenced++;
            else stayed++;
        }

        Assert.Equal(3000, stayed + fenced);
    }
}
