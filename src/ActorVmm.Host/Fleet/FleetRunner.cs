using Serilog;

namespace ActorVmm.Host.Fleet;

/// <summary>
/// Carries out a host's description: starts its VMs in their order, brings a running host to a new description, and ends it in the reverse
/// order. VMs that came over the API are left alone by a reload.
/// </summary>
internal sealed class FleetRunner(HostState state, ILogger log, Action<string> progress) : IDisposable
{
    private readonly SemaphoreSlim _one = new(1, 1);
    private readonly Dictionary<string, FleetVm> _described = new(StringComparer.Ordinal);

    /// <summary>Adds and starts what the description names. One that cannot be started is logged, and holds up no other.</summary>
    public async Task StartAsync(FleetDescription description, CancellationToken cancel)
    {
        await _one.WaitAsync(cancel).ConfigureAwait(false);
        try
        {
            foreach (var vm in description.Vms) await TryAsync(vm.Name, () => AddAsync(vm)).ConfigureAwait(false);
            await StartInOrderAsync(description.Vms, description.Host.ParallelStarts, cancel).ConfigureAwait(false);
        }
        finally
        {
            _one.Release();
        }
    }

    /// <summary>What is new starts, what is gone stops and goes, what has changed says whether it needs a restart.</summary>
    /// <param name="description">The new one.</param>
    /// <param name="hostChanges">Keys of the host's own section that have changed and take effect only with another host.</param>
    /// <param name="cancel">The host ends.</param>
    public async Task<ReloadReport> ReloadAsync(FleetDescription description, IReadOnlyList<string> hostChanges, CancellationToken cancel)
    {
        await _one.WaitAsync(cancel).ConfigureAwait(false);
        try
        {
            // What was removed over the API is in the description still: it comes back.
            foreach (var name in _described.Keys.Where(name => state.Fleet.Find(name) is null).ToArray()) _described.Remove(name);
            var wanted = description.Vms.ToDictionary(vm => vm.Name, StringComparer.Ordinal);
            var failures = new List<string>();
            var gone = _described.Values.Where(vm => !wanted.ContainsKey(vm.Name)).ToArray();
            foreach (var group in gone.GroupBy(vm => vm.Order).OrderByDescending(group => group.Key))
                await Task.WhenAll(group.Select(vm => Record(vm.Name, failures, () => DropAsync(vm.Name)))).ConfigureAwait(false);

            var changed = new SortedDictionary<string, bool>(StringComparer.Ordinal);
            // What shrinks comes first, so that what grows finds its memory within the limit.
            foreach (var vm in description.Vms.Where(vm => _described.TryGetValue(vm.Name, out var old) && !Same(old, vm))
                .OrderBy(vm => vm.Vm.MemoryMib - _described[vm.Name].Vm.MemoryMib))
            {
                await Record(vm.Name, failures, async () =>
                {
                    var status = await state.DefineAsync(vm, replace: true).ConfigureAwait(false);
                    _described[vm.Name] = vm;
                    changed[vm.Name] = status.NeedsRestart;
                }).ConfigureAwait(false);
            }

            var fresh = description.Vms.Where(vm => !_described.ContainsKey(vm.Name)).ToArray();
            var added = new List<FleetVm>();
            foreach (var vm in fresh)
            {
                await Record(vm.Name, failures, async () =>
                {
                    await AddAsync(vm).ConfigureAwait(false);
                    added.Add(vm);
                }).ConfigureAwait(false);
            }

            failures.AddRange(await StartInOrderAsync(added, description.Host.ParallelStarts, cancel).ConfigureAwait(false));
            var report = new ReloadReport([.. added.Select(vm => vm.Name)], [.. gone.Select(vm => vm.Name)], changed, hostChanges, failures);
            state.Fleet.Journal.Append("", "reloaded",
                $"{report.Added.Count} added, {report.Removed.Count} removed, {report.Changed.Count} changed, {failures.Count} failures");
            return report;
        }
        finally
        {
            _one.Release();
        }
    }

    /// <summary>Ends all VMs, the last started first; whatever is not over at the deadline loses its power.</summary>
    public async Task StopAsync(TimeSpan deadline)
    {
        var order = _described.Values.ToDictionary(vm => vm.Name, vm => vm.Order, StringComparer.Ordinal);
        var stopping = StopInOrderAsync(order);
        if (await Task.WhenAny(stopping, Task.Delay(deadline)).ConfigureAwait(false) != stopping)
        {
            log.Warning("VMs did not end within {Deadline}: their power is cut", deadline);
            await Task.WhenAll(state.Fleet.All.Select(vm => TryAsync(vm.Name, () => state.Fleet.KillAsync(vm.Name)))).ConfigureAwait(false);
        }

        await stopping.ConfigureAwait(false);
    }

    private async Task StopInOrderAsync(Dictionary<string, int> order)
    {
        foreach (var group in state.Fleet.All.GroupBy(vm => order.GetValueOrDefault(vm.Name, 100)).OrderByDescending(group => group.Key))
        {
            progress($"stopping {group.Count()} VMs");
            await Task.WhenAll(group.Select(vm => TryAsync(vm.Name, () => state.Fleet.StopAsync(vm.Name)))).ConfigureAwait(false);
        }
    }

    private async Task<IReadOnlyList<string>> StartInOrderAsync(IReadOnlyList<FleetVm> vms, int parallel, CancellationToken cancel)
    {
        var failures = new List<string>();
        var done = 0;
        foreach (var group in vms.Where(vm => vm.AutoStart
            && _described.ContainsKey(vm.Name)).GroupBy(vm => vm.Order).OrderBy(group => group.Key))
        {
            using var slots = new SemaphoreSlim(parallel, parallel);
            await Task.WhenAll(group.Select(async vm =>
            {
                await slots.WaitAsync(cancel).ConfigureAwait(false);
                try
                {
                    await Record(vm.Name, failures, () => state.Fleet.StartAsync(vm.Name)).ConfigureAwait(false);
                    progress($"{Interlocked.Increment(ref done)} of {vms.Count} VMs started");
                }
                finally
                {
                    slots.Release();
                }
            })).ConfigureAwait(false);
        }

        return failures;
    }

    private async Task AddAsync(FleetVm vm)
    {
        await state.DefineAsync(vm, replace: false).ConfigureAwait(false);
        _described[vm.Name] = vm;
    }

    private async Task DropAsync(string name)
    {
        _described.Remove(name);
        if (state.Fleet.Find(name) is null) return; // removed over the API
        await state.Fleet.StopAsync(name).ConfigureAwait(false);
        await state.Fleet.RemoveAsync(name, force: true).ConfigureAwait(false);
    }

    // A VM's policies and its place in the order change at once; only another machine needs a restart.
    private static bool Same(FleetVm a, FleetVm b) =>
        string.Equals(a.Fingerprint, b.Fingerprint, StringComparison.Ordinal) && a.Restart == b.Restart && a.Stop == b.Stop
        && a.RestartsOnReset == b.RestartsOnReset && a.Order == b.Order && a.AutoStart == b.AutoStart;

    /// <inheritdoc/>
    public void Dispose() => _one.Dispose();

    private Task TryAsync(string name, Func<Task> step) => Record(name, [], step);

    private async Task Record(string name, List<string> failures, Func<Task> step)
    {
        try
        {
            await step().ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is not OperationCanceledException)
        {
            log.Error("{Vm}: {Failure}", name, failure.Message);
            lock (failures) failures.Add($"{name}: {failure.Message}");
        }
    }
}
