using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ActorVmm.Host.Terminal;

/// <summary>The control characters of <see cref="Termios"/> (NCCS of glibc and musl).</summary>
[InlineArray(32)]
internal struct ControlCharacters
{
    private byte _first;
}

/// <summary>struct termios of Linux (termios(3)); the layout is the same for glibc and musl on x86-64 and arm64.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct Termios
{
    public uint InputFlags;
    public uint OutputFlags;
    public uint ControlFlags;
    public uint LocalFlags;
    public byte Line;
    public ControlCharacters Characters;
    public uint InputSpeed;
    public uint OutputSpeed;

    /// <summary>What cfmakeraw(3) does: every key reaches the reader as it is, one at a time, and output is left alone.</summary>
    public readonly Termios Raw()
    {
        const uint IgnBrk = 0x1, BrkInt = 0x2, ParMrk = 0x8, IStrip = 0x20, InLcr = 0x40, IgnCr = 0x80, ICrNl = 0x100, IxOn = 0x400;
        const uint OPost = 0x1, ISig = 0x1, ICanon = 0x2, Echo = 0x8, EchoNl = 0x40, IExten = 0x8000, CSize = 0x30, ParEnb = 0x100,
            Cs8 = 0x30;
        const int VTime = 5, VMin = 6;
        var raw = this;
        raw.InputFlags &= ~(IgnBrk | BrkInt | ParMrk | IStrip | InLcr | IgnCr | ICrNl | IxOn);
        raw.OutputFlags &= ~OPost;
        raw.LocalFlags &= ~(Echo | EchoNl | ICanon | ISig | IExten);
        raw.ControlFlags = (raw.ControlFlags & ~(CSize | ParEnb)) | Cs8;
        raw.Characters[VMin] = 1;
        raw.Characters[VTime] = 0;
        return raw;
    }
}

/// <summary>struct winsize (ioctl_tty(2), TIOCGWINSZ).</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct WindowSize
{
    public ushort Rows;
    public ushort Columns;
    public ushort Width;
    public ushort Height;
}

/// <summary>struct pollfd (poll(2)).</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct PollFd
{
    public int Fd;
    public short Events;
    public short Revents;
}

/// <summary>
/// The few calls that the terminal needs. .NET's Console is not used for input: it keeps terminal settings of its own and puts them back at
/// moments of its own.
/// </summary>
internal static partial class Libc
{
    public const int Interrupted = 4, TryAgain = 11, StopSignal = 19;
    public const short PollIn = 1, PollOut = 4;
    private const nuint GetWindowSize = 0x5413;

    [LibraryImport("libc", EntryPoint = "isatty", SetLastError = true)]
    private static partial int IsATty(int fd);

    [LibraryImport("libc", EntryPoint = "tcgetattr", SetLastError = true)]
    public static partial int GetAttributes(int fd, out Termios termios);

    [LibraryImport("libc", EntryPoint = "tcsetattr", SetLastError = true)]
    public static partial int SetAttributes(int fd, int when, in Termios termios);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Ioctl(int fd, nuint request, out WindowSize size);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    private static unsafe partial nint Read(int fd, byte* buffer, nuint count);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static unsafe partial nint Write(int fd, byte* buffer, nuint count);

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int Poll(ref PollFd fds, nuint count, int timeout);

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    public static partial int Kill(int pid, int signal);

    public static bool IsTerminal(int fd) => IsATty(fd) == 1;

    /// <summary>Rows and columns of a terminal, or null where it has none.</summary>
    public static WindowSize? SizeOf(int fd) =>
        Ioctl(fd, GetWindowSize, out var size) == 0 && size is { Rows: > 0, Columns: > 0 } ? size : null;

    /// <summary>Reads at least one byte, waiting for it; 0 at the end of the input, -1 on an error.</summary>
    public static unsafe int Read(int fd, Span<byte> into)
    {
        while (true)
        {
            nint got;
            fixed (byte* buffer = into)
            {
                // SAFETY: the span is pinned and its length is passed.
                got = Read(fd, buffer, (nuint)into.Length);
            }
            if (got >= 0)
                return (int)got;
            if (!WorthRetrying(fd, PollIn))
                return -1;
        }
    }

    /// <summary>Writes everything, waiting where the reader is slow; false where nobody can read it any more.</summary>
    public static unsafe bool WriteAll(int fd, ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            nint put;
            fixed (byte* buffer = bytes)
            {
                // SAFETY: the span is pinned and its length is passed.
                put = Write(fd, buffer, (nuint)bytes.Length);
            }
            if (put >= 0)
                bytes = bytes[(int)put..];
            else if (!WorthRetrying(fd, PollOut))
                return false;
        }
        return true;
    }

    // Somebody else who shares the terminal may have made it non-blocking: then wait, do not spin.
    private static bool WorthRetrying(int fd, short events)
    {
        var error = Marshal.GetLastPInvokeError();
        if (error == Interrupted)
            return true;
        if (error != TryAgain)
            return false;
        var wait = new PollFd { Fd = fd, Events = events };
        _ = Poll(ref wait, 1, -1);
        return true;
    }
}
