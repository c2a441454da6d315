using Xunit;

namespace ActorVmm.Testing.Guests;

/// <summary>A file of the host as a block device (losetup). Takes root, and a host with loop devices; a test skips where it has none.</summary>
public sealed class LoopDevice : IDisposable
{
    private LoopDevice(string path) => Path = path;

    /// <summary>/dev/loopN.</summary>
    public string Path { get; }

    /// <summary>Of all of <paramref name="file"/>.</summary>
    public static LoopDevice Of(string file, bool readOnly = false)
    {
        Skip.IfNot(Environment.IsPrivilegedProcess, "losetup needs root");
        Skip.IfNot(DiskImages.Tool("losetup"), "losetup (mount) is not installed");
        Skip.IfNot(File.Exists("/dev/loop-control"), "the host has no loop devices");
        return new LoopDevice(DiskImages.Run("losetup", ["--find", "--show", .. readOnly ? (string[])["--read-only"] : [], file]).Trim());
    }

    /// <summary>Looks at the size of its file again.</summary>
    public void Resize() => DiskImages.Run("losetup", ["--set-capacity", Path]);

    public void Dispose() => DiskImages.Run("losetup", ["--detach", Path]);
}

/// <summary>A file system of the host that is soon full: a tmpfs of a few MiB. Takes root; a test skips without.</summary>
public sealed class TinyFileSystem : IDisposable
{
    private TinyFileSystem(string path) => Path = path;

    /// <summary>Where it is mounted.</summary>
    public string Path { get; }

    public static TinyFileSystem Mount(int mib)
    {
        Skip.IfNot(Environment.IsPrivilegedProcess, "mount needs root");
        var path = Directory.CreateTempSubdirectory("actorvmm-tiny-").FullName;
        DiskImages.Run("mount", ["-t", "tmpfs", "-o", $"size={mib}m", "tmpfs", path]);
        return new TinyFileSystem(path);
    }

    public void Dispose()
    {
        DiskImages.Run("umount", [Path]);
        Directory.Delete(Path);
    }
}
