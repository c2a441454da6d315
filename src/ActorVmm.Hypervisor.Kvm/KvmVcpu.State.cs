using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Memory;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>The whole register state, out of the kernel and back.</summary>
internal sealed unsafe partial class KvmVcpu
{
    internal GuestMemory Memory => _machine.Memory;

    /// <inheritdoc/>
    public VcpuState GetState()
    {
        // mp_state first: KVM accepts a latched INIT or SIPI when it is read, and that changes the rest (kvm/api.rst §4.38).
        uint activity = 0;
        _file.Call(KvmApi.KVM_GET_MP_STATE, ref activity, nameof(KvmApi.KVM_GET_MP_STATE));
        var (regs, sregs) = GetKernelRegisters();
        var xsave = new byte[_machine.XsaveSize];
        if (_machine.XsaveSize > 4096) _file.Call(KvmApi.KVM_GET_XSAVE2, xsave, nameof(KvmApi.KVM_GET_XSAVE2));
        else _file.Call(KvmApi.KVM_GET_XSAVE, xsave, nameof(KvmApi.KVM_GET_XSAVE));
        var xcrs = new KvmXcrs();
        _file.Call(KvmApi.KVM_GET_XCRS, ref xcrs, nameof(KvmApi.KVM_GET_XCRS));
        var debug = new KvmDebugRegs();
        _file.Call(KvmApi.KVM_GET_DEBUGREGS, ref debug, nameof(KvmApi.KVM_GET_DEBUGREGS));
        var lapic = new byte[1024];
        _file.Call(KvmApi.KVM_GET_LAPIC, lapic, nameof(KvmApi.KVM_GET_LAPIC));
        var msrs = _machine.Msrs.Get(_file);
        var events = new KvmVcpuEvents();
        _file.Call(KvmApi.KVM_GET_VCPU_EVENTS, ref events, nameof(KvmApi.KVM_GET_VCPU_EVENTS));

        return new VcpuState
        {
            General = KvmRegisters.General(regs),
            Special = KvmRegisters.Special(sregs),
            Xsave = xsave,
            Xcr0 = xcrs.Count > 0 ? xcrs.Value : 1,
            Debug = [debug.Db0, debug.Db1, debug.Db2, debug.Db3, debug.Dr6, debug.Dr7],
            Lapic = lapic,
            Msrs = msrs,
            Events = KvmRegisters.Events(events),
            Activity = (VcpuActivity)activity,
        };
    }

    /// <inheritdoc/>
    public void SetState(VcpuState state)
    {
        DropPending();
        var activity = (uint)state.Activity;
        _file.Call(KvmApi.KVM_SET_MP_STATE, ref activity, nameof(KvmApi.KVM_SET_MP_STATE));
        var regs = KvmRegisters.General(state.General);
        _file.Call(KvmApi.KVM_SET_REGS, ref regs, nameof(KvmApi.KVM_SET_REGS));
        var sregs = KvmRegisters.Special(state.Special);
        _file.Call(KvmApi.KVM_SET_SREGS, ref sregs, nameof(KvmApi.KVM_SET_SREGS));
        var xcrs = new KvmXcrs { Count = 1, Value = state.Xcr0 };
        _file.Call(KvmApi.KVM_SET_XCRS, ref xcrs, nameof(KvmApi.KVM_SET_XCRS));
        var xsave = new byte[_machine.XsaveSize];
        state.Xsave.AsSpan(0, Math.Min(state.Xsave.Length, xsave.Length)).CopyTo(xsave);
        _file.Call(KvmApi.KVM_SET_XSAVE, xsave, nameof(KvmApi.KVM_SET_XSAVE));
        var debug = new KvmDebugRegs
        {
            Db0 = state.Debug[0], Db1 = state.Debug[1], Db2 = state.Debug[2], Db3 = state.Debug[3], Dr6 = state.Debug[4],
                Dr7 = state.Debug[5],
        };
        _file.Call(KvmApi.KVM_SET_DEBUGREGS, ref debug, nameof(KvmApi.KVM_SET_DEBUGREGS));
        if (state.Lapic.Length != 1024)
            throw new HypervisorException($"vCPU {Id}: a LAPIC page has 1024 bytes, this state has {state.Lapic.Length}");
        _file.Call(KvmApi.KVM_SET_LAPIC, state.Lapic.AsSpan().ToArray(), nameof(KvmApi.KVM_SET_LAPIC));
        _machine.Msrs.Set(_file, state.Msrs);
        var events = KvmRegisters.Events(state.Events);
        _file.Call(KvmApi.KVM_SET_VCPU_EVENTS, ref events, nameof(KvmApi.KVM_SET_VCPU_EVENTS));
        _haltReported = false;
    }

    internal (KvmRegs Regs, KvmSregs Sregs) GetKernelRegisters()
    {
        var regs = new KvmRegs();
        _file.Call(KvmApi.KVM_GET_REGS, ref regs, nameof(KvmApi.KVM_GET_REGS));
        var sregs = new KvmSregs();
        _file.Call(KvmApi.KVM_GET_SREGS, ref sregs, nameof(KvmApi.KVM_GET_SREGS));
        return (regs, sregs);
    }

    /// <summary>Linear to physical by the vCPU's current tables.</summary>
    internal bool TryTranslate(ulong linear, out ulong physical)
    {
        var translation = new KvmTranslation { LinearAddress = linear };
        _file.Call(KvmApi.KVM_TRANSLATE, ref translation, nameof(KvmApi.KVM_TRANSLATE));
        physical = translation.PhysicalAddress;
        return translation.Valid != 0;
    }

    /// <summary>An access half done belongs to the old state: let the kernel finish it before the new one comes in.</summary>
    private void DropPending()
    {
        PrepareThread(KickSignal.Thread);
        _pieces = _piece = 0;
        while (_completionDue && EnterWithoutGuest())
        {
            Describe(); // another access of the same instruction, whose effect is not wanted either
            _pieces = _piece = 0;
        }
        (_exit.Kind, _exit.Detail) = (VcpuExitKind.None, null);
    }
}
