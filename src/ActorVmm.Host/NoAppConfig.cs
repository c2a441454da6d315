using System.Configuration;
using System.Configuration.Internal;
using System.Reflection;

namespace ActorVmm.Host;

/// <summary>
/// Akka asks .NET's old <c>app.config</c> for a section whenever a system starts, also where it was given all its settings. There is none:
/// saying so beforehand saves the search for files and XML at each start, which a program compiled ahead of time cannot do at all.
/// </summary>
internal sealed class NoAppConfig : IInternalConfigSystem
{
    private static readonly Lazy<bool> s_installed = new(Install);

    private NoAppConfig()
    {
    }

    public bool SupportsUserConfig => false;

    /// <summary>Takes the place of the search, once per process. Where it cannot, or somebody has searched before, all stays as it was.</summary>
    public static bool Ensure() => s_installed.Value;

    public object? GetSection(string configKey) => null;

    public void RefreshConfig(string sectionName)
    {
        // Nothing was read.
    }

    private static bool Install()
    {
        // Hosts of web applications put themselves in its place by this method; it is not public.
        var set = typeof(ConfigurationManager).GetMethod("SetConfigurationSystem", BindingFlags.Static | BindingFlags.NonPublic);
        if (set is null) return false;
        try
        {
            set.Invoke(null, [new NoAppConfig(), true]);
            return true;
        }
        catch (TargetInvocationException taken) when (taken.InnerException is InvalidOperationException)
        {
            return false;
        }
    }
}
