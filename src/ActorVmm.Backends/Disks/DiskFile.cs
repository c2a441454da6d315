using System.Runtime.InteropServices;
using ActorVmm.Devices.Virtio.Block;
using ActorVmm.Memory;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;
using static ActorVmm.Backends.Disks.DiskLibc;

namespace ActorVmm.Backends.Disks;

/// <summary>
/// An open raw image or block device: it performs requests with positioned system calls, straight between guest memory and the file. Any
/// number of threads at once.
/// </summary>
internal sealed unsafe class DiskFile : IDisposable
{
    private const int MostSegments = 1024; // IOV_MAX
    private const int BounceBytes = 1 << 20;
    private const int DirectDefault = 4096;

    private readonly SafeFileHandle _file;
    private readonly int _memoryAlignment; // 1: any
    private volatile bool _cannotPunch;
    private volatile bool _readsWait; // there is no reading without waiting: O_DIRECT, or a file system that does not offer it
    private volatile bool _cannotZero;

    private DiskFile(string path, SafeFileHandle file, bool readOnly, int blockSize, int memoryAlignment)
    {
        (Path, _file, ReadOnly, BlockSize, _memoryAlignment) = (path, file, readOnly, blockSize, memoryAlignment);
        _readsWait = memoryAlignment > 1;
    }

    public string Path { get; }
    public bool ReadOnly { get; }

    /// <summary>Bytes.</summary>
    public int BlockSize { get; }

