using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>
/// The time stamp counters of a machine that is stopped. KVM lets them run on; what they counted meanwhile is taken back before the guest
/// goes on. That is done by moving their offsets from the host's counter: a value that is written comes into force only where it is more
/// than a second from what KVM expects, so that a guest can bring its processors into step (kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET).
/// </summary>
/// <param name="msrs">Which registers there are.</param>
/// <param name="values">By vCPU: counter and deadline when the machine stopped.</param>
internal sealed class KvmTime(KvmMsrs msrs, IReadOnlyList<MsrValue>[] values)
{
    private const uint TscControl = 0;
    private const ulong TscOffset = 0;

    public static KvmTime Of(KvmMsrs msrs, IEnumerable<KvmVcpu> vcpus) => new(msrs, [.. vcpus.Select(vcpu => msrs.GetTime(vcpu.File))]);

    /// <summary>That of a machine that was saved while it was stopped.</summary>
    public static KvmTime Of(KvmMsrs msrs, MachineState state) => new(msrs,
        [.. state.Vcpus.Select(vcpu => vcpu.Msrs.Where(msr => msr.Index is KvmMsrs.TimeStampCounter or KvmMsrs.TscDeadline).ToArray())]);

    /// <summary>A state that was read while the counters ran on, as of when they were stopped.</summary>
    public VcpuState Correct(VcpuState state, int vcpu) => state with
    {
        Msrs = [.. state.Msrs.Select(msr => values[vcpu].FirstOrDefault(stopped => stopped.Index == msr.Index) is { Index: not 0 } then ? then : msr)],
    };

    /// <summary>The counters go on from where they stood, and the timers that wait for them wait for as long as they had to.</summary>
    public void GoOn(IReadOnlyList<KvmVcpu> vcpus)
    {
        // All by the same: they stay as they were to each other.
        var ran = Counter(msrs.GetTime(vcpus[0].File)) - Counter(values[0]);
        foreach (var vcpu in vcpus)
        {
            if (TryMove(vcpu.File, ran)) msrs.Set(vcpu.File, [.. values[vcpu.Id].Where(msr => msr.Index == KvmMsrs.TscDeadline)]);
            else msrs.Set(vcpu.File, values[vcpu.Id]); // Linux before 5.16
        }
    }

    private static ulong Counter(IReadOnlyList<MsrValue> values) =>
        values.FirstOrDefault(static msr => msr.Index == KvmMsrs.TimeStampCounter).Value;

    private static unsafe bool TryMove(KvmFile vcpu, ulong back)
    {
        ulong offset = 0;
        // SAFETY: the kernel reads and writes eight bytes at the address, a local of this method, before each call returns.
        var attribute = new KvmDeviceAttr { Group = TscControl, Attribute = TscOffset, Address = (ulong)&offset };
        if (Libc.Ioctl(vcpu, KvmApi.KVM_GET_DEVICE_ATTR, &attribute) < 0) return false;
        offset = unchecked(offset - back);
        return Libc.Ioctl(vcpu, KvmApi.KVM_SET_DEVICE_ATTR, &attribute) >= 0;
    }
}
