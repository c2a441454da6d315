using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Fleet;
using Serilog;

namespace ActorVmm.Host.Firecracker;

/// <summary>
/// One Firecracker-compatible socket per VM of a host, <c>DIRECTORY/NAME.sock</c>: whatever speaks to Firecracker can watch, start, pause
/// and resume a VM whose configuration comes from the host.
/// </summary>
internal sealed class HostedSockets : IAsyncDisposable
{
    private readonly HostState _state;
    private readonly string _directory;
    private readonly ILogger _log;
    private readonly Lock _gate = new();
    private readonly Dictionary<string, MicroServer> _servers = new(StringComparer.Ordinal);
    private bool _over;

    public HostedSockets(HostState state, string directory, ILogger log)
    {
        (_state, _directory, _log) = (state, directory, log);
        PrivateFiles.MakeDirectory(directory);
        state.Added = OnAddedAsync;
    }

    private async Task OnAddedAsync(ManagedVm vm)
    {
        var metrics = new FirecrackerMetrics(TimeProvider.System) { Readings = () => vm.Readings, Spec = () => vm.Handle?.Spec };
        var api = new FirecrackerApi(new Hosted(_state.Fleet, vm), metrics, _directory);
        MicroServer? old;
        lock (_gate) _servers.Remove(vm.Name, out old);
        if (old is not null) await old.DisposeAsync().ConfigureAwait(false); // of a VM of the same name that has just been removed
        MicroServer server;
        try
        {
            server = MicroServer.Listen(Path.Combine(_directory, vm.Name + ".sock"), api.HandleAsync, FirecrackerApi.MaxPayload);
        }
        catch (IOException cannot)
        {
            _log.Error("{Vm} has no Firecracker socket: {Why}", vm.Name, cannot.Message);
            return;
        }

        var late = false;
        lock (_gate)
        {
            late = _over;
            if (!late) _servers[vm.Name] = server;
        }

        if (late) await server.DisposeAsync().ConfigureAwait(false);
        else _ = RemoveWithAsync(vm, server);
    }

    private async Task RemoveWithAsync(ManagedVm vm, MicroServer server)
    {
        await vm.Removed.ConfigureAwait(false);
        bool mine;
        lock (_gate) mine = _servers.TryGetValue(vm.Name, out var current) && ReferenceEquals(current, server) && _servers.Remove(vm.Name);
        if (mine) await server.DisposeAsync().ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        MicroServer[] servers;
        lock (_gate)
        {
            _over = true;
            servers = [.. _servers.Values];
            _servers.Clear();
        }

        foreach (var server in servers) await server.DisposeAsync().ConfigureAwait(false);
    }

    private sealed class Hosted(VmFleet fleet, ManagedVm vm) : IMicrovm
    {
        public string Id => vm.Name;

        public MicrovmState State => vm.Status.State switch
        {
            VmState.Running or VmState.Stopping => MicrovmState.Running,
            VmState.Paused => MicrovmState.Paused,
            _ => MicrovmState.NotStarted,
        };

        public bool IsConfigurable => false;
        public VmReadings Readings => vm.Readings;
        public Task StartAsync(VmDescription? description) => fleet.StartAsync(vm.Name);
        public Task PauseAsync() => fleet.PauseAsync(vm.Name);
        public Task ResumeAsync() => fleet.ResumeAsync(vm.Name);
        public VmSpec? Spec => State == MicrovmState.NotStarted ? null : vm.Handle?.Spec;

        public VmSpec? Described => Spec ?? vm.Definition.Spec;

        public Task UpdateDeviceAsync(string device, object change) =>
            vm.Handle is { } run
                ? run.UpdateDeviceAsync(device, change)
                : Task.FromException(new InvalidOperationException("it has ended"));

        public void SendCtrlAltDel() => vm.Handle?.Press(PowerKey.CtrlAltDel);
    }
}
