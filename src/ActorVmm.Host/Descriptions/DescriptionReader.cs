using System.Globalization;
using System.Text;

namespace ActorVmm.Host.Descriptions;

/// <summary>Reads descriptions of every kind. Everything that is wrong is a <see cref="DescriptionException"/> that names it.</summary>
public static class DescriptionReader
{
    /// <summary>
    /// Reads a description file. <c>*.json</c> with a top-level <c>kernel</c> and no <c>boot-source</c> is ActorVmm's own form in JSON, any
    /// other <c>*.json</c> is a Firecracker configuration, and any other file is HOCON.
    /// </summary>
    /// <param name="path">The file; relative paths in it start at its directory.</param>
    /// <param name="overrides"><c>--set</c> arguments, <c>key=value</c> each, in order.</param>
    /// <exception cref="DescriptionException">Everything that is wrong with it.</exception>
    public static VmDescription ReadFile(string path, IReadOnlyList<string>? overrides = null)
    {
        var bytes = ReadBytes(path);
        var isJson = string.Equals(Path.GetExtension(path), ".json", StringComparison.OrdinalIgnoreCase);
        return Read(bytes, path, isJson, Path.GetDirectoryName(Path.GetFullPath(path))!, overrides);
    }

    /// <summary>The whole of a file that may be a description or a part of one.</summary>
    internal static byte[] ReadBytes(string path)
    {
        try
        {
            using var file = File.OpenRead(path);
            return ReadAll(file, path);
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            var why = cannot is FileNotFoundException or DirectoryNotFoundException ? "no such file" : cannot.Message;
            throw new DescriptionException([new(path, 0, 0, "", null, $"cannot be read: {why}")]);
        }
    }

    /// <summary>Reads a description from memory.</summary>
    /// <param name="utf8">The text.</param>
    /// <param name="source">What to call it in errors.</param>
    /// <param name="isJson">Strict JSON rather than HOCON.</param>
    /// <param name="baseDirectory">Absolute; where relative paths start.</param>
    /// <param name="overrides"><c>--set</c> arguments.</param>
    public static VmDescription Read(
        ReadOnlySpan<byte> utf8, string source, bool isJson, string baseDirectory, IReadOnlyList<string>? overrides = null)
    {
        var errors = new ErrorList(source);
        if (utf8.Length > VmLimits.MaxFileBytes)
            throw new DescriptionException([new(source, 0, 0, "", null, "larger than 1 MiB: this is no VM description")]);
        var root = isJson ? JsonTree.Parse(utf8, errors) : HoconTree.Parse(Text(utf8, source), errors);
        var firecracker = isJson && !(root.Find("kernel") is not null && root.Find("boot-source") is null);
        if (overrides is not null && root.Kind == NodeKind.Object)
        {
            foreach (var setting in overrides)
                Override.Apply(root, setting, errors);
        }
        var description = Interpret(root, firecracker, baseDirectory, errors);
        errors.ThrowIfAny();
        return description!;
    }

    /// <summary>Validates a tree that was put together from flags.</summary>
    internal static VmDescription FromTree(Node root, string source, string baseDirectory)
    {
        var errors = new ErrorList(source);
        var description = Interpret(root, firecracker: false, baseDirectory, errors);
        errors.ThrowIfAny();
        return description!;
    }

    private static VmDescription? Interpret(Node root, bool firecracker, string baseDirectory, ErrorList errors)
    {
        if (firecracker)
            return FirecrackerDialect.Read(root, baseDirectory, errors);
        if (root.Find("boot-source") is { } boot)
        {
            errors.Add(boot, "boot-source", "a Firecracker configuration is strict JSON: give the file a name that ends in .json");
            return null;
        }
        if (root.Kind == NodeKind.Object)
            return NativeDialect.Read(root, baseDirectory, errors);
        errors.Add(root, "", "a description is an object { ... }");
        return null;
    }

    private static string Text(ReadOnlySpan<byte> utf8, string source)
    {
        try
        {
            return new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(utf8);
        }
        catch (DecoderFallbackException bad)
        {
            var line = utf8[..Math.Clamp(bad.Index, 0, utf8.Length)].Count((byte)'\n') + 1;
            throw new DescriptionException([new(source, line, 1, "", null, "not HOCON: the file is not valid UTF-8")]);
        }
    }

    // Bounded, so that a device or an endless pipe given by mistake does not fill the memory.
    private static byte[] ReadAll(FileStream file, string path)
    {
        var buffer = new byte[VmLimits.MaxFileBytes + 1];
        var length = file.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false);
        return length <= VmLimits.MaxFileBytes
            ? buffer[..length]
            : throw new DescriptionException([new(path, 0, 0, "", null,
                string.Create(CultureInfo.InvariantCulture, $"larger than {VmLimits.MaxFileBytes} bytes: this is no VM description"))]);
    }
}
