using Akka.Configuration;
using Akka.Configuration.Hocon;

namespace ActorVmm.Actors.Settings;

/// <summary>Turns keys into values, or into an error that names the key, the value and what is allowed.</summary>
internal static class Check
{
    public static int Range(Config config, string key, int least, int most)
    {
        var text = Text(config, key);
        return int.TryParse(text, out var value) && value >= least && value <= most
            ? value
            : throw new ConfigurationException($"{key} = {text}: a number from {least} to {most} is expected");
    }

    public static TimeSpan Duration(Config config, string key)
    {
        var text = Text(config, key);
        TimeSpan? value = null;
        try { value = config.GetTimeSpan(key, allowInfinite: false); }
        catch (Exception bad) when (bad is FormatException or ConfigurationException or OverflowException) { /* reported below */ }

        return value is { Ticks: > 0 } duration
            ? duration
            : throw new ConfigurationException($"{key} = {text}: a time such as 500ms or 5s, more than zero, is expected");
    }

    public static T OneOf<T>(Config config, string key) where T : struct, Enum
    {
        var text = Text(config, key);
        foreach (var value in Enum.GetValues<T>())
            if (string.Equals(value.ToString(), text, StringComparison.OrdinalIgnoreCase)) return value;
        throw new ConfigurationException($"{key} = {text}: one of {string.Join(", ", Enum.GetNames<T>()).ToLowerInvariant()} is expected");
    }

    /// <summary>Refuses keys of <paramref name="section"/> that <paramref name="shipped"/> does not have.</summary>
    public static void NoUnknownKeys(Config config, Config shipped, string section)
    {
        var known = Keys(shipped, section).ToHashSet(StringComparer.Ordinal);
        var unknown = Keys(config, section)
            .Where(key => !known.Contains(key) && !SupervisionSettings.IsDeviceKey(key)).Order(StringComparer.Ordinal).ToArray();
        if (unknown.Length > 0)
            throw new ConfigurationException(
                $"unknown: {string.Join(", ", unknown)}; known: {string.Join(", ", known.Order(StringComparer.Ordinal))}");
    }

    /// <summary>The names of the objects in <paramref name="section"/>; none where the section is missing.</summary>
    public static IEnumerable<string> Names(Config config, string section) =>
        config.HasPath(section) && config.GetValue(section) is { } value && value.IsObject() ? [.. value.GetObject().Items.Keys] : [];

    /// <summary>The paths of all values below <paramref name="section"/>.</summary>
    public static IEnumerable<string> Keys(Config config, string section)
    {
        if (!config.HasPath(section)) return [];
        return Walk(config.GetValue(section), section);
    }

    private static IEnumerable<string> Walk(HoconValue value, string path) =>
        value.IsObject()
            ? value.GetObject().Items.SelectMany(item => Walk(item.Value, $"{path}.{item.Key}"))
            : [path];

    private static string Text(Config config, string key) =>
        config.GetString(key) is { Length: > 0 } text ? text : throw new ConfigurationException($"{key} has no value");
}
