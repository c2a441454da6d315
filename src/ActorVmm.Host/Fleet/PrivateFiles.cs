namespace ActorVmm.Host.Fleet;

/// <summary>Files and directories that are their owner's alone. (The checks for Windows are for the analyzer.)</summary>
internal static class PrivateFiles
{
    /// <summary>Makes a directory of mode 0700; one that is there stays as it is.</summary>
    public static void MakeDirectory(string path)
    {
        if (OperatingSystem.IsWindows() || Directory.Exists(path)) return;
        Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    /// <summary>Gives a file mode 0600.</summary>
    public static void Restrict(string path)
    {
        if (OperatingSystem.IsWindows()) return;
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }
}
