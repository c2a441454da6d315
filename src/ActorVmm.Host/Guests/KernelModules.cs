using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using SharpCompress.Compressors.Xz;
using ZstdSharp;

namespace ActorVmm.Host.Guests;

/// <summary>
/// The modules of one kernel. A Debian package carries no <c>modules.dep</c> (depmod writes it at installation), so the dependencies are
/// read from the modules themselves where that file is missing.
/// </summary>
internal sealed class KernelModules
{
    private readonly Dictionary<string, string> _files = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string[]> _depends = new(StringComparer.Ordinal);

    /// <param name="directory"><c>lib/modules/RELEASE</c></param>
    public KernelModules(string directory)
    {
        if (!Directory.Exists(directory))
            return;
        foreach (var file in Directory.EnumerateFiles(directory, "*.ko*", SearchOption.AllDirectories))
            _files.TryAdd(NameOf(file), file);
        var list = Path.Combine(directory, "modules.dep");
        if (!File.Exists(list))
            return;
        foreach (var line in File.ReadLines(list))
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon > 0)
                _depends[NameOf(line[..colon])] = [.. line[(colon + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(NameOf)];
        }
    }

    /// <summary>Every module's name, with underscores.</summary>
    public IEnumerable<string> Names => _files.Keys.Order(StringComparer.Ordinal);

    public string? FileOf(string name) => _files.GetValueOrDefault(Canonical(name));

    /// <summary>
    /// The wanted modules with all they depend on, each after what it needs. What the kernel has built in is not there and is left out.
    /// </summary>
    public IReadOnlyList<string> InLoadOrder(IEnumerable<string> wanted)
    {
        var order = new List<string>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var name in wanted)
            Visit(Canonical(name));
        return order;

        void Visit(string name)
        {
            if (!_files.ContainsKey(name) || !seen.Add(name))
                return;
            foreach (var needed in DependsOf(name))
                Visit(needed);
            order.Add(name);
        }
    }

    private string[] DependsOf(string name)
    {
        if (_depends.TryGetValue(name, out var known))
            return known;
        var found = ModuleInfo(Read(_files[name]), "depends").Split(',', StringSplitOptions.RemoveEmptyEntries);
        return _depends[name] = [.. found.Select(Canonical)];
    }

    /// <summary>A module's ELF image, unpacked where the distribution packs it.</summary>
    public static byte[] Read(string path)
    {
        var bytes = File.ReadAllBytes(path);
        using var packed = new MemoryStream(bytes);
        using Stream? unpacker = Path.GetExtension(path) switch
        {
            ".xz" => new XZStream(packed),
            ".zst" => new DecompressionStream(packed),
            ".gz" => new GZipStream(packed, CompressionMode.Decompress),
            _ => null,
        };
        if (unpacker is null)
            return bytes;
        using var image = new MemoryStream();
        unpacker.CopyTo(image);
        return image.ToArray();
    }

    /// <summary>
    /// A field of the <c>.modinfo</c> section (strings <c>key=value</c>, each with a terminating zero); empty where there is none.
    /// </summary>
    internal static string ModuleInfo(ReadOnlySpan<byte> elf, string key)
    {
        var section = Section(elf, ".modinfo"u8);
        var prefix = Encoding.ASCII.GetBytes(key + "=");
        while (section.Length > 0)
        {
            var end = section.IndexOf((byte)0);
            var text = end < 0 ? section : section[..end];
            if (text.StartsWith(prefix))
                return Encoding.ASCII.GetString(text[prefix.Length..]);
            section = end < 0 ? default : section[(end + 1)..];
        }
        return "";
    }

    // ELF64, little-endian: e_shoff at 40, e_shentsize 58, e_shnum 60, e_shstrndx 62; section header: name 0, offset 24, size 32.
    private static ReadOnlySpan<byte> Section(ReadOnlySpan<byte> elf, ReadOnlySpan<byte> wanted)
    {
        if (elf.Length < 64 || !elf.StartsWith("\x7f"u8) || !elf[1..4].SequenceEqual("ELF"u8) || elf[4] != 2)
            return default;
        var count = BinaryPrimitives.ReadUInt16LittleEndian(elf[60..]);
        var names = Header(elf, BinaryPrimitives.ReadUInt16LittleEndian(elf[62..]), out _);
        for (var i = 0; i < count; i++)
        {
            var body = Header(elf, i, out var nameAt);
            if (nameAt >= names.Length)
                continue;
            var name = names[(int)nameAt..];
            var end = name.IndexOf((byte)0);
            if (end >= 0 && name[..end].SequenceEqual(wanted))
                return body;
        }
        return default;
    }

    private static ReadOnlySpan<byte> Header(ReadOnlySpan<byte> elf, int index, out uint nameAt)
    {
        nameAt = uint.MaxValue;
        var size = BinaryPrimitives.ReadUInt16LittleEndian(elf[58..]);
        var at = BinaryPrimitives.ReadUInt64LittleEndian(elf[40..]) + ((ulong)index * size);
        if (size < 64 || at > (ulong)elf.Length - 64)
            return default;
        var header = elf.Slice((int)at, 64);
        nameAt = BinaryPrimitives.ReadUInt32LittleEndian(header);
        var offset = BinaryPrimitives.ReadUInt64LittleEndian(header[24..]);
        var length = BinaryPrimitives.ReadUInt64LittleEndian(header[32..]);
        return offset <= (ulong)elf.Length && length <= (ulong)elf.Length - offset ? elf.Slice((int)offset, (int)length) : default;
    }

    private static string NameOf(string path)
    {
        var file = Path.GetFileName(path);
        var cut = file.IndexOf(".ko", StringComparison.Ordinal);
        return Canonical(cut < 0 ? file : file[..cut]);
    }

    private static string Canonical(string name) => name.Replace('-', '_');
}
