using System.Globalization;
using System.Text.RegularExpressions;

namespace ActorVmm.Host.Descriptions;

/// <summary>Checks that both dialects share.</summary>
internal static partial class DescriptionChecks
{
    [GeneratedRegex(@"\A[A-Za-z0-9_-]{1,64}\z", RegexOptions.CultureInvariant)]
    private static partial Regex NamePattern();

    public static bool IsName(string name) => NamePattern().IsMatch(name);

    /// <summary>What is wrong with a kernel command line, or null.</summary>
    public static string? CommandLineFault(string line)
    {
        if (line.Length > VmLimits.MaxCommandLineBytes)
        {
            return string.Create(CultureInfo.InvariantCulture,
                $"{line.Length} bytes; Linux keeps at most {VmLimits.MaxCommandLineBytes} and a terminating zero");
        }
        return line.All(c => c is >= ' ' and <= '~') ? null : "has characters that are not printable ASCII";
    }

    /// <summary>
    /// The absolute path of a file that can be opened for reading; null where it cannot, with the error recorded. <c>~/</c> at the start is
    /// the user's home.
    /// </summary>
    public static string? File(ObjectReader reader, string key, string? path, string baseDirectory)
    {
        if (path is null)
            return null;
        if (path.Length == 0)
        {
            reader.Reject(key, "empty; allowed is the path of a file");
            return null;
        }
        try
        {
            var full = System.IO.Path.GetFullPath(FromHome(path), baseDirectory);
            if (Directory.Exists(full))
            {
                reader.Reject(key, "is a directory; allowed is the path of a file");
                return null;
            }
            System.IO.File.OpenHandle(full).Dispose();
            return full;
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            var why = cannot is FileNotFoundException or DirectoryNotFoundException ? "no such file" : cannot.Message;
            reader.Reject(key, $"cannot be opened: {why} (relative paths start at {baseDirectory})");
            return null;
        }
    }

    /// <summary>An absolute path; <c>~/</c> at the start is the user's home.</summary>
    public static string FullPath(string path, string baseDirectory) => System.IO.Path.GetFullPath(FromHome(path), baseDirectory);

    private static string FromHome(string path)
    {
        if (!path.StartsWith("~/", StringComparison.Ordinal)) return path;
        var home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile, Environment.SpecialFolderOption.DoNotVerify);
        return home.Length > 0 ? System.IO.Path.Combine(home, path[2..]) : path;
    }
}
