using ActorVmm.Backends.UserNet;
using CsCheck;
using Xunit;

namespace ActorVmm.Backends.Tests.UserNet;

public sealed class ByteRingTests
{
    [Fact]
    public void Bytes_leave_in_the_order_in_which_they_came_whatever_the_pieces() =>
        Gen.Int[0, 40_000].Array[1, 30].Select(Gen.Bool, static (sizes, held) => (sizes, held)).Sample(run =>
        {
            var budget = new BufferBudget(run.held ? 70 << 10 : 1 << 20);
            using var ring = new ByteRing(budget);
            byte next = 0, expected = 0;
            for (var i = 0; i < run.sizes.Length; i++)
            {
                var bytes = new byte[run.sizes[i]];
                for (var at = 0; at < bytes.Length; at++) bytes[at] = (byte)(next + at);
                var room = ring.Free;
                ring.Held = run.held && i % 3 == 1;
                var first = ring.First;
                var before = first.ToArray();
                var taken = ring.Write(bytes);
                Assert.Equal(Math.Min(room, bytes.Length), taken);
                Assert.True(first.Span.SequenceEqual(before)); // also where it had to grow
                next += (byte)taken;
                ring.Held = false;
                var count = ring.Count * (i % 4) / 3;
                ring.Slices(0, count, out var a, out var b);
                byte[] got = [.. a, .. b];
                Assert.True(Array.TrueForAll(got, value => value == expected++));
                ring.Consume(count);
            }
        }, iter: 200);

    [Fact]
    public void The_budget_is_given_back()
    {
        var budget = new BufferBudget(600 << 10);
        var rings = Enumerable.Range(0, 5).Select(_ => new ByteRing(budget)).ToArray();
        Assert.Equal([256 << 10, 256 << 10, 64 << 10, 8 << 10, 8 << 10], rings.Select(static ring => ring.Limit));
        foreach (var ring in rings) ring.Dispose();
        Assert.Equal(600 << 10, budget.Left);
    }
}
