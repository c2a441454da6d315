using System.Globalization;
using System.Text;

namespace ActorVmm.Boot.Initramfs;

/// <summary>
/// Writes an initramfs: a cpio archive in "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst). The same content
/// always gives the same bytes: entries sorted by name, modification times 0, inode numbers by position, owner root. Parent directories
/// that were not added are made with mode 0755.
/// </summary>
public sealed class CpioWriter
{
    private const int BlockSize = 512;
    private const int TypeMask = 0xF000;

    private readonly SortedDictionary<string, Entry> _entries = new(StringComparer.Ordinal);

    private readonly record struct Entry(int Mode, ReadOnlyMemory<byte> Data, uint Major = 0, uint Minor = 0);

    /// <summary>A regular file.</summary>
    /// <param name="path">Relative to the root, e.g. <c>bin/busybox</c>.</param>
    /// <param name="data">Its bytes; kept, not copied, until the archive is written.</param>
    /// <param name="mode">Permission bits.</param>
    /// <exception cref="ArgumentException">The path is empty, absolute, not canonical, not ASCII, or taken.</exception>
    public CpioWriter AddFile(string path, ReadOnlyMemory<byte> data, int mode = 0b110_100_100) => Add(path, 0x8000, mode, data);

    /// <summary>A directory.</summary>
    /// <inheritdoc cref="AddFile"/>
    public CpioWriter AddDirectory(string path, int mode = 0b111_101_101) => Add(path, 0x4000, mode, default);

    /// <summary>A symbolic link to <paramref name="target"/>.</summary>
    /// <inheritdoc cref="AddFile"/>
    public CpioWriter AddSymlink(string path, string target)
    {
        ArgumentException.ThrowIfNullOrEmpty(target);
        return Add(path, 0xA000, 0b111_111_111, Encoding.UTF8.GetBytes(target));
    }

    /// <summary>A character device node.</summary>
    /// <inheritdoc cref="AddFile"/>
    public CpioWriter AddCharacterDevice(string path, uint major, uint minor, int mode = 0b110_000_000) =>
        Add(path, 0x2000, mode, default, major, minor);

    /// <summary>A block device node.</summary>
    /// <inheritdoc cref="AddFile"/>
    public CpioWriter AddBlockDevice(string path, uint major, uint minor, int mode = 0b110_000_000) =>
        Add(path, 0x6000, mode, default, major, minor);

    /// <summary>The archive, padded to 512 bytes.</summary>
    public byte[] ToArray()
    {
        using var bytes = new MemoryStream();
        WriteTo(bytes);
        return bytes.ToArray();
    }

    /// <summary>Writes the archive, padded to 512 bytes.</summary>
    public void WriteTo(Stream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        long written = 0;
        var inode = 0u;
        foreach (var (path, entry) in _entries) WriteEntry(path, entry, ++inode);
        WriteEntry("TRAILER!!!", default, 0);
        Pad(BlockSize);

        void WriteEntry(string path, Entry entry, uint number)
        {
            var name = Encoding.UTF8.GetBytes(path + "\0");
            var links = (entry.Mode & TypeMask) == 0x4000 ? 2u : 1u;
            // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
            ReadOnlySpan<uint> fields =
            [
                number, (uint)entry.Mode, 0, 0, links, 0, (uint)entry.Data.Length, 0, 0, entry.Major, entry.Minor, (uint)name.Length, 0,
            ];
            var header = new StringBuilder("070701", 110);
            foreach (var field in fields) header.Append(CultureInfo.InvariantCulture, $"{field:X8}");
            Put(Encoding.ASCII.GetBytes(header.ToString()));
            Put(name);
            Pad(4);
            Put(entry.Data.Span);
            Pad(4);
        }

        void Put(ReadOnlySpan<byte> bytes)
        {
            stream.Write(bytes);
            written += bytes.Length;
        }

        void Pad(int to) => Put(new byte[(to - written % to) % to]);
    }

    private CpioWriter Add(string path, int type, int mode, ReadOnlyMemory<byte> data, uint major = 0, uint minor = 0)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var parts = path.Split('/');
        if (parts.Any(part => part is "" or "." or "..") || path.Contains('\0') || path == "TRAILER!!!")
            throw new ArgumentException($"a canonical path relative to the root is needed, not \"{path}\"", nameof(path));
        ArgumentOutOfRangeException.ThrowIfNotEqual(mode & ~0xFFF, 0, nameof(mode));

        for (var i = 1; i < parts.Length; i++)
        {
            var parent = string.Join('/', parts[..i]);
            if (!_entries.TryGetValue(parent, out var at)) _entries.Add(parent, new Entry(0x4000 | 0b111_101_101, default));
            else if ((at.Mode & TypeMask) != 0x4000) throw new ArgumentException($"\"{parent}\" is not a directory", nameof(path));
        }
        // A directory that was made for a child may be named afterwards, to give it another mode.
        if (_entries.TryGetValue(path, out var old) && (type != 0x4000 || (old.Mode & TypeMask) != 0x4000))
            throw new ArgumentException($"\"{path}\" is there already", nameof(path));
        _entries[path] = new Entry(type | mode, data, major, minor);
        return this;
    }
}
