using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace ActorVmm.Host.Guests;

/// <summary>Where a file of the guest comes from.</summary>
/// <param name="Name">Debian package.</param>
/// <param name="Version">Its version.</param>
/// <param name="Sha256">Of the .deb.</param>
public sealed record GuestPackage(string Name, string Version, string Sha256);

/// <summary>What is in the cache: packages with versions, and the SHA-256 of every file.</summary>
internal sealed record GuestManifest(int Format, string KernelRelease, IReadOnlyList<GuestPackage> Packages,
    SortedDictionary<string, string> Files)
{
    public const int CurrentFormat = 1;
    public const string FileName = "manifest.json";

    public static async Task<GuestManifest?> TryReadAsync(string directory, CancellationToken cancel)
    {
        try
        {
            await using var file = File.OpenRead(Path.Combine(directory, FileName));
            var manifest = await JsonSerializer.DeserializeAsync(file, ManifestJson.Default.GuestManifest, cancel);
            return manifest is { Format: CurrentFormat, KernelRelease.Length: > 0, Packages.Count: > 0, Files.Count: > 0 }
                ? manifest : null;
        }
        catch (Exception damaged) when (damaged is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    public async Task WriteAsync(string directory, CancellationToken cancel)
    {
        await using var file = File.Create(Path.Combine(directory, FileName));
        await JsonSerializer.SerializeAsync(file, this, ManifestJson.Default.GuestManifest, cancel);
    }

    /// <summary>Whether a file is there and is what was recorded.</summary>
    public async Task<bool> HoldsAsync(string directory, string name, CancellationToken cancel)
    {
        var path = Path.Combine(directory, name);
        return Files.TryGetValue(name, out var expected) && File.Exists(path)
            && string.Equals(await Sha256Async(path, cancel), expected, StringComparison.OrdinalIgnoreCase);
    }

    public static async Task<string> Sha256Async(string path, CancellationToken cancel)
    {
        await using var file = File.OpenRead(path);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(file, cancel));
    }
}

[JsonSourceGenerationOptions(WriteIndented = true)]
[JsonSerializable(typeof(GuestManifest))]
internal sealed partial class ManifestJson : JsonSerializerContext;
