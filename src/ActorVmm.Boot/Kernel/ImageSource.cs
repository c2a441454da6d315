using ActorVmm.Memory;

namespace ActorVmm.Boot.Kernel;

/// <summary>
/// Random access to the bytes of an image, a file on disk or one unpacked in memory. Reads past the end are a <see cref="BootException"/>.
/// </summary>
public abstract class ImageSource : IDisposable
{
    private const int CopyChunk = 16 << 20;

    /// <summary>For error messages.</summary>
    public abstract string Name { get; }

    /// <summary>Bytes.</summary>
    public abstract ulong Length { get; }

    /// <summary>Opens a regular file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="role">What it is for, e.g. <c>kernel</c>.</param>
    /// <exception cref="BootException">It does not exist, is a directory, or cannot be read.</exception>
    public static ImageSource Open(string path, string role)
    {
        ArgumentNullException.ThrowIfNull(path);
        if (Directory.Exists(path)) throw new BootException(path, role, "a directory", "name the image file itself");
        try
        {
            var handle = File.OpenHandle(path);
            try
            {
                return new FileSource(path, handle, (ulong)RandomAccess.GetLength(handle));
            }
            catch
            {
                handle.Dispose();
                throw;
            }
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new BootException(path, role, "missing", "no such file", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            throw new BootException(path, role, "unreadable", e.Message, e);
        }
    }

    /// <summary>An image that is already in memory.</summary>
    public static ImageSource FromBytes(string name, ReadOnlyMemory<byte> bytes) => new BytesSource(name, bytes);

    /// <summary>An image in a mapping of its own, which goes with it.</summary>
    internal static ImageSource FromMemory(string name, GuestMemory memory, ulong length) => new MemorySource(name, memory, length);

    /// <summary>Fills <paramref name="into"/> from <paramref name="offset"/>.</summary>
    /// <param name="offset">Byte offset in the image.</param>
    /// <param name="into">All of it is filled.</param>
    /// <param name="field">What is read, for the error.</param>
    /// <exception cref="BootException">The image is shorter, or reading fails.</exception>
    public void Read(ulong offset, Span<byte> into, string field)
    {
        Require(offset, (ulong)into.Length, field);
        ReadCore(offset, into, field);
    }

    /// <summary>Throws unless [<paramref name="offset"/>, +<paramref name="count"/>) is inside the image.</summary>
    /// <exception cref="BootException">The range ends past the end of the image.</exception>
    public void Require(ulong offset, ulong count, string field)
    {
        if (offset > Length || count > Length - offset)
            throw BootException.Hex(Name, field, offset, $"0x{count:x} bytes are needed there, the file has 0x{Length:x}");
    }

    /// <summary>Copies a range of the image into guest RAM.</summary>
    internal void CopyTo(GuestMemory memory, ulong offset, ulong count, GuestAddress at, string field)
    {
        Require(offset, count, field);
        for (ulong done = 0; done < count;)
        {
            var chunk = (int)Math.Min(CopyChunk, count - done);
            if (!memory.TrySliceForWrite(at + done, chunk, out var bytes))
                throw BootException.Hex(Name, field, at.Value + done, "not RAM");
            ReadCore(offset + done, bytes, field);
            memory.Written(at + done, (ulong)chunk);
            done += (ulong)chunk;
        }
    }

    protected abstract void ReadCore(ulong offset, Span<byte> into, string field);

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing) { }

    private sealed class FileSource(string path, Microsoft.Win32.SafeHandles.SafeFileHandle handle, ulong length) : ImageSource
    {
        public override string Name => path;
        public override ulong Length => length;

        protected override void ReadCore(ulong offset, Span<byte> into, string field)
        {
            try
            {
                while (into.Length > 0)
                {
                    var got = RandomAccess.Read(handle, into, (long)offset);
                    if (got == 0) throw BootException.Hex(path, field, offset, "the file became shorter while it was read");
                    into = into[got..];
                    offset += (ulong)got;
                }
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new BootException(path, field, $"0x{offset:x}", e.Message, e);
            }
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing) handle.Dispose();
            base.Dispose(disposing);
        }
    }

    private sealed class BytesSource(string name, ReadOnlyMemory<byte> bytes) : ImageSource
    {
        public override string Name => name;
        public override ulong Length => (ulong)bytes.Length;

        protected override void ReadCore(ulong offset, Span<byte> into, string field) =>
            bytes.Span.Slice((int)offset, into.Length).CopyTo(into);
    }

    private sealed class MemorySource(string name, GuestMemory memory, ulong length) : ImageSource
    {
        public override string Name => name;
        public override ulong Length => length;

        protected override void ReadCore(ulong offset, Span<byte> into, string field)
        {
            if (!memory.TryRead(new GuestAddress(offset), into)) throw BootException.Hex(name, field, offset, "not in the mapping");
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing) memory.Dispose();
            base.Dispose(disposing);
        }
    }
}
