using System.Diagnostics;
using Xunit;

namespace ActorVmm.Testing.Guests;

/// <summary>
/// Disk images for the tests, made with the host's own tools: empty ones, ext4 ones, and a small root or tools file system. A test whose tool
/// is missing skips, by its name.
/// </summary>
public static class DiskImages
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(3);

    /// <summary>A sparse file without a file system.</summary>
    public static string Raw(string directory, string name, int mib)
    {
        var path = Path.Combine(directory, name);
        using var file = File.Create(path);
        file.SetLength((long)mib << 20);
        return path;
    }

    /// <summary>An ext4 file system that holds what is below <paramref name="content"/>.</summary>
    public static string Ext4(string directory, string name, int mib, string? content = null)
    {
        var path = Path.Combine(directory, name);
        string[] from = content is null ? [] : ["-d", content];
        Run("mke2fs", ["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", .. from, path, $"{mib}M"]);
        return path;
    }

    /// <summary>An ext4 file system with the host's fio and the libraries it needs, to be mounted and entered with chroot.</summary>
    public static string Tools(string directory) => Tools(directory, "fio");

    /// <summary>The same, with another program of <c>/usr/bin</c>.</summary>
    public static string Tools(string directory, string program)
    {
        Skip.IfNot(File.Exists($"/usr/bin/{program}"), $"{program} is not installed");
        Skip.IfNot(Tool("mke2fs"), "mke2fs (e2fsprogs) is not installed");
        var root = Path.Combine(directory, "tools");
        foreach (var name in (string[])["dev", "proc", "mnt", "tmp"]) Directory.CreateDirectory(Path.Combine(root, name));
        foreach (var file in (string[])[$"/usr/bin/{program}", .. Libraries($"/usr/bin/{program}")])
        {
            var to = root + file;
            Directory.CreateDirectory(Path.GetDirectoryName(to)!);
            File.Copy(file, to, overwrite: true); // what a link leads to
        }
        return Ext4(directory, "tools.ext4", 160, root);
    }

    /// <summary>A root file system of busybox alone, whose <c>/sbin/init</c> is the script.</summary>
    public static string Root(string directory, string name, string busybox, string init)
    {
        Skip.IfNot(Tool("mke2fs"), "mke2fs (e2fsprogs) is not installed");
        var root = Path.Combine(directory, name + ".d");
        foreach (var place in (string[])["dev", "proc", "sys", "bin", "sbin", "root", "tmp"]) Directory.CreateDirectory(Path.Combine(root, place));
        File.Copy(busybox, Path.Combine(root, "bin/busybox"), overwrite: true);
        File.WriteAllText(Path.Combine(root, "sbin/init"), init);
        foreach (var file in (string[])["bin/busybox", "sbin/init"])
            File.SetUnixFileMode(Path.Combine(root, file), (UnixFileMode)0b111_101_101);
        return Ext4(directory, name, 64, root);
    }

    /// <summary>Fails where the file system is not clean; with <paramref name="replay"/> its journal is played back first.</summary>
    public static void Check(string path, bool replay = false)
    {
        Skip.IfNot(Tool("e2fsck"), "e2fsck (e2fsprogs) is not installed");
        // -p replays the journal and mends nothing that needs a question; 1 says that it did something.
        if (replay) Run("e2fsck", ["-p", path], allowed: 1);
        Run("e2fsck", ["-fn", path]);
    }

    /// <summary>A file out of an ext4 image, without mounting it.</summary>
    public static byte[] Read(string image, string file)
    {
        var to = image + ".out";
        File.Delete(to);
        Run("debugfs", ["-R", $"dump {file} {to}", image]);
        return File.Exists(to) ? File.ReadAllBytes(to) : [];
    }

    public static bool Tool(string name) => ((string[])["/usr/sbin", "/sbin", "/usr/bin", "/bin"]).Any(at => File.Exists(Path.Combine(at, name)));

    /// <summary>Runs a program of the host to its end.</summary>
    public static string Run(string program, IReadOnlyList<string> arguments, int allowed = 0)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["PATH"] = Environment.GetEnvironmentVariable("PATH") + ":/usr/sbin:/sbin";
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        if (!process.WaitForExit(Patience)) process.Kill(entireProcessTree: true);
        if (process.ExitCode > allowed)
            throw new InvalidOperationException($"{program} {string.Join(' ', arguments)} ended with {process.ExitCode}:\n{output}\n{errors.Result}");
        return output;
    }

    // "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x...)", and the loader by its path alone.
    private static IEnumerable<string> Libraries(string program) =>
        Run("ldd", [program]).Split('\n')
            .Select(line => line.Trim().Split(" => ").Last().Split(" (")[0])
            .Where(path => path.StartsWith('/') && File.Exists(path));
}
