using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

namespace ActorVmm.Bench;

/// <summary>
/// The peer of the benchmarks that run guests: QEMU's microvm on its translator (TCG), one thread per vCPU, devices on virtio-mmio as ours.
/// The one place that says how it is started.
/// </summary>
/// <remarks>
/// Under TCG a stock kernel cannot tell the time of this machine: its ACPI tables are hardware-reduced, so the kernel calibrates against no
/// interval timer, and there is no HPET, no PM timer and no CPUID leaf with a frequency. The guest's TSC is the host's, so its frequency is
/// measured here and given on the command line; the kernel then takes the TSC as its clock and has high-resolution timers.
/// The CPU is QEMU's default: with <c>-cpu max</c> the kernel uses more of what is slow to emulate, which would flatter us.
/// </remarks>
internal static unsafe partial class QemuMicrovm
{
    /// <summary>Ahead of what the caller says: console, and the clock.</summary>
    private const string CommandLine = "console=ttyS0,115200n8r panic=-1 reboot=t 8250.nr_uarts=1";

    private static readonly Lazy<long> s_tscKhz = new(MeasureTsc);

    /// <summary>
    /// The arguments of qemu-system-x86_64. What follows the machine, such as <see cref="Disk"/>s, is <paramref name="devices"/>.
    /// </summary>
    public static string[] Arguments(
        string kernel, string initrd, int memoryMib, string commandLine = "", int cpus = 1, IEnumerable<string>? devices = null) =>
    [
        "-accel", "tcg", "-M", "microvm,rtc=on", "-cpu", "qemu64", "-smp", Invariant($"{cpus}"), "-m", Invariant($"{memoryMib}"),
        "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
        "-global", "virtio-mmio.force-legacy=false", .. devices ?? [],
        "-kernel", kernel, "-initrd", initrd,
        "-append", Invariant($"{CommandLine} tsc_early_khz={s_tscKhz.Value} tsc=reliable {commandLine}").TrimEnd(),
    ];

    /// <summary>A disk on virtio-mmio; its name is unique among the machine's disks.</summary>
    public static string[] Disk(string name, string path, bool readOnly = false, int queueSize = 256) =>
    [
        "-drive", $"id={name},file={path},format=raw,if=none,cache=writeback,aio=threads{(readOnly ? ",readonly=on" : "")}",
        "-device", Invariant($"virtio-blk-device,drive={name},queue-size={queueSize}"),
    ];

    /// <summary>A network interface on virtio-mmio, behind an existing tap.</summary>
    public static string[] Tap(string name, string tap) =>
    [
        "-netdev", $"tap,id={name},ifname={tap},script=no,downscript=no,vnet_hdr=on", "-device", $"virtio-net-device,netdev={name}",
    ];

    /// <summary>Ticks of the host's time-stamp counter in a millisecond, against the host's monotonic clock.</summary>
    private static long MeasureTsc()
    {
        if (RuntimeInformation.ProcessArchitecture != Architecture.X64) throw new PlatformNotSupportedException("QEMU's TSC is the host's");
        const int page = 4096, readWrite = 3, readExecute = 5, privateAnonymous = 0x22;
        var code = Map(null, page, readWrite, privateAnonymous, -1, 0);
        if ((nint)code == -1) throw new InvalidOperationException($"mmap: error {Marshal.GetLastPInvokeError()}");
        // rdtsc; shl rdx, 32; or rax, rdx; ret
        ReadOnlySpan<byte> stub = [0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20, 0x48, 0x09, 0xD0, 0xC3];
        // SAFETY: the stub lies in a page of its own, keeps to the C calling convention, and the page is unmapped after its last call.
        stub.CopyTo(new Span<byte>(code, stub.Length));
        if (Protect(code, page, readExecute) != 0) throw new InvalidOperationException($"mprotect: error {Marshal.GetLastPInvokeError()}");
        var read = (delegate* unmanaged<ulong>)code;
        var (clock, ticks) = (Stopwatch.GetTimestamp(), read());
        while (Stopwatch.GetElapsedTime(clock).TotalMilliseconds < 200) Thread.Yield();
        var passed = read() - ticks;
        var khz = (long)Math.Round(passed / Stopwatch.GetElapsedTime(clock).TotalMilliseconds);
        _ = Unmap(code, page);
        return khz;
    }

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial byte* Map(void* address, nuint length, int protection, int flags, int file, nint offset);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    private static partial int Protect(void* address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int Unmap(void* address, nuint length);
}
