using System.Diagnostics;
using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Hypervisor;

namespace ActorVmm.Actors.Host.Vm;

/// <summary>
/// <c>pulse</c>: the VM is paused, saved, reset, restored from what was saved, and goes on. RAM stays where it is; everything else
/// (vCPUs, interrupt controllers, timers, clock, devices) is taken apart and put together again.
/// </summary>
internal sealed partial class VmActor
{
    private readonly Dictionary<string, object?> _saved = new(StringComparer.Ordinal);
    private VmProtocol.Pulse? _pulse;
    private MachineState? _savedMachine;
    private bool _runsAfterPulse;
    private bool _settling;
    private long _pulseBegan;

    private void OnPulse(VmProtocol.Pulse pulse)
    {
        _runsAfterPulse = string.Equals(_state, "running", StringComparison.Ordinal);
        _pulse = pulse;
        _pulseBegan = Stopwatch.GetTimestamp();
        _saved.Clear();
        Quiesce("pulsing", SettleVcpus);
    }

    /// <summary>Every instruction that has left the guest is ended, on its vCPU's own thread, once its device has answered.</summary>
    private void SettleVcpus()
    {
        if (_runsAfterPulse) _parts!.Machine.PauseClock();
        _settling = true;
        AwaitUnits(_parts!.Machine.Vcpus.Count);
        EnterState("pulsing", Saving, unstash: false);
        _vcpus.Tell(VcpuProtocol.Settle.Instance);
    }

    private void Saving(object message)
    {
        switch (message)
        {
            case VcpuProtocol.Settled settled: OnSettled(settled.Vcpu); break;
            case UnitProtocol.Saved saved: OnDeviceSaved(saved); break;
            case MachineSaved machine: _savedMachine = machine.State; ResetAll(); break;
            case WorkFailed failed: EndPulse(failed.Cause.Message); break;
            case ControlOverdue when _settling: EndPulse($"a vCPU waits for a device that does not answer within {_settings.ControlDeadline}"); break;
            case ControlOverdue: EndPulse($"a unit did not save its state within {_settings.ControlDeadline}"); break;
            default: Interim(message); break;
        }
    }

    private void OnSettled(int vcpu)
    {
        if (!_awaited.Remove(vcpu) || _awaited.Count > 0) return;
        _settling = false;
        AwaitUnits(_deviceCount);
        _devices.Tell(DevicesProtocol.Freeze.Instance);
        _devices.Tell(UnitProtocol.Save.Instance);
    }

    private void OnDeviceSaved(UnitProtocol.Saved saved)
    {
        if (!_saved.TryAdd(saved.Unit, saved.State) || _saved.Count < _deviceCount) return;
        var machine = _parts!.Machine;
        WorkOnMachine(() => new MachineSaved(machine.Save()));
    }

    private void ResetAll()
    {
        AwaitUnits(_deviceCount);
        EnterState("pulsing", Rebuilding, unstash: false);
        _devices.Tell(UnitProtocol.Reset.Instance);
    }

    // From here on there is no way back: what fails ends the VM.
    private void Rebuilding(object message)
    {
        switch (message)
        {
            case UnitProtocol.Done done when _savedMachine is not null: OnDeviceReset(done); break;
            case UnitProtocol.Done done: OnDeviceRestored(done); break;
            case MachineRestored: RestoreDevices(); break;
            case WorkFailed failed: FailPulse(failed.Cause.Message); break;
            case ControlOverdue: FailPulse($"the machine was not rebuilt within {_settings.ControlDeadline}"); break;
            default: Interim(message); break;
        }
    }

    private void OnDeviceReset(UnitProtocol.Done done)
    {
        if (done.Refusal is { } refusal) { FailPulse($"{done.Unit} cannot be reset: {refusal}"); return; }
        if (!TakeOne()) return;
        var (machine, state) = (_parts!.Machine, _savedMachine!);
        WorkOnMachine(() =>
        {
            machine.Reset();
            machine.Restore(state);
            return MachineRestored.Instance;
        });
    }

    private void RestoreDevices()
    {
        _savedMachine = null;
        AwaitUnits(_saved.Count);
        foreach (var (name, state) in _saved) _devices.Tell(new DevicesProtocol.RestoreDevice(name, state));
    }

    private void OnDeviceRestored(UnitProtocol.Done done)
    {
        if (done.Refusal is { } refusal) { FailPulse($"{done.Unit} cannot be restored: {refusal}"); return; }
        if (TakeOne()) EndPulse(failure: null);
    }

    private void EndPulse(string? failure)
    {
        StopDeadline();
        _savedMachine = null;
        _alarms!.Rearm();
        _devices.Tell(DevicesProtocol.Thaw.Instance);
        if (_runsAfterPulse)
        {
            _parts!.Machine.ResumeClock();
            BecomeRunning();
        }
        else
        {
            EnterState("paused", Paused);
        }

        var pulse = _pulse!;
        _pulse = null;
        if (failure is null) pulse.Done.TrySetResult(Stopwatch.GetElapsedTime(_pulseBegan));
        else pulse.Done.TrySetException(new InvalidOperationException($"{_run.Spec.Name}: {failure}"));
    }

    private void FailPulse(string why)
    {
        _pulse!.Done.TrySetException(new InvalidOperationException($"{_run.Spec.Name}: {why}"));
        BeginStop(StopReason.Failed, why);
    }

    private void AwaitUnits(int count)
    {
        _awaited.Clear();
        for (var i = 0; i < count; i++) _awaited.Add(i);
        StartDeadline();
    }

    private bool TakeOne()
    {
        if (_awaited.Count > 0) _awaited.Remove(_awaited.Max());
        return _awaited.Count == 0;
    }

    private sealed record MachineSaved(MachineState State);
    private sealed record MachineRestored { public static readonly MachineRestored Instance = new(); }
}
