using System.Runtime.InteropServices;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Firecracker;

/// <summary>What a run tells about itself.</summary>
internal interface IRunObserver
{
    /// <summary>The guest runs.</summary>
    void Started(IVmHandle vm);

    /// <summary>It cannot be built.</summary>
    void Failed(Exception cause);
}

/// <summary>
/// <c>run --api-sock</c>: the microVM of this process over its socket. It waits for <c>InstanceStart</c>, or has been described by a file
/// and
/// runs from the start.
/// </summary>
internal sealed class ApiSession : IMicrovm, IRunObserver, IAsyncDisposable
{
    private static readonly TimeSpan s_metricsPeriod = TimeSpan.FromSeconds(60);

    private readonly FirecrackerMetrics _metrics = new(TimeProvider.System);
    private readonly FirecrackerApi _api;
    private readonly MicroServer _server;
    private readonly Timer _flushing;
    private readonly SemaphoreSlim _wanted = new(0);
    private readonly TaskCompletionSource<int> _signalled = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<PosixSignalRegistration> _signals = [];
    private VmDescription? _next;
    private TaskCompletionSource? _starting;
    private IVmHandle? _vm;
    private volatile bool _paused;

    /// <param name="path">The socket.</param>
    /// <param name="id">What the microVM is called.</param>
    /// <param name="described">What a file has described; null where the socket configures it.</param>
    /// <param name="maxPayload">The longest body, in bytes.</param>
    /// <exception cref="IOException">The socket cannot be made.</exception>
    public ApiSession(string path, string id, VmSpec? described, int maxPayload)
    {
        (Id, Described) = (id, described);
        (_metrics.Readings, _metrics.Spec) = (() => Readings, () => Spec);
        _api = new FirecrackerApi(this, _metrics, Environment.CurrentDirectory);
        _server = MicroServer.Listen(Path.GetFullPath(path), _api.HandleAsync, maxPayload);
        _flushing = new Timer(_ => _metrics.Flush(), state: null, s_metricsPeriod, s_metricsPeriod);
        if (!IsConfigurable) return;
        foreach (var (signal, number) in ((PosixSignal, int)[])[(PosixSignal.SIGINT, 2), (PosixSignal.SIGTERM, 15),
            (PosixSignal.SIGHUP, 1)])
        {
            _signals.Add(PosixSignalRegistration.Create(signal, context =>
            {
                // While a VM runs, its run hears the signal too and ends it; before, this is the end.
                context.Cancel = true;
                _signalled.TrySetResult(number);
            }));
        }
    }

    /// <inheritdoc/>
    public string Id { get; }

    /// <inheritdoc/>
    public bool IsConfigurable => Described is null;

    /// <inheritdoc/>
    public MicrovmState State =>
        Volatile.Read(ref _vm) is null ? MicrovmState.NotStarted : _paused ? MicrovmState.Paused : MicrovmState.Running;

    /// <inheritdoc/>
    public VmReadings Readings => Volatile.Read(ref _vm)?.Readings ?? VmReadings.None;

    /// <summary>Where the guest's serial output goes; null for standard output.</summary>
    public string? SerialOutPath => _api.SerialOutPath;

    /// <summary>Waits for the next description to be run; null where a signal came first, with its number.</summary>
    public async Task<(VmDescription? Description, int Signal)> NextAsync()
    {
        var wanted = _wanted.WaitAsync();
        return await Task.WhenAny(wanted, _signalled.Task).ConfigureAwait(false) == wanted
            ? (Interlocked.Exchange(ref _next, null), 0)
            : (null, await _signalled.Task.ConfigureAwait(false));
    }

    /// <inheritdoc/>
    public Task StartAsync(VmDescription? description)
    {
        if (description is null) throw new InvalidOperationException("this microVM is being started");
        _starting = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _next = description with { Name = Id, MetricsPath = null }; // the file is this session's: its lines count the API's calls too
        _wanted.Release();
        return _starting.Task;
    }

    /// <inheritdoc/>
    public async Task PauseAsync()
    {
        await _vm!.PauseAsync().ConfigureAwait(false);
        _paused = true;
    }

    /// <inheritdoc/>
    public async Task ResumeAsync()
    {
        await _vm!.ResumeAsync().ConfigureAwait(false);
        _paused = false;
    }

    /// <inheritdoc/>
    public VmSpec? Spec => Volatile.Read(ref _vm)?.Spec;

    /// <inheritdoc/>
    public VmSpec? Described { get; }

    /// <inheritdoc/>
    public Task UpdateDeviceAsync(string device, object change) => _vm!.UpdateDeviceAsync(device, change);

    /// <inheritdoc/>
    public void SendCtrlAltDel() => _vm!.Press(PowerKey.CtrlAltDel);

    /// <inheritdoc/>
    public void Started(IVmHandle vm)
    {
        Volatile.Write(ref _vm, vm);
        _starting?.TrySetResult();
    }

    /// <inheritdoc/>
    public void Failed(Exception cause) => _starting?.TrySetException(cause);

    /// <summary>True where the guest of this session has run.</summary>
    public bool HasRun => Volatile.Read(ref _vm) is not null;

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        _starting?.TrySetException(new InvalidOperationException("the microVM's process ends"));
        await _flushing.DisposeAsync().ConfigureAwait(false);
        await _server.DisposeAsync().ConfigureAwait(false);
        foreach (var signal in _signals) signal.Dispose();
        _metrics.Dispose();
        _wanted.Dispose();
    }
}
