using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>A fact that needs a tool of the host; where it is missing, the test says so and is skipped.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class ToolFactAttribute : FactAttribute
{
    public ToolFactAttribute(string tool)
    {
        Tool = tool;
        if (Find(tool) is null) Skip = $"{tool} is not installed; a second opinion only, the other tests need no tool";
    }

    public string Tool { get; }

    public static string? Find(string tool) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
        .Select(directory => Path.Combine(directory, tool)).FirstOrDefault(File.Exists);
}
