namespace ActorVmm.Host.Tests;

internal static class Repository
{
    /// <summary>The directory of the solution.</summary>
    public static string Root { get; } = Find(AppContext.BaseDirectory);

    /// <summary>A shipped description whose files are beside it instead of in the cache.</summary>
    public static string Example(string name) => File.ReadAllText(Path.Combine(Root, "config", name))
        .Replace("~/.cache/actorvmm/debian-cloud-amd64/", "", StringComparison.Ordinal)
        .Replace("~/.cache/actorvmm/images/", "", StringComparison.Ordinal);

    private static string Find(string directory) =>
        File.Exists(Path.Combine(directory, "ActorVmm.sln")) ? directory : Find(Path.GetDirectoryName(directory)!);
}