    /// <summary>Opens and locks it.</summary>
    /// <exception cref="DiskException">It is missing, no file, in use, or not writable; the message says what to do.</exception>
    public static DiskFile Open(string path, DiskOptions options)
    {
        var flags = O_CLOEXEC | (options.ReadOnly ? O_RDONLY : O_RDWR) | (options.Direct ? O_DIRECT : 0);
        var file = DiskLibc.Open(path, flags, 0);
        if (file.IsInvalid)
        {
            var error = Marshal.GetLastPInvokeError();
            file.Dispose();
            throw new DiskException(error switch
            {
                EACCES or 30 when !options.ReadOnly => $"{path}: {Text(error)}; make it writable, or give the disk is_read_only = true",
                EINVAL when options.Direct => $"{path}: its file system knows no direct I/O; leave direct out",
                _ => $"{path}: {Text(error)}",
            });
        }
        try
        {
            var block = KindOf(path, file) == FilePermissions.S_IFBLK;
            Lock(path, file, options.ReadOnly);
            var (blockSize, alignment) = (DiskRequest.SectorSize, 1);
            var value = 0;
            if (block && !options.ReadOnly && IoCtl(file, BLKROGET, &value) == 0 && value != 0)
                throw new DiskException($"{path}: the block device is read-only; give the disk is_read_only = true");
            if (block && IoCtl(file, BLKSSZGET, &value) == 0) blockSize = value;
            if (options.Direct)
            {
                var (memory, offset) = DirectAlignment(file) ?? (block ? blockSize : DirectDefault, block ? blockSize : DirectDefault);
                (blockSize, alignment) = (Math.Max(blockSize, offset), memory);
            }
            var opened = new DiskFile(path, file, options.ReadOnly, blockSize, alignment);
            _ = opened.MeasureSectors();
            return opened;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Its size now, in sectors; bytes of the last block that are no whole block are left out.</summary>
    /// <exception cref="DiskException">It has no size.</exception>
    public ulong MeasureSectors()
    {
        var bytes = LSeek(_file, 0, SEEK_END);
        if (bytes < 0) throw new DiskException($"{Path}: its size cannot be read: {Text(Marshal.GetLastPInvokeError())}");
        return (ulong)(bytes / BlockSize * BlockSize / DiskRequest.SectorSize);
    }

    /// <summary>Performs a request on this thread; <paramref name="error"/> is what the system call said, 0 where it said nothing.</summary>
    public DiskStatus Perform(DiskRequest request, out int error)
    {
        error = request.Operation switch
        {
            DiskOperation.Read => Transfer(request, write: false),
            DiskOperation.Write => Transfer(request, write: true),
            DiskOperation.Flush => Flush(),
            DiskOperation.Discard => Discard(request),
            DiskOperation.WriteZeroes => WriteZeroes(request),
            _ => EOPNOTSUPP,
        };
        return error switch
        {
            0 => DiskStatus.Ok,
            ENOSPC or EDQUOT => DiskStatus.NoSpace,
            EOPNOTSUPP => DiskStatus.Unsupported,
            _ => DiskStatus.IoError,
        };
    }

    /// <summary>Performs a read that the page cache holds wholly; false, and any bytes of it in guest memory, where it does not.</summary>
    public bool TryReadNow(DiskRequest request)
    {
        var segments = request.Segments;
        if (_readsWait || segments.Length > MostSegments) return false;
        nint moved;
        // SAFETY: as in Transfer.
        fixed (HostSegment* first = segments)
            moved = PReadV2(_file, first, segments.Length, (long)request.Sector * DiskRequest.SectorSize, RWF_NOWAIT);
        if (moved == (nint)request.Bytes) return true;
        if (moved < 0 && Marshal.GetLastPInvokeError() is EOPNOTSUPP or EINVAL or ENOSYS) _readsWait = true;
        return false;
    }

    public void Dispose() => _file.Dispose();

    /// <summary>Puts what was written onto the medium; 0, or the error.</summary>
    public int Flush()
    {
        while (FDataSync(_file) != 0)
        {
            if (Marshal.GetLastPInvokeError() is var error && error != EINTR) return error;
        }
        return 0;
    }

    private int Transfer(DiskRequest request, bool write)
    {
        var segments = request.Segments;
        var offset = (long)request.Sector * DiskRequest.SectorSize;
        if (_memoryAlignment > 1 && !Aligned(segments)) return Bounce(segments, offset, write, request.Flag);
        var done = 0;
        while (done < segments.Length)
        {
            var part = segments.Slice(done, Math.Min(MostSegments, segments.Length - done));
            nuint wanted = 0;
            foreach (var segment in part) wanted += (nuint)segment.Length;
            nint moved;
            // SAFETY: HostSegment is laid out like struct iovec, and each lies in guest RAM, which outlives every request.
            fixed (HostSegment* first = part)
            {
                moved = write
                    ? PWriteV2(_file, first, part.Length, offset, request.Flag ? RWF_DSYNC : 0)
                    : PReadV(_file, first, part.Length, offset);
            }
            if (moved < 0)
            {
                if (Marshal.GetLastPInvokeError() is var error && error != EINTR) return error;
                continue;
            }
            // The kernel stops early at its limit of 2 GiB, at signals, and at the end of a file that has shrunk.
            if ((nuint)moved < wanted && Rest(part, (nuint)moved, offset, write) is var fault && fault != 0) return fault;
            if ((nuint)moved < wanted && write && request.Flag && Flush() is var late && late != 0) return late;
            offset += (long)wanted;
            done += part.Length;
        }
        return 0;
    }

    /// <summary>Moves what a call has left over, piece by piece.</summary>
    private int Rest(ReadOnlySpan<HostSegment> segments, nuint moved, long offset, bool write)
    {
        foreach (var segment in segments)
        {
            var at = Math.Min(moved, (nuint)segment.Length);
            moved -= at;
            // SAFETY: the part of the segment after `at`, in guest RAM.
            if (Move((byte*)segment.Address + at, (nuint)segment.Length - at, offset + (long)at, write) is var fault && fault != 0) return fault;
            offset += segment.Length;
        }
        return 0;
    }

    private int Move(byte* memory, nuint count, long offset, bool write)
    {
        while (count > 0)
        {
            // SAFETY: the caller's memory has `count` bytes.
            var moved = write ? PWrite(_file, memory, count, offset) : PRead(_file, memory, count, offset);
            if (moved == 0) return EIO; // the file has shrunk
            if (moved < 0)
            {
                if (Marshal.GetLastPInvokeError() is var error && error != EINTR) return error;
                continue;
            }
            memory += moved;
            count -= (nuint)moved;
            offset += moved;
        }
        return 0;
    }

    private bool Aligned(ReadOnlySpan<HostSegment> segments)
    {
        foreach (var segment in segments)
            if ((((nuint)segment.Address | (nuint)segment.Length) & (nuint)(_memoryAlignment - 1)) != 0) return false;
        return true;
    }

    /// <summary>Direct I/O for guest memory that is not aligned as it has to be: by way of aligned memory, a piece at a time.</summary>
    private int Bounce(ReadOnlySpan<HostSegment> segments, long offset, bool write, bool durable)
    {
        ulong total = 0;
        foreach (var segment in segments) total += (ulong)segment.Length;
        // A length that is no whole block goes through here too, and cannot be done: BlockSize says so to the guest.
        var size = (nuint)Math.Min(total, BounceBytes);
        var memory = (byte*)NativeMemory.AlignedAlloc(size, (nuint)Math.Max(_memoryAlignment, BlockSize));
        try
        {
            var (index, inside) = (0, 0);
            for (ulong done = 0; done < total; done += size)
            {
                var count = (nuint)Math.Min(size, total - done);
                if (write) Copy(segments, ref index, ref inside, new Span<byte>(memory, (int)count), toGuest: false);
                // SAFETY: `memory` has `size` bytes, of which `count` are used.
                if (Move(memory, count, offset + (long)done, write) is var fault && fault != 0) return fault;
                if (!write) Copy(segments, ref index, ref inside, new Span<byte>(memory, (int)count), toGuest: true);
            }
            return write && durable ? Flush() : 0;
        }
        finally
        {
            NativeMemory.AlignedFree(memory);
        }
    }

    private static void Copy(ReadOnlySpan<HostSegment> segments, ref int index, ref int inside, Span<byte> bytes, bool toGuest)
    {
        while (bytes.Length > 0)
        {
            var count = Math.Min(bytes.Length, segments[index].Length - inside);
            var guest = segments[index].Bytes.Slice(inside, count);
            if (toGuest) bytes[..count].CopyTo(guest);
            else guest.CopyTo(bytes);
            bytes = bytes[count..];
            inside += count;
            if (inside == segments[index].Length) (index, inside) = (index + 1, 0);
        }
    }

    // A hint: where the file system cannot give space back, the content simply stays.
    private int Discard(DiskRequest request) => Punch(request) is var error and not EOPNOTSUPP ? error : 0;

    private int Punch(DiskRequest request)
    {
        if (_cannotPunch) return EOPNOTSUPP;
        var error = Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, request);
        if (error is not (EOPNOTSUPP or ENOSYS)) return error;
        _cannotPunch = true;
        return EOPNOTSUPP;
    }

    private int WriteZeroes(DiskRequest request)
    {
        if (request.Flag && Punch(request) is var punched and not EOPNOTSUPP) return punched;
        if (!_cannotZero)
        {
            var error = Allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, request);
            if (error is not (EOPNOTSUPP or ENOSYS)) return error;
            _cannotZero = true;
        }
        // SAFETY: calloc'd memory of this size, freed below; writing reads it only.
        var total = request.Sectors * DiskRequest.SectorSize;
        var size = (nuint)Math.Min(total, BounceBytes);
        var zeroes = (byte*)NativeMemory.AlignedAlloc(size, (nuint)Math.Max(DirectDefault, BlockSize));
        try
        {
            NativeMemory.Clear(zeroes, size);
            for (ulong done = 0; done < total; done += size)
            {
                var at = (long)((request.Sector * DiskRequest.SectorSize) + done);
                if (Move(zeroes, (nuint)Math.Min(size, total - done), at, write: true) is var fault && fault != 0) return fault;
            }
            return 0;
        }
        finally
        {
            NativeMemory.AlignedFree(zeroes);
        }
    }

