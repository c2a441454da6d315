using System.Text;
using ActorVmm.Host.Terminal;
using CsCheck;

namespace ActorVmm.Host.Tests.Terminal;

public sealed class EscapeKeysTests
{
    private readonly EscapeKeys _keys = new();

    private (string Guest, string Requests) Type(string typed)
    {
        var (guest, requests) = (new StringBuilder(), new StringBuilder());
        var bytes = Encoding.Latin1.GetBytes(typed);
        var room = new byte[(2 * bytes.Length) + 2];
        for (var at = 0; at < bytes.Length;)
        {
            var request = _keys.Filter(bytes.AsSpan(at), room, out var used, out var count);
            Assert.InRange(used, 1, bytes.Length - at);
            guest.Append(Encoding.Latin1.GetString(room, 0, count));
            if (request != EscapeRequest.None)
                requests.Append(request == EscapeRequest.Leave ? 'L' : 'H');
            at += used;
        }
        return (guest.ToString(), requests.ToString());
    }

    [Theory]
    [InlineData("ls\r", "ls\r", ""), InlineData("\x03\x04\x1a", "\x03\x04\x1a", ""), InlineData("\x01x", "", "L"), InlineData("\x01X", "", "L")]
    [InlineData("\x01h", "", "H"), InlineData("a\x01" + "ab", "a\x01" + "b", ""), InlineData("\x01\x01", "\x01", ""), InlineData("\x01q", "\x01q", "")]
    [InlineData("\x01\x01x", "\x01x", ""), InlineData("ab\x01hcd\x01xef", "abcdef", "HL")]
    public void Our_own_sequences_are_taken_out_and_nothing_else(string typed, string guest, string requests) =>
        Assert.Equal((guest, requests), Type(typed));

    [Fact]
    public void A_sequence_may_come_in_two_reads()
    {
        Assert.Equal(("", ""), Type("\x01"));
        Assert.Equal(("", "L"), Type("x"));
    }

    [Fact]
    public void Without_Ctrl_A_every_byte_passes() =>
        Gen.Byte.Where(b => b != EscapeKeys.Prefix).Array[0, 100].Sample(bytes =>
        {
            var text = Encoding.Latin1.GetString(bytes);
            Assert.Equal((text, ""), Type(text));
        });
}
