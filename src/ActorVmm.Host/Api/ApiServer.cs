using System.Net;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Host.Fleet;
using ActorVmm.Host.Metrics;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Serilog;

namespace ActorVmm.Host.Api;

/// <summary>Where the API listens.</summary>
/// <param name="Socket">Path of the unix socket, made with mode 0600; null for none.</param>
/// <param name="TcpPort">Loopback port; null for none, 0 for any.</param>
/// <param name="Token">The bearer token that TCP needs.</param>
internal sealed record ApiListeners(string? Socket, int? TcpPort, string? Token);

/// <summary>The host's HTTP API on Kestrel. Bodies are bounded, errors have one shape, and calls at the same time do not mind each
/// other.</summary>
internal sealed class ApiServer : IAsyncDisposable
{
    /// <summary>The longest body that is read, in bytes.</summary>
    public const long MaxBody = 256 << 10;

    private readonly WebApplication _app;
    private readonly string? _socket;

    private readonly IDisposable[] _owned;

    /// <summary>Only a server that has begun to listen has made the socket: one that was refused leaves the other host's.</summary>
    private bool _ownsSocket;

    private ApiServer(WebApplication app, string? socket, params IDisposable[] owned) => (_app, _socket, _owned) = (app, socket, owned);

    /// <summary>The pipeline without a server, for tests.</summary>
    public RequestDelegate Pipeline => ((IApplicationBuilder)_app).Build();

    /// <summary>What requests find their services in.</summary>
    public IServiceProvider Services => _app.Services;

    /// <summary>The TCP port in use, or null.</summary>
    public int? Port => _app.Urls.Select(static url => new Uri(url)).FirstOrDefault(static url => url.Port > 0 && url.Host.Length > 0
        && !url.Host.StartsWith("unix", StringComparison.Ordinal))?.Port;

    /// <summary>Puts the API together; <see cref="StartAsync"/> opens it.</summary>
    public static ApiServer Build(HostState state, ApiListeners listeners, Serilog.ILogger log)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = MaxBody;
            kestrel.Limits.MaxRequestHeadersTotalSize = 16 << 10;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
            if (listeners.Socket is { } path) kestrel.ListenUnixSocket(path, static listen => listen.Protocols = HttpProtocols.Http1);
            if (listeners.TcpPort is { } port)
                kestrel.Listen(IPAddress.Loopback, port, static listen => listen.Protocols = HttpProtocols.Http1);
        });
        // A unix socket whose queue is full refuses at once (EAGAIN): room for as many as the host's kernel allows.
        builder.Services.Configure<SocketTransportOptions>(static transport => transport.Backlog = 4096);
        builder.Services.AddRoutingCore();
        builder.Services.ConfigureHttpJsonOptions(static json => json.SerializerOptions.TypeInfoResolverChain.Insert(0, ApiJson.Default));
        builder.Services.AddOpenApi(static options => options.AddDocumentTransformer(static (document, _, _) =>
        {
            document.Info.Title = "ActorVmm host";
            document.Info.Description =
                "Many VMs under one supervisor. Errors have one shape: {\"error\":{\"code\",\"message\",\"details\"}}. "
                + "What cannot be read as a request is refused by its status alone (400, 408, 431, 505), and the connection closed.";
            return Task.CompletedTask;
        }));
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        builder.Logging.SetMinimumLevel(Microsoft.Extensions.Logging.LogLevel.Warning).AddSerilog(log);
        var app = builder.Build();
        app.Use(static next => http => ApiErrors.Shape(http, next));
        app.Use(next => http => ApiErrors.Authorize(http, next, listeners.Token));
        app.UseWebSockets(new WebSocketOptions { KeepAliveInterval = TimeSpan.FromSeconds(30) });
        app.UseRouting();
        var meters = new HostMeters(state.Fleet, TimeProvider.System);
        var metrics = new PrometheusText(meters.Refresh, name => state.Fleet.Find(name) is not null, meters.Meter,
            ExitTelemetry.MeterName, "System.Runtime");
        app.MapGet("/metrics", () => Results.Text(metrics.Write(), "text/plain; version=0.0.4; charset=utf-8"))
            .WithSummary("Metrics for Prometheus.");
        new VmEndpoints(state, TimeProvider.System).Map(app);
        app.MapOpenApi();
        app.UseEndpoints(static _ => { });
        var export = OtlpExport.Start(log);
        return new ApiServer(app, listeners.Socket, export is null ? [metrics, meters] : [export, metrics, meters]);
    }

    /// <summary>Listens.</summary>
    /// <exception cref="IOException">The socket or the port cannot be had; the message says why.</exception>
    public async Task StartAsync(CancellationToken cancel)
    {
        if (_socket is { } path)
        {
            if (Path.GetDirectoryName(path) is { Length: > 0 } directory) PrivateFiles.MakeDirectory(directory);
            SocketFile.MakeWay(path);
        }

        var mask = Mono.Unix.Native.Syscall.umask(Mono.Unix.Native.FilePermissions.ALLPERMS & ~Mono.Unix.Native.FilePermissions.S_IRUSR
            & ~Mono.Unix.Native.FilePermissions.S_IWUSR);
        try
        {
            await _app.StartAsync(cancel).ConfigureAwait(false);
        }
        finally
        {
            _ = Mono.Unix.Native.Syscall.umask(mask);
        }

        _ownsSocket = _socket is not null;
        if (_socket is not null) PrivateFiles.Restrict(_socket);
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(2));
        try { await _app.StopAsync(patience.Token).ConfigureAwait(false); }
        catch (OperationCanceledException) { /* streams that somebody still reads are cut */ }
        await _app.DisposeAsync().ConfigureAwait(false);
        foreach (var owned in _owned) owned.Dispose();
        if (_ownsSocket) File.Delete(_socket!);
    }

    /// <summary>Signals are the daemon's own affair.</summary>
    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;
        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
