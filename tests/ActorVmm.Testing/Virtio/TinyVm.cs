using System.Collections.Concurrent;
using Akka.Configuration;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Devices;
using ActorVmm.Devices.Faults;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Guests;

namespace ActorVmm.Testing.Virtio;

/// <summary>A whole VM, actors, bus, devices and all, whose guest is a few pages of assembled code that reports by the ports of a <see
/// cref="TinyGuest"/>.</summary>
public sealed class TinyVm : IAsyncDisposable, IGuestLoader, IExitHandler, IByteSink, IConsoleInput
{
    // A crash is nothing that the operator shall hear of here, however many there are.
    // And what a busy machine makes wait is waited for.
    private const string Settings = """
        akka.loglevel = OFF
        actorvmm.supervision { max-retries = 1000, within = 100ms }
        actorvmm.reply-deadline = 600s
        actorvmm.inspect-deadline = 60s
        """;

    private readonly VmHost _host;
    private readonly Action<TinyGuest> _program;
    private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private TinyVm(Action<TinyGuest> program)
    {
        _program = program;
        _host = VmHost.Create(ConfigurationFactory.ParseString(Settings), this);
    }

    /// <summary>A spec for a guest of this size, without devices.</summary>
    public static VmSpec Spec { get; } = new()
    {
        Name = "tiny", Kernel = new KernelSpec { Path = "none" }, MemoryMib = (int)(GuestLayout.MemorySize >> 20),
    };

    /// <summary>What the guest reported.</summary>
    public List<ulong> Reports { get; } = [];

    /// <summary>Faults that fired, in their order.</summary>
    public ConcurrentQueue<FaultFiring> Firings { get; } = new();

    /// <summary>The VM as its units described themselves when the guest was done.</summary>
    public string Tree { get; private set; } = "";

    /// <summary>The VM's counters when the guest was done.</summary>
    public VmReadings Readings { get; private set; } = VmReadings.None;

    /// <summary>Starts a guest that never ends by itself, beside a device that never answers (port 0x50); end it with its handle.</summary>
    public static async Task<(TinyVm Host, IVmHandle Vm)> StartAsync(IHypervisor hypervisor, VmSpec spec, Action<TinyGuest> program)
    {
        var tiny = new TinyVm(program);
        try
        {
            return (tiny, await tiny._host.StartAsync(spec, hypervisor, new VmConsole(tiny, tiny), tiny, [_ => MuteDevice.Unit]).ConfigureAwait(false));
        }
        catch
        {
            await tiny.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Runs a guest until it says that it is done.</summary>
    /// <param name="hypervisor">What runs it.</param>
    /// <param name="spec">The VM's devices and faults.</param>
    /// <param name="program">Loads the guest.</param>
    /// <param name="patience">Only so that a broken device fails its test instead of hanging it.</param>
    /// <exception cref="InvalidOperationException">The guest faulted, or the VM ended.</exception>
    /// <exception cref="TimeoutException">The guest hangs; with the VM's tree.</exception>
    public static Task<TinyVm> RunAsync(IHypervisor hypervisor, VmSpec spec, Action<TinyGuest> program, TimeSpan patience) =>
        RunAsync(hypervisor, spec, program, patience, devices: []);

    internal static async Task<TinyVm> RunAsync(
        IHypervisor hypervisor, VmSpec spec, Action<TinyGuest> program, TimeSpan patience, IReadOnlyList<DeviceFactory> devices)
    {
        var tiny = new TinyVm(program);
        IVmHandle? vm = null;
        try
        {
            vm = await tiny._host.StartAsync(spec, hypervisor, new VmConsole(tiny, tiny), tiny, devices).ConfigureAwait(false);
            await Task.WhenAny(tiny._done.Task, vm.Completion).WaitAsync(patience).ConfigureAwait(false);
            if (vm.Completion.IsCompleted && !tiny._done.Task.IsCompleted)
                throw new InvalidOperationException($"the VM ended: {(await vm.Completion.ConfigureAwait(false)).Text}");
            await tiny._done.Task.ConfigureAwait(false);
            tiny.Tree = (await vm.InspectAsync().ConfigureAwait(false)).ToString();
            tiny.Readings = vm.Readings;
            return tiny;
        }
        catch (Exception cause)
        {
            var tree = cause is TimeoutException ? (await vm!.InspectAsync().ConfigureAwait(false)).ToString() : null;
            await tiny.DisposeAsync().ConfigureAwait(false);
            if (tree is null) throw;
            throw new TimeoutException($"the guest did not end, reports {string.Join(' ', tiny.Reports)}:\n{tree}", cause);
        }
    }

    /// <summary>The number behind <paramref name="key"/> and " = " in what <paramref name="unit"/> said about itself.</summary>
    public long Number(string unit, string key)
    {
        var section = Tree.IndexOf($" {unit}\n", StringComparison.Ordinal);
        var at = section < 0 ? -1 : Tree.IndexOf($" {key} = ", section, StringComparison.Ordinal);
        if (at < 0) throw new InvalidOperationException($"no '{key}' of '{unit}' in:\n{Tree}");
        var digits = Tree.AsSpan(at + key.Length + 4);
        var end = digits.IndexOfAnyExceptInRange('0', '9');
        return long.Parse(end < 0 ? digits : digits[..end], System.Globalization.CultureInfo.InvariantCulture);
    }

    public IReadOnlyList<string> Load(VmSpec spec, IMachine machine)
    {
        _program(new TinyGuest(machine)); // not disposed: the machine is its owner's
        return [];
    }

    public bool TryHandle(VcpuExit access)
    {
        ArgumentNullException.ThrowIfNull(access);
        if (access.Kind != VcpuExitKind.PortWrite) return false;
        switch (access.Address)
        {
            case GuestLayout.ReportPort or GuestLayout.ReportLowPort or GuestLayout.FaultPort: Reports.Add(access.Data); return true;
            case GuestLayout.ReportHighPort: Reports[^1] |= access.Data << 32; return true;
            case GuestLayout.DonePort: _done.TrySetResult(); return true;
            case GuestLayout.FaultEndPort:
                _done.TrySetException(new InvalidOperationException($"the guest faulted: {string.Join(' ', Reports)}"));
                return true;
            default: return false;
        }
    }

    public void OnFault(FaultFiring firing) => Firings.Enqueue(firing);

    public void Write(ReadOnlySpan<byte> bytes) { }

    public int Take(Span<byte> into) => 0;

    public void OnAvailable(Action available) { }

    public ValueTask DisposeAsync() => _host.DisposeAsync();
}
