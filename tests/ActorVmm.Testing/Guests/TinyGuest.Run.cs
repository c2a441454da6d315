using ActorVmm.Hypervisor;

namespace ActorVmm.Testing.Guests;

/// <summary>The loop that a vCPU actor runs in earnest: run, answer, again.</summary>
public sealed partial class TinyGuest
{
    // Only so that a broken hypervisor fails its test instead of hanging it.
    private static readonly TimeSpan SafetyNet = TimeSpan.FromSeconds(120);

    private readonly Lock _lock = new();

    /// <summary>True: a vCPU that halts for good ends the run.</summary>
    public bool EndsWhenHalted { get; set; } = true;

    /// <summary>
    /// True: each entry of a vCPU into the guest is accompanied by a kick from another thread, at whatever moment it comes; the next entry
    /// after a kick is left alone. Nothing that the guest does may come out differently.
    /// </summary>
    public bool IsKicked { get; set; }

    /// <summary>Runs all vCPUs, each on a thread of its own, until one is done or ends otherwise; then stops the others.</summary>
    /// <param name="stopAt">Ends the run after an access for which this is true, answered but not yet completed.</param>
    public GuestRun Run(Func<GuestAccess, bool>? stopAt = null)
    {
        var run = new GuestRun();
        var ended = false;
        // Cancel a pending kick of an earlier run's end.
        using var net = new Timer(_ => { End(0, GuestEnd.TimedOut, "the safety net's time is over"); }, null, SafetyNet,
            Timeout.InfiniteTimeSpan);
        using var kicks = new CountdownEvent(1); // those under way, and this run
        var threads = Machine.Vcpus.Select(vcpu => new Thread(() => RunVcpu(vcpu)) { IsBackground = true,
            Name = $"tiny guest {vcpu.Id}" }).ToArray();
        foreach (var thread in threads) thread.Start();
        foreach (var thread in threads) thread.Join();
        kicks.Signal();
        kicks.Wait(); // the machine may be gone when this returns
        return run;

        void End(int vcpu, GuestEnd end, string? detail)
        {
            lock (_lock)
            {
                if (ended) return;
                ended = true;
                (run.EndingVcpu, run.End, run.Detail) = (vcpu, end, detail);
            }
            foreach (var other in Machine.Vcpus)
                if (other.Id != vcpu || end == GuestEnd.TimedOut) other.Kick();
        }

        void RunVcpu(IVcpu vcpu)
        {
            try
            {
                if (IsKicked) vcpu.Kick(); // the first one is not left to chance
                var last = VcpuExitKind.Kicked;
                while (!Volatile.Read(ref ended))
                {
                    if (IsKicked && last != VcpuExitKind.Kicked)
                    {
                        kicks.AddCount();
                        ThreadPool.UnsafeQueueUserWorkItem(other => { other.Kick(); kicks.Signal(); }, vcpu, preferLocal: false);
                    }
                    last = vcpu.Run();
                    if (last == VcpuExitKind.Kicked) run.CountKick();
                    if (Step(vcpu, last) is { } end) End(vcpu.Id, end, vcpu.Exit.Detail);
                }
            }
            catch (Exception failure)
            {
                End(vcpu.Id, GuestEnd.Failed, failure.ToString());
            }
        }

        GuestEnd? Step(IVcpu vcpu, VcpuExitKind kind)
        {
            switch (kind)
            {
                case VcpuExitKind.PortRead or VcpuExitKind.MmioRead:
                    var read = new GuestAccess(vcpu.Id, kind, vcpu.Exit.Address, vcpu.Exit.Size, 0);
                    var answer = Answer(read);
                    if (vcpu.Exit.Size < 8) answer &= (1UL << (vcpu.Exit.Size * 8)) - 1;
                    vcpu.Exit.Data = answer;
                    read = read with { Data = answer };
                    lock (_lock) run.Accesses.Add(read);
                    return stopAt?.Invoke(read) == true ? GuestEnd.Stopped : null;
                case VcpuExitKind.PortWrite or VcpuExitKind.MmioWrite:
                    var write = new GuestAccess(vcpu.Id, kind, vcpu.Exit.Address, vcpu.Exit.Size, vcpu.Exit.Data);
                    var end = OnWrite(write);
                    return end is null && stopAt?.Invoke(write) == true ? GuestEnd.Stopped : end;
                case VcpuExitKind.Halted: return EndsWhenHalted ? GuestEnd.Halted : null;
                case VcpuExitKind.Shutdown: return GuestEnd.Shutdown;
                case VcpuExitKind.SystemEvent: return GuestEnd.SystemEvent;
                case VcpuExitKind.Failed: return GuestEnd.Failed;
                default: return null;
            }
        }

        GuestEnd? OnWrite(GuestAccess write)
        {
            if (write.Kind == VcpuExitKind.PortWrite)
            {
                switch (write.Address)
                {
                    case GuestLayout.ReportPort:
                        lock (_lock) run.Reports.Add(write.Data);
                        return null;
                    case GuestLayout.ReportLowPort:
                        lock (_lock) run.Reports.Add(write.Data);
                        return null;
                    case GuestLayout.ReportHighPort:
                        lock (_lock) run.Reports[^1] |= write.Data << 32;
                        return null;
                    case GuestLayout.FaultPort:
                        lock (_lock) run.AddFaultWord(write.Vcpu, (uint)write.Data);
                        return null;
                    case GuestLayout.ActionPort:
                        Actions[(byte)write.Data]();
                        return null;
                    case GuestLayout.DonePort:
                        return GuestEnd.Done;
                    case GuestLayout.FaultEndPort:
                        return GuestEnd.Fault;
                }
            }
            lock (_lock) run.Accesses.Add(write);
            return null;
        }
    }
}
