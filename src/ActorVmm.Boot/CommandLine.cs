using System.Globalization;
using System.Text;

namespace ActorVmm.Boot;

/// <summary>
/// A kernel command line under construction: printable ASCII tokens joined by one space, with a capacity that counts the final NUL.
/// What is refused leaves the line as it was.
/// </summary>
public sealed class CommandLine
{
    /// <summary>Capacity by default; Linux x86 itself keeps <see cref="MemoryLayout.CommandLineSize"/>.</summary>
    public const int DefaultCapacity = 4096;

    private const string Source = "command line";

    private readonly StringBuilder _text = new();

    /// <param name="capacity">Bytes including the NUL; at least 1.</param>
    public CommandLine(int capacity = DefaultCapacity)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        Capacity = capacity;
    }

    public int Capacity { get; }

    /// <summary>Bytes used, without the NUL.</summary>
    public int Length => _text.Length;

    /// <summary>
    /// The line the guest sees: the user's text, <c>console=ttyS0</c> where the user did not say so, and one <c>virtio_mmio.device=</c> per
    /// slot.
    /// </summary>
    /// <exception cref="BootException">Unprintable characters, or longer than <paramref name="capacity"/> - 1.</exception>
    public static CommandLine ForGuest(string user, IEnumerable<VirtioMmioSlot> slots, int capacity = MemoryLayout.CommandLineSize)
    {
        ArgumentNullException.ThrowIfNull(user);
        ArgumentNullException.ThrowIfNull(slots);
        var line = new CommandLine(capacity);
        if (user.Trim(' ') is { Length: > 0 } text) line.InsertText(text);
        if (!user.Split(' ').Any(token => token is "console=ttyS0" || token.StartsWith("console=ttyS0,", StringComparison.Ordinal)))
            line.Insert("console", "ttyS0");
        foreach (var slot in slots) line.AddVirtioMmioDevice(slot.Size, slot.Address.Value, slot.Gsi);
        return line;
    }

    /// <summary>Appends <c>key=value</c>.</summary>
    /// <exception cref="BootException">Key or value is empty, unprintable, has a space, the key has <c>=</c>, or the line would
    /// overflow.</exception>
    public void Insert(string key, string value) => InsertMultiple(key, [value]);

    /// <summary>Appends <c>key=value1,value2,…</c>.</summary>
    /// <inheritdoc cref="Insert"/>
    public void InsertMultiple(string key, IReadOnlyCollection<string> values)
    {
        ArgumentException.ThrowIfNullOrEmpty(key);
        ArgumentNullException.ThrowIfNull(values);
        if (values.Count == 0 || values.Any(string.IsNullOrEmpty))
            throw new BootException(Source, key, "empty", "the parameter needs a value");
        if (key.Contains('=')) throw new BootException(Source, "key", key, "a key has no '='");
        foreach (var part in values.Prepend(key))
            if (part.Contains(' ')) throw new BootException(Source, key, $"\"{part}\"", "a token has no space");
        Append($"{key}={string.Join(',', values)}");
    }

    /// <summary>Appends text as it is; it may hold several tokens.</summary>
    /// <exception cref="BootException">Unprintable characters, or the line would overflow.</exception>
    public void InsertText(string text)
    {
        ArgumentException.ThrowIfNullOrEmpty(text);
        Append(text);
    }

    /// <summary>
    /// Appends <c>virtio_mmio.device=SIZE@0xBASE:IRQ[:ID]</c> (Documentation/admin-guide/kernel-parameters.txt), the size with the largest
    /// of the suffixes K, M, G that divides it.
    /// </summary>
    /// <param name="size">Bytes of the register window; not 0.</param>
    /// <param name="address">Its guest physical address.</param>
    /// <param name="irq">Interrupt line.</param>
    /// <param name="id">Platform device id, or null to let the kernel count.</param>
    /// <exception cref="BootException">Size 0, or the line would overflow.</exception>
    public void AddVirtioMmioDevice(ulong size, ulong address, int irq, int? id = null)
    {
        if (size == 0) throw new BootException(Source, "virtio_mmio.device", "0", "a device window has a size");
        var text = size switch
        {
            _ when size % (1 << 30) == 0 => $"{size >> 30}G",
            _ when size % (1 << 20) == 0 => $"{size >> 20}M",
            _ when size % (1 << 10) == 0 => $"{size >> 10}K",
            _ => size.ToString(CultureInfo.InvariantCulture),
        };
        Insert("virtio_mmio.device", id is { } n ? $"{text}@0x{address:x}:{irq}:{n}" : $"{text}@0x{address:x}:{irq}");
    }

    /// <summary>The bytes with their NUL.</summary>
    public byte[] ToBytes() => Encoding.ASCII.GetBytes($"{_text}\0");

    public override string ToString() => _text.ToString();

    private void Append(string text)
    {
        foreach (var c in text)
            if (c is < ' ' or > '~')
                throw new BootException(Source, "character", $"U+{(int)c:X4}", "only printable ASCII reaches the kernel");
        var length = _text.Length + (_text.Length > 0 ? 1 : 0) + text.Length;
        if (length >= Capacity)
            throw new BootException(Source, "length", $"{length}",
                $"at most {Capacity - 1} characters fit; the last added was \"{Shorten(text)}\"");
        if (_text.Length > 0) _text.Append(' ');
        _text.Append(text);
    }

    private static string Shorten(string text) => text.Length <= 60 ? text : text[..57] + "...";
}
