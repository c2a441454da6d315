using System.Globalization;
using System.Net.Sockets;
using ActorVmm.Host.Commands;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Tests.Fleet;

/// <summary>A daemon in this process on a socket of its own, with echoing guests; and the commands as a user gives them.</summary>
internal sealed class HostFixture : IAsyncDisposable
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private readonly TemporaryDirectory _here = new();
    private readonly StringWriter _daemonErrors = new(CultureInfo.InvariantCulture);
    private readonly HostDaemon _daemon;
    private Task<int>? _running;

    public HostFixture(IVmHostFactory? host = null)
    {
        Services = new HostServices(
            new HypervisorCatalog(("kvm", () => new FakeKvm(usable: false)), ("soft", () => new FakeHypervisor("soft"))),
                host ?? new FakeVmHost());
        _daemon = new HostDaemon(Services, new ConsoleDescriptors(0, 1, _daemonErrors, _ => { }));
    }

    public HostServices Services { get; }
    public TemporaryDirectory Here => _here;
    public string Socket => Path.Combine(_here.Path, "run/host.sock");
    public string ConfigPath => Path.Combine(_here.Path, "fleet.conf");
    public string DaemonErrors => _daemonErrors.ToString();

    /// <summary>Starts the daemon on a description, and waits until its VMs run.</summary>
    public async Task<HostFixture> StartAsync(string description, string? token = null)
    {
        _here.Write("fleet.conf", description);
        if (token is not null) _here.Write("token", token + "\n");
        var port = token is null ? (int?)null : FreePort();
        Port = port;
        _running = _daemon.RunAsync(new HostOptions(ConfigPath, Socket, port, token is null ? null : Path.Combine(_here.Path, "token"),
            Verbose: false));
        await Task.WhenAny(_running, _daemon.Ready.Task).WaitAsync(Patience);
        Assert.False(_running.IsCompleted, DaemonErrors);
        return this;
    }

    public int? Port { get; private set; }

    /// <summary>Ends it as SIGTERM does.</summary>
    public async Task<int> EndAsync()
    {
        _daemon.End();
        return await _running!.WaitAsync(Patience);
    }

    /// <summary>Gives a command; <paramref name="input"/> is its standard input.</summary>
    public async Task<(int Status, string Output, string Errors)> CommandAsync(string line, string input = "")
    {
        using var errors = new StringWriter(CultureInfo.InvariantCulture);
        using var output = new StringWriter(CultureInfo.InvariantCulture);
        using var keys = File.OpenHandle(_here.Write($"keys-{Guid.NewGuid():N}", input));
        var printed = Path.Combine(_here.Path, $"screen-{Guid.NewGuid():N}");
        int status;
        using (var screen = File.OpenHandle(printed, FileMode.Create, FileAccess.Write))
        {
            var descriptors = new ConsoleDescriptors((int)keys.DangerousGetHandle(), (int)screen.DangerousGetHandle(), errors, _ => { });
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (!line.Contains("--help", StringComparison.Ordinal) && words[0] != "completion") words = [.. words, "--socket", Socket];
            status = await new CommandLineInterface(Services, descriptors, output).InvokeAsync(words).WaitAsync(Patience);
        }

        return (status, output + await File.ReadAllTextAsync(printed), errors.ToString());
    }

    /// <summary>HTTP over the unix socket.</summary>
    public HttpClient Http() => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, cancel) =>
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(Socket), cancel);
            return new NetworkStream(socket, ownsSocket: true);
        },
    })
    {
        BaseAddress = new Uri("http://host"), Timeout = Patience,
    };

    public async Task EventuallyAsync(Func<Task<bool>> condition, string what)
    {
        using var late = new CancellationTokenSource(Patience);
        while (!await condition())
        {
            if (late.IsCancellationRequested) Assert.Fail($"not within {Patience}: {what}");
            await Task.Delay(5, CancellationToken.None);
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_running is { IsCompleted: false }) await EndAsync();
        _here.Dispose();
        await _daemonErrors.DisposeAsync();
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(System.Net.IPAddress.Loopback, 0);
        listener.Start();
        return ((System.Net.IPEndPoint)listener.LocalEndpoint).Port;
    }
}
