using ActorVmm.Host.Descriptions;
using Akka.Configuration;
using Akka.Configuration.Hocon;
using CsCheck;

namespace ActorVmm.Host.Tests.Descriptions;

public sealed class HoconTreeTests
{
    private static string Show(string text) => Show(HoconTree.Parse(text, new ErrorList("t")));

    private static string Show(Node node) => node.Kind switch
    {
        NodeKind.Object => "{" + string.Join(",", node.Members.OrderBy(m => m.Name, StringComparer.Ordinal).Select(m => m.Name + "=" + Show(m.Value))) + "}",
        NodeKind.Array => "[" + string.Join(",", node.Items.Select(Show)) + "]",
        NodeKind.Null => "null",
        _ => "'" + node.Text + "'",
    };

    private static string Error(string text) => Assert.Throws<DescriptionException>(() => Show(text)).Message;

    [Theory]
    [InlineData("", "{}"), InlineData("{}", "{}"), InlineData("# only\n// comments", "{}")]
    [InlineData("a = 1", "{a='1'}"), InlineData("a : 1", "{a='1'}"), InlineData("a { b = 1 }", "{a={b='1'}}")]
    [InlineData("a.b.c = 1", "{a={b={c='1'}}}"), InlineData("a.b = 1, a.c = 2", "{a={b='1',c='2'}}")]
    [InlineData("a { b = 1 }\na { c = 2 }", "{a={b='1',c='2'}}"), InlineData("a = 1\na = 2", "{a='2'}"), InlineData("a { b = 1 }\na = 2", "{a='2'}")]
    [InlineData("\"a.b\" = 1", "{a.b='1'}"), InlineData("a = x y  # c", "{a='x y'}"), InlineData("a = \"x # y\" // c", "{a='x # y'}")]
    [InlineData("a = \"q\\\"\\n\\u0041\"", "{a='q\"\nA'}"), InlineData("a = \"\"\"x\n\\y\"\"\"", "{a='x\n\\y'}")]
    [InlineData("a = [1, 2\n 3, [4], {b = 5}]", "{a=['1','2','3',['4'],{b='5'}]}"), InlineData("a = [ ]", "{a=[]}")]
    [InlineData("a = null, b = \"null\"", "{a=null,b='null'}"), InlineData("a = \"\"", "{a=''}")]
    [InlineData("{ \"a\" : { \"b\" : [ true, 1.5 ] } }", "{a={b=['true','1.5']}}"), InlineData("a = /boot/vmlinuz-6.1", "{a='/boot/vmlinuz-6.1'}")]
    [InlineData("a = 1\r\nb = 2\r\n", "{a='1',b='2'}")]
    public void Well_formed_text_is_read(string text, string tree) => Assert.Equal(tree, Show(text));

    [Theory]
    [InlineData("a = {", 1, 6, "is not closed"), InlineData("a {\n b = 1\n", 3, 1, "the '{' of line 1 is not closed")]
    [InlineData("a = [1, 2", 1, 10, "the '[' of line 1 is not closed"), InlineData("a = \"x", 1, 5, "a string is not closed")]
    [InlineData("a = \"\"\"x", 1, 5, "a triple-quoted string is not closed"), InlineData("a = 1 }\nb = 2", 1, 7, "'}' where a comma")]
    [InlineData("a =", 1, 4, "a value is missing")]
    [InlineData("a", 1, 1, "key 'a' has no value"), InlineData("= 1", 1, 1, "'=' where a key was expected"), InlineData("a. = 1", 1, 4, "where a key was expected")]
    [InlineData("a = ${a}", 1, 5, "substitutions"), InlineData("a = x${?HOME}", 1, 6, "substitutions"), InlineData("include \"b\"", 1, 1, "'include' is not supported")]
    [InlineData("a += 1", 1, 1, "'+=' is not supported"), InlineData("a = \"\\q\"", 1, 7, "an escape"), InlineData("a = x=y", 1, 6, "put the value in double quotes")]
    [InlineData("{ a = 1 } b = 2", 1, 11, "after the end")]
    public void Malformed_text_is_refused_with_line_and_column(string text, int line, int column, string reason)
    {
        var error = Error(text);
        Assert.StartsWith($"t:{line}:{column}: not HOCON: ", error, StringComparison.Ordinal);
        Assert.Contains(reason, error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{", "}"), InlineData("a{", "}"), InlineData("a=[", "]"), InlineData("a.", "")]
    public void Nesting_is_bounded(string open, string close)
    {
        var deep = string.Concat(Enumerable.Repeat(open, 10_000)) + "b=1" + string.Concat(Enumerable.Repeat(close, 10_000));
        Assert.Contains("not HOCON", Error(deep), StringComparison.Ordinal);
    }

    private static readonly Gen<string> Word = Any.Of("a", "b.c", "key-", "x_y");
    private static readonly Gen<string> Scalar = Any.Of("1", "true", "text", "two words", "\"quo,ted\"", "0x10", "/a/b", "\"\"", "1.5");
    private static readonly Gen<string> Space = Any.Of("", " ", "\n", " # note\n", "\t", " // note\n\n");

    private static Gen<string> Document(int depth)
    {
        var value = depth == 0
            ? Scalar
            : Gen.OneOf(Scalar, Document(depth - 1).Select(inner => "{" + inner + "\n}"), Scalar.Array[1, 3].Select(items => "[" + string.Join(", ", items) + "]"));
        // Keys differ by position: how doubled keys merge is not what is compared here.
        var field = Gen.Select(Space, Word, Any.Of("=", ":", " = "), value, (space, key, equals, text) => (Before: space + key, After: equals + text));
        return field.Array[0, 4].Select(fields => string.Join("\n", fields.Select((part, n) => part.Before + n + part.After)));
    }

    [Fact]
    public void It_agrees_with_Akkas_parser_on_well_formed_text() =>
        Document(2).Where(text => text.Trim().Length > 0).Sample(
            text => Assert.Equal(ShowAkka(ConfigurationFactory.ParseString(text).Root), Show(text)), iter: 3000);

    private static string ShowAkka(HoconValue value)
    {
        if (value.IsObject())
            return "{" + string.Join(",", value.GetObject().Items.OrderBy(i => i.Key, StringComparer.Ordinal).Select(i => i.Key + "=" + ShowAkka(i.Value))) + "}";
        if (value.IsArray())
            return "[" + string.Join(",", value.GetArray().Select(ShowAkka)) + "]";
        return "'" + value.GetString() + "'";
    }
}
