using Akka.Configuration;

namespace ActorVmm.Host.Logging;

/// <summary>Finds and reads akka.hocon, the operator's one file.</summary>
public static class OperatorSettings
{
    /// <summary>Names another file; the launcher points it at the one in the repository.</summary>
    public const string Variable = "ACTORVMM_CONFIG";

    /// <summary>The file in use: what <see cref="Variable"/> names, else the one beside the program.</summary>
    public static string FilePath =>
        Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } named
            ? named
            : Path.Combine(AppContext.BaseDirectory, "akka.hocon");

    /// <summary>Reads the file.</summary>
    /// <exception cref="ConfigurationException">It cannot be read or is no HOCON; the message names it.</exception>
    public static Config Load(string? path = null)
    {
        path ??= FilePath;
        try
        {
            return ConfigurationFactory.ParseString(File.ReadAllText(path));
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"{path} cannot be read: {cannot.Message} ({Variable} names another file)", cannot);
        }
        catch (Exception wrong)
            when (wrong is FormatException or ConfigurationException or InvalidOperationException or NullReferenceException)
        {
            throw new ConfigurationException($"{path} is not HOCON: {wrong.Message}", wrong);
        }
    }
}
