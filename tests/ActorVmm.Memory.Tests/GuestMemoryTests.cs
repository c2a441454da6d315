using CsCheck;
using Xunit;

namespace ActorVmm.Memory.Tests;

/// <summary>Guest RAM: where it lies, that every access is bounded, and who hears of writes.</summary>
public sealed class GuestMemoryTests
{
    private const ulong Mib = 1 << 20;
    private const ulong Gap = GuestMemory.GapStart;
    private const ulong High = GuestMemory.HighStart;
    private static readonly ulong[] s_edges = [0, Gap, High, High + Mib, ulong.MaxValue];

    /// <summary>vmm-reference: RAM up to the gap is one region, more is two; nothing is refused.</summary>
    [Theory]
    [InlineData(128 * Mib, new[] { 128 * Mib - 1 })]
    [InlineData(Gap, new[] { Gap - 1 })]
    [InlineData(Gap + Mib, new[] { Gap - 1, High + Mib - 1 })]
    [InlineData(4096 * Mib, new[] { Gap - 1, High + (4096 * Mib - Gap) - 1 })]
    [InlineData(4097 * Mib, new[] { Gap - 1, High + (4097 * Mib - Gap) - 1 })]
    public void test_create_guest_memory(ulong bytes, ulong[] lastAddresses)
    {
        ArgumentNullException.ThrowIfNull(lastAddresses);
        using var memory = GuestMemory.Create(bytes);
        Assert.Equal(bytes, memory.Size);
        Assert.Equal(lastAddresses, memory.Regions.Select(region => region.Start.Value + region.Size - 1));
        foreach (var last in lastAddresses)
        {
            Assert.True(memory.TryWrite(new GuestAddress(last), (byte)0xA5));
            Assert.True(memory.TryRead(new GuestAddress(last), out byte value));
            Assert.Equal(0xA5, value);
            Assert.False(memory.TryRead(new GuestAddress(last), out ushort _)); // one byte past the end
            Assert.False(memory.TryWrite(new GuestAddress(last + 1), (byte)1));
        }
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(4095UL)]
    [InlineData(Gap + 1)]
    public void test_create_guest_memory_refuses_what_is_no_whole_number_of_pages(ulong bytes) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => GuestMemory.Create(bytes));

    [Fact]
    public void More_than_the_host_can_map_is_refused_with_its_size()
    {
        var refused = Assert.Throws<InvalidOperationException>(() => GuestMemory.Create(1UL << 60));
        Assert.Contains("MiB of guest memory", refused.Message, StringComparison.Ordinal);
    }

    /// <summary>Ring indices are read while the other side writes them: half of an old value and half of a new one would break a queue.</summary>
    [Fact]
    public async Task A_value_is_seen_whole_while_another_thread_writes_it()
    {
        using var memory = GuestMemory.Create(Mib);
        var (narrow, wide) = (new GuestAddress(2), new GuestAddress(8));
        memory.TryWrite(narrow, (ushort)0x0100);
        using var stop = new CancellationTokenSource();
        var writer = Task.Run(() =>
        {
            for (var odd = false; !stop.IsCancellationRequested; odd = !odd)
            {
                memory.TryWrite(narrow, (ushort)(odd ? 0x00FF : 0x0100));
                memory.TryWrite(wide, odd ? 0UL : ulong.MaxValue);
            }
        });

        var torn = 0;
        for (var look = 0; look < 2_000_000; look++)
        {
            memory.TryRead(narrow, out ushort word);
            memory.TryRead(wide, out ulong quad);
            if (word is not (0x00FF or 0x0100) || quad is not (0 or ulong.MaxValue)) torn++;
        }

        await stop.CancelAsync();
        await writer;
        Assert.Equal(0, torn);
    }

    [Fact]
    public void The_gap_is_no_ram_and_no_access_crosses_it()
    {
        using var memory = GuestMemory.Create(Gap + Mib);
        Assert.False(memory.Contains(new GuestAddress(Gap), 1));
        Assert.False(memory.TryRead(new GuestAddress(High - 1), out byte _));
        Assert.False(memory.TryWrite(new GuestAddress(Gap - 4), 0UL));
        Assert.True(memory.TryRead(new GuestAddress(Gap - 4), out uint before));
        Assert.Equal(0u, before); // a refused write leaves nothing behind
    }

    [Fact]
    public void A_range_is_ram_exactly_where_it_lies_in_one_region()
    {
        using var memory = GuestMemory.Create(Gap + Mib);
        var edges = Gen.Int[0, s_edges.Length - 1].Select(i => s_edges[i]);
        var near = Gen.Select(edges, Gen.Long[-9, 9], (edge, by) => unchecked(edge + (ulong)by));
        Gen.Select(Gen.OneOf(near, Gen.ULong), Gen.OneOf(Gen.Int[0, 16], Gen.Int[-2, int.MaxValue])).Sample((at, count) =>
        {
            var end = (UInt128)at + (UInt128)(uint)Math.Max(count, 0);
            var inside = count >= 0 && (end <= Gap || (at >= High && end <= High + Mib));
            Assert.Equal(inside, memory.TrySlice(new GuestAddress(at), count, out var bytes));
            Assert.Equal(inside ? count : 0, bytes.Length);
            Assert.Equal(inside, memory.TrySliceForWrite(new GuestAddress(at), count, out _));
        });
    }

    [Fact]
    public void Values_are_little_endian()
    {
        using var memory = GuestMemory.Create(Mib);
        Assert.True(memory.TryWrite(new GuestAddress(0x1000), 0x0123_4567_89AB_CDEFUL));
        Assert.True(memory.TrySlice(new GuestAddress(0x1000), 8, out var bytes));
        Assert.Equal((byte[])[0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01], bytes.ToArray());
        Assert.True(memory.TryRead(new GuestAddress(0x1001), out uint middle));
        Assert.Equal(0x6789_ABCDu, middle);
    }

    [Fact]
    public void The_observer_hears_of_each_write_that_was_made_and_of_no_other()
    {
        using var memory = GuestMemory.Create(Mib);
        var heard = new Observer();
        memory.WriteObserver = heard;
        Assert.True(memory.TryWrite(new GuestAddress(0x2000), "abc"u8));
        Assert.False(memory.TryWrite(new GuestAddress(Mib - 1), "abc"u8));
        memory.Clear();
        Assert.Equal([(0x2000UL, 3UL), (0UL, Mib)], heard.Writes);
    }

    [Fact]
    public void Clearing_gives_zeroes()
    {
        using var memory = GuestMemory.Create(Gap + Mib);
        memory.TryWrite(new GuestAddress(0x5000), ulong.MaxValue);
        memory.TryWrite(new GuestAddress(High + 0x5000), ulong.MaxValue);
        memory.Clear();
        Assert.True(memory.TryRead(new GuestAddress(0x5000), out ulong low));
        Assert.True(memory.TryRead(new GuestAddress(High + 0x5000), out ulong high));
        Assert.Equal((0UL, 0UL), (low, high));
    }

    [Fact]
    public void Memory_that_is_gone_answers_no_access()
    {
        var memory = GuestMemory.Create(Mib);
        memory.Dispose();
        memory.Dispose(); // twice is once
        Assert.False(memory.TryRead(new GuestAddress(0), out byte _));
        Assert.False(memory.TryWrite(new GuestAddress(0), (byte)1));
    }

    [Fact]
    public void Addresses_do_not_wrap()
    {
        Assert.Throws<OverflowException>(() => new GuestAddress(ulong.MaxValue) + 1);
        Assert.False(new GuestAddress(ulong.MaxValue).TryAdd(1, out _));
        Assert.True(new GuestAddress(0xFFF).TryAdd(1, out var sum));
        Assert.Equal("0x1000", sum.ToString());
        Assert.True(sum > new GuestAddress(0xFFF) && sum <= new GuestAddress(0x1000));
    }

    private sealed class Observer : IGuestWriteObserver
    {
        public List<(ulong Start, ulong Length)> Writes { get; } = [];

        public void OnWritten(GuestAddress start, ulong length) => Writes.Add((start.Value, length));
    }
}
