using System.Text;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Tests.Fleet;

/// <summary>What a console keeps: the beginning, the latest, lines counted from the end; in memory and in its file.</summary>
public sealed class ConsoleKeepingTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private static string ReadFrom(ConsoleHub hub, long position, out long lost)
    {
        var text = new StringBuilder();
        Span<byte> buffer = stackalloc byte[7];
        lost = 0;
        int count;
        while ((count = hub.Read(ref position, buffer, out var skipped)) > 0)
        {
            lost += skipped;
            text.Append(Encoding.ASCII.GetString(buffer[..count]));
        }

        return text.ToString();
    }

    [Theory]
    [InlineData(0, "")]
    [InlineData(1, "cc\n")]
    [InlineData(2, "\ncc\n")]
    [InlineData(3, "bb\n\ncc\n")]
    [InlineData(4, "a\nbb\n\ncc\n")]
    [InlineData(9, "a\nbb\n\ncc\n")]
    public void Lines_are_counted_from_the_end(long lines, string text)
    {
        var hub = new ConsoleHub(headBytes: 2, ringBytes: 64);
        hub.Write("a\nbb\n\ncc\n"u8);
        Assert.Equal(text, ReadFrom(hub, hub.LastLines(lines), out _));
    }

    [Fact]
    public void A_line_that_is_not_ended_is_a_line_and_none_is_looked_for_before_what_is_kept()
    {
        var hub = new ConsoleHub(headBytes: 0, ringBytes: 4);
        Assert.Equal(0, hub.LastLines(3));
        hub.Write("a\nbcdefg\nh"u8);
        Assert.Equal("h", ReadFrom(hub, hub.LastLines(1), out _));
        Assert.Equal("fg\nh", ReadFrom(hub, hub.LastLines(5), out var lost));
        Assert.Equal(0, lost);
    }

    /// <summary>Any lengths, any sizes of the rings: what one process has kept the next one has, and the same bytes are missing.</summary>
    [Fact]
    public async Task What_was_kept_comes_back_from_the_file_with_the_same_gap()
    {
        var random = new Random(4);
        for (var round = 0; round < 60; round++)
        {
            var (head, ring, next) = (16, random.Next(1, 40), random.Next(1, 40));
            var path = Path.Combine(_here.Path, $"{round}.console");
            var printed = Encoding.ASCII.GetBytes(string.Concat(Enumerable.Range(0, random.Next(120)).Select(_ => (char)random.Next('a', 'z'))));
            var first = new ConsoleHub(head, ring);
            await using (ConsoleFile.Open(path, first, Serilog.Core.Logger.None))
                foreach (var piece in printed.Chunk(random.Next(1, 50))) first.Write(piece);

            var second = new ConsoleHub(head, next);
            await using (ConsoleFile.Open(path, second, Serilog.Core.Logger.None)) second.Write("!"u8);
            var third = new ConsoleHub(head, next);
            await using (ConsoleFile.Open(path, third, Serilog.Core.Logger.None))
            {
                Assert.Equal(printed.Length + 1, third.Total);
                var text = ReadFrom(third, 0, out var lost);
                var whole = Encoding.ASCII.GetString(printed) + "!";
                var kept = Math.Min(head, whole.Length);
                Assert.Equal(whole.Length, text.Length + lost);
                Assert.StartsWith(whole[..Math.Min(kept, printed.Length)], text, StringComparison.Ordinal);
                Assert.EndsWith("!", text, StringComparison.Ordinal);
                Assert.EndsWith(whole[^Math.Min(text.Length, Math.Max(0, Math.Min(Math.Min(ring, next), whole.Length)))..], text,
                    StringComparison.Ordinal);
            }

            Assert.True(new FileInfo(path).Length <= 32 + head + next);
        }
    }

    [Fact]
    public async Task A_file_that_is_none_of_ours_is_begun_anew_and_one_in_use_is_left_alone()
    {
        var path = _here.Write("odd.console", "no console at all, but longer than a header");
        var hub = new ConsoleHub(headBytes: 8, ringBytes: 8);
        await using var file = ConsoleFile.Open(path, hub, Serilog.Core.Logger.None);
        Assert.Equal(0, hub.Total);
        Assert.Throws<IOException>(() => ConsoleFile.Open(path, new ConsoleHub(8, 8), Serilog.Core.Logger.None));
    }
}
