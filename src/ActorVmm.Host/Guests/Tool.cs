using System.ComponentModel;
using System.Diagnostics;
using System.Text;

namespace ActorVmm.Host.Guests;

/// <summary>Runs a program of the host to its end, without a terminal and without our standard input.</summary>
internal static class Tool
{
    public sealed record Result(int ExitCode, string Output, string Errors);

    /// <exception cref="GuestException">The program is not there.</exception>
    public static async Task<Result> RunAsync(
        string program, IEnumerable<string> arguments, string? directory = null, Action<string>? onLine = null,
        CancellationToken cancel = default)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false,
            WorkingDirectory = directory ?? "",
        };
        start.Environment["LC_ALL"] = "C"; // the output is parsed
        start.Environment["DEBIAN_FRONTEND"] = "noninteractive";
        Process process;
        try
        {
            process = Process.Start(start) ?? throw new GuestException($"{program} did not start");
        }
        catch (Win32Exception missing)
        {
            throw new GuestException($"{program} cannot be run: {missing.Message}", missing);
        }
        using (process)
        {
            process.StandardInput.Close();
            var errors = process.StandardError.ReadToEndAsync(cancel);
            var output = new StringBuilder();
            try
            {
                while (await process.StandardOutput.ReadLineAsync(cancel) is { } line)
                {
                    output.AppendLine(line);
                    onLine?.Invoke(line);
                }
                await process.WaitForExitAsync(cancel);
                return new(process.ExitCode, output.ToString(), await errors);
            }
            catch (OperationCanceledException)
            {
                process.Kill(entireProcessTree: true);
                throw;
            }
        }
    }

    /// <summary>Whether a program is on the search path.</summary>
    public static bool Exists(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin").Split(':')
        .Any(directory => directory.Length > 0 && File.Exists(Path.Combine(directory, program)));
}
