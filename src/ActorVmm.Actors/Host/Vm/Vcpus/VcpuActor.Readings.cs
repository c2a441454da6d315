using System.Globalization;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm.Vcpus;

/// <summary>What others read of a vCPU while it runs, and its part in samples and inspections.</summary>
public sealed partial class VcpuActor : IVcpuMeter
{
    private ExitSample? _sample;
    private int _thread;

    /// <inheritdoc/>
    long IVcpuMeter.Exits => Volatile.Read(ref _exits);

    /// <inheritdoc/>
    long IVcpuMeter.Waits => Volatile.Read(ref _parked);

    /// <inheritdoc/>
    long IVcpuMeter.Kicks => _dispatcher.Gate.Kicks;

    /// <inheritdoc/>
    ulong IVcpuMeter.Retired => _vcpu.RetiredInstructions;

    /// <inheritdoc/>
    int IVcpuMeter.ThreadId => Volatile.Read(ref _thread);

    private void NoteThread() => Volatile.Write(ref _thread, ThreadIdOfThis());

    /// <summary>The exit of <see cref="Access"/>, timed.</summary>
    private bool SampledAccess(VcpuExit exit, VcpuExitKind kind)
    {
        var vm = HostActor.NameOf(_links.Vm);
        _sample = ExitTelemetry.Begin(vm, _vcpu.Id, kind, exit.Address);
        _dispatcher.Context.BeginExit();
        _links.Bus.Tell(_access, Self);
        if (_dispatcher.Context.IsAbandoned)
        {
            EndSample();
            return BecomeAbandoned();
        }

        if (_access.IsDone || WaitBriefly() || !_access.TryPark(Self))
        {
            EndSample();
            Finish(exit);
            return true;
        }

        BecomeAwaitingReply();
        return false;
    }

    private void EndSample()
    {
        if (_sample is not { } sample) return;
        _sample = null;
        ExitTelemetry.End(sample, _access.Device ?? "none", _access.Outcome.ToString());
    }

    private SortedDictionary<string, string> Registers()
    {
        var values = new SortedDictionary<string, string>(StringComparer.Ordinal);
        if (AwaitsReply) return values; // in the middle of an instruction: the registers are not whole
        var state = TakeState();
        var (general, special) = (state.General, state.Special);
        foreach (var (name, value) in ((string, ulong)[])
            [
                ("rax", general.Rax), ("rbx", general.Rbx), ("rcx", general.Rcx), ("rdx", general.Rdx), ("rsi", general.Rsi),
                ("rdi", general.Rdi), ("rsp", general.Rsp), ("rbp", general.Rbp), ("r8", general.R8), ("r9", general.R9),
                ("r10", general.R10), ("r11", general.R11), ("r12", general.R12), ("r13", general.R13), ("r14", general.R14),
                ("r15", general.R15), ("rip", general.Rip), ("rflags", general.Rflags), ("cr0", special.Cr0), ("cr2", special.Cr2),
                ("cr3", special.Cr3), ("cr4", special.Cr4), ("efer", special.Efer),
            ])
            values[name] = string.Create(CultureInfo.InvariantCulture, $"0x{value:x}");
        values["activity"] = state.Activity.ToString();
        return values;
    }

    /// <summary>The kernel's id of this thread: the last part of the link "PID/task/TID" (proc(5)); 0 where there is no such
    /// file.</summary>
    private static int ThreadIdOfThis()
    {
        try
        {
            var link = new FileInfo("/proc/thread-self").LinkTarget ?? "";
            return int.TryParse(link.AsSpan(link.LastIndexOf('/') + 1), NumberStyles.None, CultureInfo.InvariantCulture,
                out var id) ? id : 0;
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            return 0;
        }
    }
}

/// <summary>The counters of one vCPU. Any thread; values are of the moment, and not of one and the same moment.</summary>
public interface IVcpuMeter
{
    /// <summary>Port and MMIO exits.</summary>
    long Exits { get; }

    /// <summary>Exits whose device did not answer at once.</summary>
    long Waits { get; }

    /// <summary>How often it was called out of the guest.</summary>
    long Kicks { get; }

    /// <summary>Instructions retired; 0 where the hypervisor cannot count.</summary>
    ulong Retired { get; }

    /// <summary>The kernel's id of its thread (gettid(2)); 0 before it has started.</summary>
    int ThreadId { get; }
}
