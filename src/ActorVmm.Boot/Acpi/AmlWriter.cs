using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace ActorVmm.Boot.Acpi;

/// <summary>
/// Writes ACPI Machine Language (ACPI 6.5 chapter 20): scopes, devices, names, integers, strings, packages and buffers. Nested objects are
/// written by callbacks into a writer of their own, so that each package length is known when it is written.
/// </summary>
public sealed class AmlWriter
{
    private const byte ZeroOp = 0x00;
    private const byte OneOp = 0x01;
    private const byte NameOp = 0x08;
    private const byte BytePrefix = 0x0A;
    private const byte WordPrefix = 0x0B;
    private const byte DWordPrefix = 0x0C;
    private const byte StringPrefix = 0x0D;
    private const byte QWordPrefix = 0x0E;
    private const byte ScopeOp = 0x10;
    private const byte BufferOp = 0x11;
    private const byte PackageOp = 0x12;
    private const byte ExtendedPrefix = 0x5B;
    private const byte DeviceOp = 0x82;

    private readonly List<byte> _bytes = [];

    /// <summary>What was written.</summary>
    public byte[] ToArray() => _bytes.ToArray();

    /// <summary>Scope(name) { body }; <paramref name="name"/> is one segment, with <c>\</c> before it where it is a root name.</summary>
    public AmlWriter Scope(string name, Action<AmlWriter> body)
    {
        _bytes.Add(ScopeOp);
        return Sized(inner => body(inner.NameString(name)));
    }

    /// <summary>Device(name) { body }.</summary>
    public AmlWriter Device(string name, Action<AmlWriter> body)
    {
        _bytes.Add(ExtendedPrefix);
        _bytes.Add(DeviceOp);
        return Sized(inner => body(inner.NameString(name)));
    }

    /// <summary>Name(name, value), the value written by <paramref name="value"/>.</summary>
    public AmlWriter Name(string name, Action<AmlWriter> value)
    {
        ArgumentNullException.ThrowIfNull(value);
        _bytes.Add(NameOp);
        NameString(name);
        value(this);
        return this;
    }

    /// <summary>Name(name, integer).</summary>
    public AmlWriter Name(string name, ulong value) => Name(name, aml => aml.Integer(value));

    /// <summary>Name(name, "text").</summary>
    public AmlWriter Name(string name, string value) => Name(name, aml => aml.Text(value));

    /// <summary>Package () { elements }.</summary>
    public AmlWriter Package(params ReadOnlySpan<ulong> elements)
    {
        var values = elements.ToArray();
        _bytes.Add(PackageOp);
        return Sized(inner =>
        {
            inner._bytes.Add((byte)values.Length);
            foreach (var value in values) inner.Integer(value);
        });
    }

    /// <summary>A buffer with the resource descriptors and their end tag.</summary>
    public AmlWriter Resources(Action<ResourceWriter> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        var resources = new ResourceWriter();
        write(resources);
        var bytes = resources.ToArray();
        _bytes.Add(BufferOp);
        return Sized(inner => inner.Integer((ulong)bytes.Length)._bytes.AddRange(bytes));
    }

    /// <summary>An integer in its shortest encoding.</summary>
    public AmlWriter Integer(ulong value)
    {
        Span<byte> raw = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(raw, value);
        var (prefix, size) = value switch
        {
            0 => (ZeroOp, 0),
            1 => (OneOp, 0),
            <= byte.MaxValue => (BytePrefix, 1),
            <= ushort.MaxValue => (WordPrefix, 2),
            <= uint.MaxValue => (DWordPrefix, 4),
            _ => (QWordPrefix, 8),
        };
        _bytes.Add(prefix);
        _bytes.AddRange(raw[..size]);
        return this;
    }

    /// <summary>A string of ASCII characters.</summary>
    public AmlWriter Text(string value)
    {
        _bytes.Add(StringPrefix);
        _bytes.AddRange(Encoding.ASCII.GetBytes(value));
        _bytes.Add(0);
        return this;
    }

    /// <summary>EISAID("PNP0501"): three letters of five bits each and four hex digits, in EISA byte order (§19.3.4).</summary>
    public AmlWriter EisaId(string id)
    {
        ArgumentNullException.ThrowIfNull(id);
        ArgumentOutOfRangeException.ThrowIfNotEqual(id.Length, 7, nameof(id));
        var letters = ((id[0] - '@') << 10) | ((id[1] - '@') << 5) | (id[2] - '@');
        var product = ushort.Parse(id.AsSpan(3), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
        _bytes.Add(DWordPrefix);
        _bytes.AddRange([(byte)(letters >> 8), (byte)letters, (byte)(product >> 8), (byte)product]);
        return this;
    }

    /// <summary>One name segment, padded to four characters with underscores.</summary>
    private AmlWriter NameString(string name)
    {
        if (name.StartsWith('\\'))
        {
            _bytes.Add((byte)'\\');
            name = name[1..];
        }
        if (name.Length is 0 or > 4) throw new ArgumentException($"an AML name segment has 1 to 4 characters: \"{name}\"", nameof(name));
        _bytes.AddRange(Encoding.ASCII.GetBytes(name.PadRight(4, '_')));
        return this;
    }

    /// <summary>PkgLength and body; the length counts its own bytes (§20.2.4).</summary>
    private AmlWriter Sized(Action<AmlWriter> body)
    {
        var inner = new AmlWriter();
        body(inner);
        var content = inner.ToArray();
        WritePackageLength(content.Length);
        _bytes.AddRange(content);
        return this;
    }

    private void WritePackageLength(int content)
    {
        if (content + 1 < 1 << 6)
        {
            _bytes.Add((byte)(content + 1));
            return;
        }
        var follow = content + 2 < 1 << 12 ? 1 : content + 3 < 1 << 20 ? 2 : 3;
        var length = content + 1 + follow;
        _bytes.Add((byte)((follow << 6) | (length & 0xF)));
        for (var i = 0; i < follow; i++) _bytes.Add((byte)(length >> (4 + 8 * i)));
    }
}
