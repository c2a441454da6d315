using System.Diagnostics;

namespace ActorVmm.Host.Tests;

public sealed class LauncherTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private static (int Status, string Errors) Run(string script, IDictionary<string, string> environment, params string[] arguments)
    {
        var start = new ProcessStartInfo("/bin/bash") { RedirectStandardError = true, RedirectStandardOutput = true };
        start.ArgumentList.Add(script);
        foreach (var argument in arguments)
            start.ArgumentList.Add(argument);
        foreach (var (name, value) in environment)
            start.Environment[name] = value;
        using var process = Process.Start(start)!;
        _ = process.StandardOutput.ReadToEndAsync();
        var errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, errors);
    }

    /// <summary>A repository with a fake dotnet that records its calls.</summary>
    private Dictionary<string, string> FakeRepository(string sdks)
    {
        File.Copy(Path.Combine(Repository.Root, "actorvmm"), Path.Combine(_here.Path, "actorvmm"));
        _here.Write("akka.hocon", "");
        _here.Write(".editorconfig", "");
        _here.Write("Directory.Build.props", "");
        _here.Write("src/ActorVmm.Host/Program.cs", "");
        var dotnet = _here.Write("bin/dotnet", $$"""
            #!/bin/bash
            if [ "$1" = --list-sdks ]; then echo '{{sdks}}'; exit; fi
            echo "$*" >>"{{_here.Path}}/calls"
            if [ "$1" = publish ]; then mkdir -p "$2/bin/program"; touch "$2/bin/program/actorvmm.dll"; fi
            """);
        File.SetUnixFileMode(dotnet, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        return new(StringComparer.Ordinal) { ["PATH"] = Path.Combine(_here.Path, "bin") + ":/usr/bin:/bin" };
    }

    private string[] Calls => File.ReadAllLines(Path.Combine(_here.Path, "calls"));

    [Fact]
    public void It_builds_when_a_source_is_newer_and_only_then_and_passes_its_arguments_on()
    {
        var environment = FakeRepository("10.0.100 [/x]");
        var script = Path.Combine(_here.Path, "actorvmm");
        Assert.Equal(0, Run(script, environment, "demo", "a b").Status);
        Assert.Equal(0, Run(script, environment, "check").Status);
        Assert.Equal(["publish", "exec", "exec"], Calls.Select(call => call.StartsWith("publish ", StringComparison.Ordinal) ? "publish" : "exec"));
        Assert.EndsWith("actorvmm.dll demo a b", Calls[1], StringComparison.Ordinal);

        File.SetLastWriteTime(Path.Combine(_here.Path, "src/ActorVmm.Host/Program.cs"), DateTime.UnixEpoch.AddYears(200));
        Assert.Equal(0, Run(script, environment, "check").Status);
        Assert.StartsWith("publish ", Calls[3], StringComparison.Ordinal);
    }

    [Fact]
    public void Without_the_SDK_it_says_what_is_needed()
    {
        var (status, errors) = Run(Path.Combine(_here.Path, "actorvmm"), FakeRepository("8.0.100 [/x]"), "demo");
        Assert.Equal(33, status);
        Assert.Contains("the .NET 10 SDK is needed", errors, StringComparison.Ordinal);
    }
}
