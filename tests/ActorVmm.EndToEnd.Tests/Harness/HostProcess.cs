using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Xunit;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary><c>actorvmm host</c> in a process of its own, with a directory of its own; seen through its socket, its signals and its standard
/// error.</summary>
public sealed class HostProcess : IAsyncDisposable
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(240);

    private readonly DirectoryInfo _here;
    private readonly bool _ownsDirectory;
    private readonly StringBuilder _errors = new();
    private readonly Task _reading;

    private HostProcess(Process process, DirectoryInfo here, bool ownsDirectory)
    {
        (Process, _here, _ownsDirectory) = (process, here, ownsDirectory);
        _reading = ReadAsync();
    }

    public Process Process { get; }
    public string Here => _here.FullName;
    public string Socket => System.IO.Path.Combine(_here.FullName, "host.sock");
    public string Config => System.IO.Path.Combine(_here.FullName, "fleet.conf");

    /// <summary>Standard error so far.</summary>
    public string Errors
    {
        get { lock (_errors) return _errors.ToString(); }
    }

    /// <summary>Starts a host on a description.</summary>
    /// <param name="description">What is in its file.</param>
    /// <param name="environment">More variables.</param>
    /// <param name="here">The directory of an earlier one; null for a new one that goes with it.</param>
    /// <param name="program">Another build of the program; null for this one.</param>
    public static HostProcess Start(string description, IReadOnlyDictionary<string, string>? environment = null, string? here = null,
        string? program = null)
    {
        var directory = here is null ? Directory.CreateTempSubdirectory("actorvmm-host-") : new DirectoryInfo(here);
        File.WriteAllText(System.IO.Path.Combine(directory.FullName, "fleet.conf"), description);
        var dotnet = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } path ? path : "dotnet";
        var start = new ProcessStartInfo(program ?? dotnet) { RedirectStandardError = true, RedirectStandardInput = true };
        if (program is null) start.ArgumentList.Add(System.IO.Path.Combine(AppContext.BaseDirectory, "actorvmm.dll"));
        foreach (var word in (string[])["host", "--config", "fleet.conf", "--socket", "host.sock"]) start.ArgumentList.Add(word);
        start.WorkingDirectory = directory.FullName;
        foreach (var (name, value) in environment ?? new Dictionary<string, string>(StringComparer.Ordinal)) start.Environment[name] = value;
        return new HostProcess(Process.Start(start)!, directory, ownsDirectory: here is null);
    }

    /// <summary>HTTP over its socket.</summary>
    public HttpClient Http(int connections = int.MaxValue) => new(new SocketsHttpHandler
    {
        MaxConnectionsPerServer = connections,
        ConnectCallback = async (_, cancel) =>
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(Socket), cancel);
            }
            catch
            {
                socket.Dispose();
                throw;
            }

            return new NetworkStream(socket, ownsSocket: true);
        },
    })
    {
        BaseAddress = new Uri("http://host"), Timeout = Patience,
    };

    /// <summary>Waits until every VM of the description is in a state.</summary>
    public async Task<HostProcess> UntilAsync(string state, int vms)
    {
        using var http = Http();
        await EventuallyAsync(async () =>
        {
            Assert.False(Process.HasExited, Errors);
            try
            {
                using var all = JsonDocument.Parse(await http.GetStringAsync("/vms"));
                return all.RootElement.EnumerateArray().Count(vm => vm.GetProperty("state").GetString() == state) == vms;
            }
            catch (HttpRequestException)
            {
                return false; // it does not listen yet
            }
        }, () => $"{vms} VMs {state}; it says: {Errors}");
        return this;
    }

    /// <summary>Sends a signal: <c>TERM</c>, <c>HUP</c>, <c>KILL</c>.</summary>
    public void Signal(string name)
    {
        using var kill = Process.Start("/bin/kill", [$"-{name}", Process.Id.ToString(CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
    }

    /// <summary>Waits for its end.</summary>
    public async Task<int> EndAsync()
    {
        await Process.WaitForExitAsync().WaitAsync(Patience);
        await _reading;
        return Process.ExitCode;
    }

    public static async Task EventuallyAsync(Func<Task<bool>> condition, Func<string> what)
    {
        using var late = new CancellationTokenSource(Patience);
        while (!await condition())
        {
            if (late.IsCancellationRequested) Assert.Fail($"not within {Patience}: {what()}");
            await Task.Delay(20, CancellationToken.None);
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!Process.HasExited) Process.Kill();
        await Process.WaitForExitAsync();
        await _reading;
        Process.Dispose();
        if (_ownsDirectory) _here.Delete(recursive: true);
    }

    private async Task ReadAsync()
    {
        while (await Process.StandardError.ReadLineAsync() is { } line)
        {
            lock (_errors) _errors.AppendLine(line);
        }
    }
}
