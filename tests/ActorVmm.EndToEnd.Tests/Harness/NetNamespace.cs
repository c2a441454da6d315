using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>A network of the host's kernel that nobody else sees: its own interfaces, addresses and routes (ip-netns(8)).</summary>
public sealed class NetNamespace : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private static int s_last;

    public NetNamespace()
    {
        Name = string.Create(CultureInfo.InvariantCulture, $"avmm-{Environment.ProcessId}-{Interlocked.Increment(ref s_last)}");
        Run("ip", "netns", "add", Name);
        Ip("link set lo up");
    }

    public string Name { get; }

    /// <summary>Skips the test where this cannot be had, saying why.</summary>
    public static void Require()
    {
        Skip.IfNot(Environment.UserName == "root", "network namespaces and taps take root");
        Skip.IfNot(File.Exists("/dev/net/tun"), "there is no /dev/net/tun");
        Skip.IfNot(File.Exists("/usr/sbin/ip") || File.Exists("/sbin/ip") || File.Exists("/usr/bin/ip"), "there is no ip (iproute2)");
    }

    /// <summary>Runs <c>ip</c> in the namespace; its output.</summary>
    public string Ip(string arguments) => Run("ip", ["-n", Name, .. arguments.Split(' ')]);

    /// <summary>Makes a tap that is up and has an address.</summary>
    public void AddTap(string name, string address, string more = "")
    {
        Ip($"tuntap add dev {name} mode tap{more}");
        Ip($"addr add {address} dev {name}");
        Ip($"link set {name} up");
    }

    /// <summary>Runs a program in the namespace; its output. A status other than 0 fails the test.</summary>
    public string Exec(params string[] command) => Run("ip", ["netns", "exec", Name, .. command]);

    /// <summary>Starts a program in the namespace.</summary>
    public Process Start(params string[] command)
    {
        var start = new ProcessStartInfo("ip") { RedirectStandardOutput = true, RedirectStandardInput = true };
        foreach (var word in (string[])["netns", "exec", Name, .. command]) start.ArgumentList.Add(word);
        return Process.Start(start)!;
    }

    public void Dispose() => Run("ip", "netns", "del", Name);

    private static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(Patience))
        {
            process.Kill();
            throw new TimeoutException($"{program} {string.Join(' ', arguments)} does not end");
        }
        return process.ExitCode == 0
            ? output.Result : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)}: {errors.Result}{output.Result}");
    }
}
