using ActorVmm.Host.Terminal;
using CsCheck;

namespace ActorVmm.Host.Tests.Terminal;

public sealed class ConsoleQueueTests
{
    private static byte[] TakeAll(ConsoleQueue queue, int step)
    {
        var all = new List<byte>();
        var room = new byte[step];
        int count;
        while ((count = queue.Take(room)) > 0)
            all.AddRange(room[..count]);
        return [.. all];
    }

    [Fact]
    public void What_is_fed_is_taken_in_order_whatever_the_pieces() =>
        Gen.Select(Gen.Byte.Array[0, 40].Array[0, 20], Gen.Int[1, 64]).Sample((pieces, step) =>
        {
            var queue = new ConsoleQueue();
            foreach (var piece in pieces)
                queue.Feed(piece);
            Assert.Equal(pieces.SelectMany(piece => piece), TakeAll(queue, step));
            Assert.Equal(0, queue.Waiting);
        });

    [Fact]
    public void The_guest_is_called_once_when_input_arrives_after_it_found_too_little()
    {
        var queue = new ConsoleQueue();
        var calls = 0;
        queue.OnAvailable(() => calls++);
        Assert.Equal(0, queue.Take(new byte[4]));
        queue.Feed("abcdef"u8);
        queue.Feed("g"u8);
        Assert.Equal(1, calls);

        Assert.Equal(4, queue.Take(new byte[4])); // got all it asked for: it comes back by itself
        queue.Feed("h"u8);
        Assert.Equal(1, calls);

        Assert.Equal(4, queue.Take(new byte[16]));
        queue.Feed("i"u8);
        Assert.Equal(2, calls);
    }

    [Fact]
    public void Input_that_came_before_the_guest_is_announced_when_it_listens()
    {
        var queue = new ConsoleQueue();
        queue.Feed("early"u8);
        var called = false;
        queue.OnAvailable(() => called = true);
        Assert.True(called);
    }

    [Fact]
    public void Held_input_waits_for_its_release()
    {
        var queue = new ConsoleQueue(held: true);
        var calls = 0;
        queue.OnAvailable(() => calls++);
        queue.Feed("x"u8);
        Assert.Equal((0, 0), (queue.Take(new byte[4]), calls));

        queue.Release();
        Assert.Equal((1, 1), (queue.Take(new byte[4]), calls));
    }

    [Fact]
    public async Task A_full_queue_makes_the_reader_wait_and_loses_nothing()
    {
        var queue = new ConsoleQueue(capacity: 64);
        var text = Enumerable.Range(0, 100_000).Select(n => (byte)n).ToArray();
        var fed = Task.Run(() =>
        {
            foreach (var piece in text.Chunk(50))
                queue.Feed(piece);
        });
        var got = new List<byte>();
        var room = new byte[16];
        while (got.Count < text.Length)
        {
            Assert.InRange(queue.Waiting, 0, 64 + 50);
            got.AddRange(room[..queue.Take(room)]);
            if (got.Count % 1000 == 0)
                await Task.Yield();
        }
        await fed.WaitAsync(TimeSpan.FromSeconds(90));
        Assert.Equal(text, got);
    }

    [Fact]
    public async Task Closing_frees_a_reader_that_waits()
    {
        var queue = new ConsoleQueue(capacity: 1);
        queue.Feed("a"u8);
        var stuck = Task.Run(() => queue.Feed("b"u8));
        queue.Close();
        await stuck.WaitAsync(TimeSpan.FromSeconds(90));
    }
}
