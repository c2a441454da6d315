using System.Buffers.Binary;
using System.Text;

namespace ActorVmm.Boot.Tests.Acpi;

/// <summary>One object of a definition block: an operator, its name, its children or its value.</summary>
internal sealed record AmlObject(
    string Kind, string Name, IReadOnlyList<AmlObject> Children, ulong Integer = 0, string Text = "", byte[]? Buffer = null)
{
    public AmlObject this[string name] => Children.Single(c => c.Name == name);

    /// <summary>The value of a Name.</summary>
    public AmlObject Value => Children.Single();
}

/// <summary>Reads the AML that the writer may write; throws where lengths do not nest exactly.</summary>
internal static class AmlReader
{
    public static IReadOnlyList<AmlObject> Read(ReadOnlySpan<byte> aml)
    {
        var objects = new List<AmlObject>();
        while (aml.Length > 0) objects.Add(ReadObject(ref aml));
        return objects;
    }

    private static AmlObject ReadObject(ref ReadOnlySpan<byte> aml)
    {
        var op = Take(ref aml);
        switch (op)
        {
            case 0x00: return new AmlObject("Integer", "", [], 0);
            case 0x01: return new AmlObject("Integer", "", [], 1);
            case 0x0A: return new AmlObject("Integer", "", [], Take(ref aml));
            case 0x0B: return new AmlObject("Integer", "", [], BinaryPrimitives.ReadUInt16LittleEndian(Take(ref aml, 2)));
            case 0x0C: return new AmlObject("Integer", "", [], BinaryPrimitives.ReadUInt32LittleEndian(Take(ref aml, 4)));
            case 0x0E: return new AmlObject("Integer", "", [], BinaryPrimitives.ReadUInt64LittleEndian(Take(ref aml, 8)));
            case 0x0D:
                var text = Encoding.ASCII.GetString(Take(ref aml, aml.IndexOf((byte)0)));
                Take(ref aml);
                return new AmlObject("String", "", [], Text: text);
            case 0x08:
                var name = ReadName(ref aml);
                return new AmlObject("Name", name, [ReadObject(ref aml)]);
            case 0x10: return ReadNamed("Scope", ref aml);
            case 0x5B when Take(ref aml) == 0x82: return ReadNamed("Device", ref aml);
            case 0x12:
                var package = ReadSized(ref aml);
                var count = Take(ref package);
                var elements = Read(package);
                return elements.Count == count ? new AmlObject("Package", "", elements) : throw new InvalidDataException("package count");
            case 0x11:
                var buffer = ReadSized(ref aml);
                var size = ReadObject(ref buffer).Integer;
                return size == (ulong)buffer.Length
                    ? new AmlObject("Buffer", "", [], Buffer: buffer.ToArray())
                    : throw new InvalidDataException("buffer size");
            default: throw new InvalidDataException($"unexpected opcode 0x{op:x2}");
        }
    }

    private static AmlObject ReadNamed(string kind, ref ReadOnlySpan<byte> aml)
    {
        var body = ReadSized(ref aml);
        var name = ReadName(ref body);
        return new AmlObject(kind, name, Read(body));
    }

    private static string ReadName(ref ReadOnlySpan<byte> aml)
    {
        var root = aml[0] == '\\';
        if (root) Take(ref aml);
        return (root ? "\\" : "") + Encoding.ASCII.GetString(Take(ref aml, 4)).TrimEnd('_');
    }

    private static ReadOnlySpan<byte> ReadSized(ref ReadOnlySpan<byte> aml)
    {
        var lead = aml[0];
        var follow = lead >> 6;
        var length = follow == 0 ? lead & 0x3F : lead & 0xF;
        for (var i = 0; i < follow; i++) length |= aml[1 + i] << (4 + 8 * i);
        var sized = Take(ref aml, length);
        return sized[(1 + follow)..];
    }

    private static byte Take(ref ReadOnlySpan<byte> aml) => Take(ref aml, 1)[0];

    private static ReadOnlySpan<byte> Take(ref ReadOnlySpan<byte> aml, int count)
    {
        var taken = aml[..count];
        aml = aml[count..];
        return taken;
    }
}