    private int Allocate(int mode, DiskRequest request)
    {
        var (offset, length) = ((long)request.Sector * DiskRequest.SectorSize, (long)request.Sectors * DiskRequest.SectorSize);
        while (FAllocate(_file, mode, offset, length) != 0)
        {
            if (Marshal.GetLastPInvokeError() is var error && error != EINTR) return error;
        }
        return 0;
    }

    private static FilePermissions KindOf(string path, SafeFileHandle file)
    {
        var added = false;
        try
        {
            file.DangerousAddRef(ref added);
            if (Syscall.fstat((int)file.DangerousGetHandle(), out var status) != 0)
                throw new DiskException($"{path}: {Text(Marshal.GetLastWin32Error())}");
            var kind = status.st_mode & FilePermissions.S_IFMT;
            return kind is FilePermissions.S_IFREG or FilePermissions.S_IFBLK
                ? kind
                : throw new DiskException($"{path}: allowed is a raw image file or a block device");
        }
        finally
        {
            if (added) file.DangerousRelease();
        }
    }

    private static void Lock(string path, SafeFileHandle file, bool shared)
    {
        // Open file description locks: held by this opening, not by this process, so that two VMs of one process exclude each other too.
        var whole = new FileLock { Type = shared ? F_RDLCK : F_WRLCK };
        // SAFETY: a struct flock on the stack.
        if (FCntl(file, F_OFD_SETLK, &whole) == 0) return;
        var error = Marshal.GetLastPInvokeError();
        if (error is EAGAIN or EACCES)
        {
            throw new DiskException(shared
                ? $"{path}: another VM writes this disk; stop that VM, or give this one a copy of the image"
                : $"{path}: another VM uses this disk; stop that VM, give this one a copy of the image, or let all of them have it with "
                + "is_read_only = true");
        }
        // File systems without locks (some of them remote) have no advice to give; everything else is an error worth knowing.
        if (error is not (EINVAL or EOPNOTSUPP or 37)) throw new DiskException($"{path}: it cannot be locked: {Text(error)}");
    }

    private static string Text(int error) => Marshal.GetPInvokeErrorMessage(error);
}
