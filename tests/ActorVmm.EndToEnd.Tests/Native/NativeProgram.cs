using System.Diagnostics;
using ActorVmm.Testing;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Native;

/// <summary>
/// The program compiled ahead of time, published once for all tests from a copy of nothing but the sources: minutes, so only in the nightly
/// run. <c>ACTORVMM_NATIVE</c> names one that exists already.
/// </summary>
public sealed class NativeProgram : IAsyncLifetime
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(30);
    private DirectoryInfo? _here;

    /// <summary>Why there is none; null where there is.</summary>
    public string? WhyNot { get; private set; }

    /// <summary>The file.</summary>
    public string Path { get; private set; } = "";

    /// <summary>The directory of the solution.</summary>
    public static string Root { get; } = FindRoot(AppContext.BaseDirectory);

    public async Task InitializeAsync()
    {
        if (!Nightly.Wanted) WhyNot = Nightly.Reason;
        else if (Linker() is null) WhyNot = "the native compiler needs clang or gcc as its linker, and neither is on PATH";
        if (WhyNot is not null) return;
        if (Environment.GetEnvironmentVariable("ACTORVMM_NATIVE") is { Length: > 0 } given)
        {
            Path = given;
            return;
        }

        _here = Directory.CreateTempSubdirectory("actorvmm-native-");
        var output = System.IO.Path.Combine(_here.FullName, "program");
        var dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } path ? path : "dotnet";
        // Its artifacts are its own, so that it disturbs no other build of the same sources.
        var (code, said) = await RunAsync(dotnet, s_deadline, "publish", System.IO.Path.Combine(Root, "src/ActorVmm.Host"), "-c", "Release",
            "-r", "linux-x64", "-p:PublishAot=true", "--artifacts-path", System.IO.Path.Combine(_here.FullName, "artifacts"), "-o", output,
            "-v", "q", "-nologo", "--disable-build-servers");
        Assert.True(code == 0, said);
        Path = System.IO.Path.Combine(output, "actorvmm");
    }

    public Task DisposeAsync()
    {
        _here?.Delete(recursive: true);
        return Task.CompletedTask;
    }

    /// <summary>Runs a program to its end.</summary>
    /// <returns>Its exit code, and what it printed on both outputs.</returns>
    public static async Task<(int Code, string Said)> RunAsync(string program, TimeSpan deadline, params string[] arguments)
    {
        var start = new ProcessStartInfo(program)
        {
            RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true, WorkingDirectory = Root,
        };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        // What the test's own dotnet was told is not for the one that builds.
        foreach (var name in (string[])["MSBuildSDKsPath", "MSBUILD_EXE_PATH", "MSBuildExtensionsPath"]) start.Environment.Remove(name);
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        using var late = new CancellationTokenSource(deadline);
        try
        {
            await process.WaitForExitAsync(late.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"{program} did not end within {deadline}: {await output}{await errors}");
        }

        return (process.ExitCode, await output + await errors);
    }

    /// <summary>What links: clang, as the native compiler asks for first, or gcc.</summary>
    public static string? Linker() => ((string[])["clang", "gcc"]).FirstOrDefault(static name =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(folder => File.Exists(System.IO.Path.Combine(folder, name))));

    private static string FindRoot(string directory) => File.Exists(System.IO.Path.Combine(directory, "ActorVmm.sln"))
        ? directory : FindRoot(System.IO.Path.GetDirectoryName(directory)!);
}
