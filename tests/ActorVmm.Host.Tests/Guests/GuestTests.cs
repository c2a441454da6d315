using System.Text;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Guests;

namespace ActorVmm.Host.Tests.Guests;

public sealed class DebianPackagesTests
{
    [Fact]
    public void A_stanza_of_apt_cache_is_read()
    {
        var package = DebianPackages.Parse("busybox-static", "Package: busybox-static\nVersion: 1:1.35.0-4\nDepends: a, b (= 1)\nDescription-en: x\n Version: no\nSHA256: ABCD\n");
        Assert.Equal(new DebianPackage("busybox-static", "1:1.35.0-4", "ABCD", "a, b (= 1)"), package);
        Assert.Null(DebianPackages.Parse("x", "Package: x\nVersion: 1\n"));
        Assert.Null(DebianPackages.Parse("x", ""));
    }
}

public sealed class KernelModulesTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    // An ELF64 file with a section name table and a .modinfo section.
    private static byte[] Module(string information)
    {
        var names = "\0.modinfo\0.shstrtab\0"u8.ToArray();
        var body = Encoding.ASCII.GetBytes(information.Replace('|', '\0') + "\0");
        var elf = new byte[64 + names.Length + body.Length + (3 * 64)];
        "\x7f"u8.CopyTo(elf);
        "ELF\x02\x01\x01"u8.CopyTo(elf.AsSpan(1));
        var table = 64 + names.Length + body.Length;
        BitConverter.TryWriteBytes(elf.AsSpan(40), (ulong)table);
        BitConverter.TryWriteBytes(elf.AsSpan(58), (ushort)64);
        BitConverter.TryWriteBytes(elf.AsSpan(60), (ushort)3);
        BitConverter.TryWriteBytes(elf.AsSpan(62), (ushort)2);
        names.CopyTo(elf, 64);
        body.CopyTo(elf, 64 + names.Length);
        Section(1, name: 1, 64 + names.Length, body.Length);
        Section(2, name: 10, 64, names.Length);
        return elf;

        void Section(int index, int name, int offset, int size)
        {
            var at = elf.AsSpan(table + (64 * index));
            BitConverter.TryWriteBytes(at, name);
            BitConverter.TryWriteBytes(at[24..], (ulong)offset);
            BitConverter.TryWriteBytes(at[32..], (ulong)size);
        }
    }

    private void Add(string name, string depends) => File.WriteAllBytes(_here.Write("kernel/" + name + ".ko", ""), Module($"license=GPL|depends={depends}|name={name}"));

    [Fact]
    public void Modules_are_loaded_after_what_they_depend_on()
    {
        Add("virtio", "");
        Add("virtio_ring", "virtio");
        Add("virtio_mmio", "virtio,virtio_ring");
        Add("pvpanic-mmio", "pvpanic");
        Add("pvpanic", "");

        Assert.Equal(["virtio", "virtio_ring", "virtio_mmio", "pvpanic", "pvpanic_mmio"],
            new KernelModules(_here.Path).InLoadOrder(["virtio-mmio", "pvpanic-mmio", "virtio", "built_in"]));
    }

    [Fact]
    public void A_cycle_or_a_missing_dependency_ends()
    {
        Add("a", "b,nowhere");
        Add("b", "a");
        Assert.Equal(["b", "a"], new KernelModules(_here.Path).InLoadOrder(["a"]));
    }

    [Fact]
    public void The_modules_dep_of_depmod_comes_first()
    {
        Add("a", "wrong");
        Add("b", "");
        _here.Write("modules.dep", "kernel/a.ko: kernel/b.ko\nkernel/b.ko:\n");
        Assert.Equal(["b", "a"], new KernelModules(_here.Path).InLoadOrder(["a"]));
    }

    [Fact]
    public void Damaged_modules_have_no_dependencies()
    {
        var whole = Module("depends=x");
        Assert.Equal("x", KernelModules.ModuleInfo(whole, "depends"));
        for (var length = 0; length < whole.Length; length++)
            Assert.Contains(KernelModules.ModuleInfo(whole.AsSpan(0, length), "depends"), (string[])["", "x"]);
        CsCheck.Check.Sample(CsCheck.Gen.Select(CsCheck.Gen.Int[0, whole.Length - 1], CsCheck.Gen.Byte), (at, value) =>
        {
            var damaged = whole.ToArray();
            damaged[at] = value;
            _ = KernelModules.ModuleInfo(damaged, "depends");
        });
    }
}

