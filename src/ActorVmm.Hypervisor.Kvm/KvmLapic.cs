using System.Buffers.Binary;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>The local APIC's pins at start (Intel MP specification §3.6.2.2: virtual wire mode).</summary>
internal static class KvmLapic
{
    public const int RegisterPageSize = 1024;
    public const int Lint0 = 0x350, Lint1 = 0x360;
    public const uint ExtInt = 7, Nmi = 4;

    /// <summary>LINT0 takes the 8259's interrupts, LINT1 the NMI; masks stay as they are.</summary>
    public static void WireLocalInterrupts(KvmFile vcpu)
    {
        var page = new byte[RegisterPageSize];
        vcpu.Call(KvmApi.KVM_GET_LAPIC, page, nameof(KvmApi.KVM_GET_LAPIC));
        SetDeliveryMode(page, Lint0, ExtInt);
        SetDeliveryMode(page, Lint1, Nmi);
        vcpu.Call(KvmApi.KVM_SET_LAPIC, page, nameof(KvmApi.KVM_SET_LAPIC));
    }

    /// <summary>Changes bits 10:8 of a local vector table entry (SDM Vol. 3 §11.5.1).</summary>
    public static void SetDeliveryMode(Span<byte> page, int register, uint mode)
    {
        var entry = page.Slice(register, 4);
        var value = BinaryPrimitives.ReadUInt32LittleEndian(entry);
        BinaryPrimitives.WriteUInt32LittleEndian(entry, (value & ~0x700u) | (mode << 8));
    }
}
