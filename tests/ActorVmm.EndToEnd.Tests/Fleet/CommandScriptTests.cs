using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using ActorVmm.Testing.Guests;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>The commands in a real shell, with real processes: <c>commands.sh</c> beside this file.</summary>
public sealed class CommandScriptTests(ITestOutputHelper output)
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(15);

    [Fact]
    public Task Every_command_does_as_a_new_user_expects()
    {
        var dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } path ? path : "dotnet";
        return RunAsync($"{dotnet} {Path.Combine(AppContext.BaseDirectory, "actorvmm.dll")}", output);
    }

    /// <summary>The script, with the words that start the program.</summary>
    internal static async Task RunAsync(string program, ITestOutputHelper output)
    {
        var directory = Directory.CreateTempSubdirectory("actorvmm-commands-");
        try
        {
            var kernel = Path.Combine(directory.FullName, "tiny");
            await File.WriteAllBytesAsync(kernel, HaltingKernel.Elf());
            var start = new ProcessStartInfo("/bin/bash") { RedirectStandardOutput = true, RedirectStandardError = true };
            start.ArgumentList.Add(Script());
            start.Environment["KERNEL"] = kernel;
            start.Environment["README"] = Path.Combine(Path.GetDirectoryName(Script())!, "../../../README.md");
            using (var free = new TcpListener(IPAddress.Loopback, 0))
            {
                free.Start();
                start.Environment["PORT"] = ((IPEndPoint)free.LocalEndpoint).Port.ToString(CultureInfo.InvariantCulture);
            }

            start.Environment["ACTORVMM"] = program;
            using var process = Process.Start(start)!;
            var printed = process.StandardOutput.ReadToEndAsync();
            var errors = process.StandardError.ReadToEndAsync();
            using var late = new CancellationTokenSource(s_deadline);
            await process.WaitForExitAsync(late.Token);
            output.WriteLine(await printed + await errors);
            Assert.True(process.ExitCode == 0, await printed + await errors);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static string Script()
    {
        for (var at = new DirectoryInfo(AppContext.BaseDirectory); at is not null; at = at.Parent)
            if (Path.Combine(at.FullName, "tests/ActorVmm.EndToEnd.Tests/Fleet/commands.sh") is var script
                && File.Exists(script)) return script;
        throw new InvalidOperationException("the tests run from a checkout of the project");
    }
}
