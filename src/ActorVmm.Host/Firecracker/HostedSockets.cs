using ActorVmm.Host.Fleet;
using Serilog;

namespace ActorVmm.Host.Firecracker;

/// <summary>One Firecracker-compatible socket per VM of a host, <c>DIRECTORY/NAME.sock</c>.</summary>
internal sealed class HostedSockets(HostState state, string directory, ILogger log) : IAsyncDisposable
{
    public ValueTask DisposeAsync()
    {
        log.Debug("{Directory} {Count}", directory, state.Fleet.All.Count);
        return ValueTask.CompletedTask;
    }
}
