using System.Text;
using ActorVmm.Boot.Kernel;
using ActorVmm.Host.Guests;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>Kernel and initramfs for all tests, fetched by the program's own code on first use.</summary>
public sealed class GuestFiles : IAsyncLifetime
{
    private const ulong LargestKernel = 512 << 20;

    private readonly string _directory = Path.Combine(Path.GetTempPath(), $"actorvmm-e2e-{Environment.ProcessId}");

    /// <summary>The stock guest: shell on the serial port.</summary>
    public GuestImage Image { get; private set; } = null!;

    /// <summary>The same, but <c>/init</c> halts before there is a shell.</summary>
    public GuestImage Halting { get; private set; } = null!;

    /// <summary>The ELF inside <see cref="GuestImage.KernelPath"/>.</summary>
    public string VmlinuxPath { get; private set; } = "";

    /// <summary>A directory for files of the tests, removed at the end.</summary>
    public string Directory => _directory;

    public async Task InitializeAsync()
    {
        System.IO.Directory.CreateDirectory(_directory);
        var cache = new GuestCache();
        Image = await GuestImage.PrepareAsync(cache);
        Halting = await GuestImage.PrepareAsync(cache, new GuestImageOptions
        {
            Files = new Dictionary<string, byte[]>(StringComparer.Ordinal)
            {
                ["init.local"] = Encoding.ASCII.GetBytes("#!/bin/busybox sh\nhalt -f\n"),
            },
        });
        VmlinuxPath = Path.Combine(_directory, "vmlinux");
        using var image = ImageSource.Open(Image.KernelPath, "kernel");
        await File.WriteAllBytesAsync(VmlinuxPath, Payload.Unpack(image, BzImage.Parse(image), LargestKernel));
    }

    public Task DisposeAsync()
    {
        System.IO.Directory.Delete(_directory, recursive: true);
        return Task.CompletedTask;
    }
}

/// <summary>Guests run one after the other: each wants the whole machine, and deadlines are wall time.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class LinuxGuests : ICollectionFixture<GuestFiles>
{
    public const string Name = "Linux guests";
}
