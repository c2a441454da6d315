using System.Reflection;
using System.Runtime.CompilerServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm.Tests;

public class NativeLayoutTests
{
    /// <summary>An ioctl number carries the size of its structure in bits 29:16 (asm-generic/ioctl.h).</summary>
    private static int SizeIn(uint request) => (int)(request >> 16) & 0x3FFF;

    [Fact]
    public void Every_structure_has_the_size_that_its_ioctl_numbers_carry()
    {
        Assert.Equal(SizeIn(KvmApi.KVM_GET_REGS), Unsafe.SizeOf<KvmRegs>());
        Assert.Equal(SizeIn(KvmApi.KVM_GET_SREGS), Unsafe.SizeOf<KvmSregs>());
        Assert.Equal(SizeIn(KvmApi.KVM_GET_DEBUGREGS), Unsafe.SizeOf<KvmDebugRegs>());
        Assert.Equal(SizeIn(KvmApi.KVM_GET_XCRS), Unsafe.SizeOf<KvmXcrs>());
        Assert.Equal(SizeIn(KvmApi.KVM_GET_VCPU_EVENTS), Unsafe.SizeOf<KvmVcpuEvents>());
        Assert.Equal(SizeIn(KvmApi.KVM_SET_USER_MEMORY_REGION), Unsafe.SizeOf<KvmMemoryRegion>());
        Assert.Equal(SizeIn(KvmApi.KVM_IRQ_LINE), Unsafe.SizeOf<KvmIrqLevel>());
        Assert.Equal(SizeIn(KvmApi.KVM_SIGNAL_MSI), Unsafe.SizeOf<KvmMsi>());
        Assert.Equal(SizeIn(KvmApi.KVM_IRQFD), Unsafe.SizeOf<KvmIrqfd>());
        Assert.Equal(SizeIn(KvmApi.KVM_IOEVENTFD), Unsafe.SizeOf<KvmIoEventFd>());
        Assert.Equal(SizeIn(KvmApi.KVM_GET_IRQCHIP), Unsafe.SizeOf<KvmIrqChip>());
        Assert.Equal(SizeIn(KvmApi.KVM_CREATE_PIT2), Unsafe.SizeOf<KvmPitConfig>());
        Assert.Equal(SizeIn(KvmApi.KVM_GET_PIT2), Unsafe.SizeOf<KvmPitState>());
        Assert.Equal(SizeIn(KvmApi.KVM_GET_CLOCK), Unsafe.SizeOf<KvmClockData>());
        Assert.Equal(SizeIn(KvmApi.KVM_SET_DEVICE_ATTR), Unsafe.SizeOf<KvmDeviceAttr>());
        Assert.Equal(SizeIn(KvmApi.KVM_TRANSLATE), Unsafe.SizeOf<KvmTranslation>());
        Assert.Equal(40, Unsafe.SizeOf<KvmCpuidEntry>());
        Assert.Equal(16, Unsafe.SizeOf<KvmMsrEntry>());
        Assert.Equal(48, Unsafe.SizeOf<KvmIrqRoutingEntry>());
    }

    [Fact]
    public void Every_request_number_is_of_the_kvm_family()
    {
        var numbers = typeof(KvmApi).GetFields(BindingFlags.Public | BindingFlags.Static).Where(field =>
            field.FieldType == typeof(uint)).ToArray();
        Assert.NotEmpty(numbers);
        Assert.All(numbers, field => Assert.Equal(0xAEu, ((uint)field.GetRawConstantValue()! >> 8) & 0xFF));
    }
}
