using System.Reflection;

namespace ActorVmm.Host.Api;

/// <summary>A page on which the API can be read and tried: it is made from the OpenAPI document, in the browser, and loads nothing
/// else.</summary>
internal static class ApiPage
{
    /// <summary>The program's version.</summary>
    public static string Version { get; } =
        Assembly.GetExecutingAssembly().GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion
            .Split('+')[0] ?? "0";

    /// <summary>The page.</summary>
    public static string Html => s_html.Value;

    private static readonly Lazy<string> s_html = new(static () =>
    {
        using var stream = Assembly.GetExecutingAssembly().GetManifestResourceStream("api.html")!;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    });
}