/// <summary>The real packages: fetched on the first run, from the cache on all others.</summary>
public sealed class GuestCacheTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private sealed class Steps : IGuestProgress
    {
        public List<string> Heard { get; } = [];

        public void Report(string step, double? fraction)
        {
            lock (Heard)
                Heard.Add(step);
        }
    }

    private static void Copy(string from, string to)
    {
        foreach (var file in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories))
        {
            var target = Path.Combine(to, Path.GetRelativePath(from, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }
    }

    [Fact]
    public async Task A_whole_guest_comes_from_the_cache_and_a_damaged_one_is_fetched_again()
    {
        var shared = await new GuestCache().GetAsync();
        Assert.Contains("cloud-amd64", shared.KernelRelease, StringComparison.Ordinal);
        Assert.Equal(2, shared.Packages.Count);
        Copy(Path.GetDirectoryName(shared.KernelPath)!, Path.Combine(_here.Path, "cache", "debian-cloud-amd64"));

        var steps = new Steps();
        var cache = new GuestCache(Path.Combine(_here.Path, "cache"), steps);
        var whole = await cache.GetAsync();
        Assert.Empty(steps.Heard);

        var sum = await GuestManifest.Sha256Async(whole.KernelPath, default);
        await using (var kernel = File.OpenWrite(whole.KernelPath))
        {
            kernel.Position = 100_000;
            kernel.WriteByte(0x5a);
            kernel.WriteByte(0xa5);
        }
        // Two at once: one fetches, the other waits for it.
        var both = await Task.WhenAll(cache.GetAsync(), new GuestCache(Path.Combine(_here.Path, "cache")).GetAsync());
        Assert.Contains(steps.Heard, step => step.StartsWith("Fetching", StringComparison.Ordinal) || step.StartsWith("Waiting", StringComparison.Ordinal));
        Assert.Equal(both[0].KernelPath, both[1].KernelPath);
        if (both[0].Packages.SequenceEqual(shared.Packages))
            Assert.Equal(sum, await GuestManifest.Sha256Async(both[0].KernelPath, default));
        Assert.Empty(Directory.EnumerateDirectories(Path.Combine(_here.Path, "cache"), ".new-*"));
    }

    [Fact]
    public async Task The_initramfs_is_the_same_bytes_for_the_same_guest_and_holds_what_was_asked_for()
    {
        var cache = new GuestCache();
        var options = new GuestImageOptions
        {
            Modules = ["virtio_mmio", "pvpanic-mmio"], Files = new Dictionary<string, byte[]>(StringComparer.Ordinal) { ["init.local"] = "#!/bin/sh\n"u8.ToArray() },
        };
        var images = await Task.WhenAll(GuestImage.PrepareAsync(cache, options), GuestImage.PrepareAsync(cache, options));
        Assert.Equal(images[0].InitramfsPath, images[1].InitramfsPath);

        var archive = await File.ReadAllBytesAsync(images[0].InitramfsPath);
        Assert.Equal(archive, GuestImage.Build(images[0].Guest, options));
        var text = Encoding.Latin1.GetString(archive);
        foreach (var part in (string[])["init.local", "modules/virtio_mmio.ko", "virtio_ring.ko\n", "virtio_mmio.ko\npvpanic.ko\npvpanic_mmio.ko\n", "dev/console", GuestImage.Greeting, "bin/busybox"])
            Assert.Contains(part, text, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => GuestImage.Build(images[0].Guest, new GuestImageOptions { Files = new Dictionary<string, byte[]>(StringComparer.Ordinal) { ["init"] = [] } }));
    }

    [Fact]
    public async Task The_examples_in_config_are_valid_once_the_demos_guest_is_in_the_cache()
    {
        var image = await GuestImage.PrepareAsync(new GuestCache());
        var named = Path.Combine(Path.GetDirectoryName(image.InitramfsPath)!, GuestImage.StandardName);
        Assert.Equal(await File.ReadAllBytesAsync(image.InitramfsPath), await File.ReadAllBytesAsync(named));

        // The examples name the cache by its usual place, which XDG_CACHE_HOME may move.
        var cache = Path.GetDirectoryName(Path.GetDirectoryName(image.KernelPath))!;
        foreach (var example in Directory.EnumerateFiles(Path.Combine(Repository.Root, "config")))
        {
            var text = (await File.ReadAllTextAsync(example)).Replace("~/.cache/actorvmm", cache, StringComparison.Ordinal);
            if (example.EndsWith(".service", StringComparison.Ordinal)) continue;
            var file = _here.Write(Path.GetFileName(example), text);
            var vms = example.EndsWith("fleet.conf", StringComparison.Ordinal)
                ? ActorVmm.Host.Fleet.FleetReader.ReadFile(file).Vms.Select(vm => vm.Vm) : [DescriptionReader.ReadFile(file, [])];
            Assert.All(vms, vm => Assert.Equal((image.KernelPath, named), (vm.Kernel.Path, vm.Kernel.InitrdPath)));
        }
    }

    [Fact]
    public async Task A_cache_that_cannot_be_written_is_named()
    {
        var file = _here.Write("file", "");
        var wrong = await Assert.ThrowsAsync<GuestException>(() => new GuestCache(Path.Combine(file, "cache")).GetAsync());
        Assert.Contains("XDG_CACHE_HOME chooses another place", wrong.Message, StringComparison.Ordinal);
    }
}
