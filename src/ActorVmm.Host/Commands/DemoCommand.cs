using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Backends.Disks;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Guests;
using ActorVmm.Host.Terminal;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Commands;

/// <summary>What <c>demo</c> was asked for.</summary>
internal sealed record DemoOptions(
    string Hypervisor, ClockMode Clock, int Vcpus, int MemoryMib, string? Kernel, string? Initrd, string? CommandLine,
    bool Refresh, bool Verbose)
{
    /// <summary>The system on a disk instead of the initramfs: a file, or "" for the Debian disk of the cache; null for none.</summary>
    public string? Disk { get; init; }

    /// <summary>What the guest's network interface is connected to; null for none.</summary>
    public NetBackend? Net { get; init; }
}

/// <summary>Boots a Debian kernel with a busybox shell, fetching both on first use.</summary>
internal sealed class DemoCommand(HostServices services, ConsoleDescriptors descriptors)
{
    /// <summary>
    /// The demo's kernel command line.
    /// <list type="bullet">
    /// <item><c>console=ttyS0,115200n8r</c>: the boot log and the shell are on the serial port; <c>r</c> turns RTS/CTS flow control on from
    /// the first byte, so that input waits while the guest is busy. There is no <c>quiet</c>: the boot log is what the demo shows.</item>
    /// <item><c>reboot=k</c>: a reset through the keyboard controller, the one way that needs neither ACPI nor luck.</item>
    /// <item><c>panic=-1</c>: a panic ends the run at once instead of waiting for somebody to read the screen.</item>
    /// <item><c>8250.nr_uarts=1</c>: one port is there; looking for three more costs thousands of exits.</item>
    /// <item><c>i8042.noaux i8042.nomux i8042.dumbkbd</c>: the keyboard controller has no mouse and no keyboard to wait for.</item>
    /// <item><c>pci=off</c>: there is no PCI bus to search.</item>
    /// </list>
    /// </summary>
    public const string CommandLine =
        "console=ttyS0,115200n8r reboot=k panic=-1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off";

    public async Task<int> RunAsync(DemoOptions options)
    {
        string kernel;
        string? initrd;
        string? greeting = null;
        string? disk = null;
        try
        {
            if (options.Disk is not null && (options.Kernel is null || options.Disk.Length > 0))
                disk = await DiskAsync(options);
            if (options.Kernel is { } own)
            {
                (kernel, initrd) = (own, options.Initrd);
            }
            else
            {
                var image = await GuestProgress.ShowAsync(descriptors.Errors, Libc.IsTerminal(2), progress =>
                    GuestImage.PrepareAsync(new GuestCache(progress: progress), disk is null
                        && options.Net is null ? null : GuestImageOptions.WithDisks,
                        options.Refresh && disk is null));
                (kernel, initrd) = (image.KernelPath, options.Initrd ?? image.InitramfsPath);
                greeting = options.Initrd is null ? GuestImage.Greeting : null;
            }
        }
        catch (GuestException cannot)
        {
            await descriptors.Errors.WriteLineAsync($"actorvmm: {cannot.Message}");
            return ExitCodes.Failure;
        }
        var description = new VmDescription
        {
            Name = "demo", Hypervisor = options.Hypervisor, Clock = options.Clock, Vcpus = options.Vcpus, MemoryMib = options.MemoryMib,
            Kernel = new KernelSpec
            {
                Path = Path.GetFullPath(kernel), InitrdPath = initrd is null ? null : Path.GetFullPath(initrd),
                CommandLine = options.CommandLine
                    ?? CommandLine + Console(options.Clock) + (options.Net is null ? "" : " actorvmm.net=dhcp"),
            },
            Devices = DeviceDescriptions.None with
            {
                Disks = disk is null ? []
                    : [new DiskSpec { Id = "rootfs", Path = disk, IsRoot = true, Writeback = true, Engine = IoEngine.Async }],
                Nets = options.Net is null ? [] : [new NetSpec { Id = "eth0", Backend = options.Net }],
                // The initramfs has virtio drivers where one of the two is wanted; a system with keys to make should not wait for chance.
                Entropy = disk is null && options.Net is null ? null : new EntropySpec(),
            },
        };
        return await new VmRunner(services, descriptors).RunAsync(description, options.Verbose, greeting);
    }

    /// <summary>The disk to run: the user's, or the demo's own, which keeps what is written to it.</summary>
    private async Task<string> DiskAsync(DemoOptions options)
    {
        if (options.Disk is { Length: > 0 } own) return Path.GetFullPath(own);
        return await GuestProgress.ShowAsync(descriptors.Errors, Libc.IsTerminal(2), async progress =>
        {
            var cache = new GuestCache(progress: progress);
            var disk = Path.Combine(cache.DirectoryOf("disks"), "demo.ext4");
            if (!options.Refresh && File.Exists(disk)) return disk;
            // The packages of kernel and disk are renewed together.
            if (options.Refresh) await cache.GetAsync(refresh: true);
            var image = await RootImage.PrepareAsync(cache, refresh: options.Refresh);
            await image.CopyToAsync(disk);
            return disk;
        });
    }

    // What the guest's /init wants to know about the outside. Under virtual time the host's window must not be part of the run.
    private string Console(ClockMode clock)
    {
        if (!Libc.IsTerminal(descriptors.Input))
            return " actorvmm.input=script";
        return clock == ClockMode.Host && Libc.SizeOf(descriptors.Input) is { } size
            ? string.Create(CultureInfo.InvariantCulture, $" actorvmm.rows={size.Rows} actorvmm.columns={size.Columns}")
            : "";
    }
}
