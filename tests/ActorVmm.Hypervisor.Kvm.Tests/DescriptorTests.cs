using ActorVmm.Memory;

namespace ActorVmm.Hypervisor.Kvm.Tests;

/// <summary>Tests that count what the whole process holds run when nothing else does.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class AloneGroup
{
    public const string Name = "alone";
}

[Collection(AloneGroup.Name)]
public class DescriptorTests
{
    internal static (int Descriptors, int Mappings) Held()
    {
        // What earlier tests left to the finalizer is not ours to count.
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return (Directory.GetFiles("/proc/self/fd").Length, File.ReadLines("/proc/self/maps").Count(line => line.Contains("kvm-vcpu",
            StringComparison.Ordinal)));
    }

    [KvmFact]
    public void Every_descriptor_and_mapping_goes_with_its_machine()
    {
        var kvm = new KvmHypervisor();
        using var memory = GuestMemory.Create(1 << 20);
        kvm.Create(new MachineOptions(memory, 1)).Dispose(); // what the runtime opens once is open now
        var before = Held();
        var machine = kvm.Create(new MachineOptions(memory, 3));
        Assert.Equal(before.Mappings + 3, Held().Mappings);
        machine.TryCreateDoorbell(new DoorbellAddress(0x4000_0050, IsPort: false, 4, 0));
        machine.CreateInterruptEvent(5);
        machine.CreateInterruptEvent(6, resample: true);
        Assert.Equal(before.Descriptors + 1 + 3 + 4, Held().Descriptors); // VM, vCPUs, four eventfds
        machine.Dispose();
        machine.Dispose();
        Assert.Equal(before, Held());
    }

    [KvmFact]
    public void A_machine_that_cannot_be_built_leaves_nothing_behind()
    {
        using var memory = GuestMemory.Create(1 << 20);
        new KvmHypervisor().Create(new MachineOptions(memory, 1)).Dispose();
        var before = Held();
        var failing = new KvmHypervisor(new KvmCpuTemplate { Msrs = [new MsrModifier(0x1234_5678, new BitPattern(1, 1))] });
        Assert.Throws<HypervisorException>(() => failing.CreateMachine(new MachineOptions(memory, 2)));
        Assert.Equal(before, Held());
    }

    [KvmFact]
    public void Events_that_are_taken_down_close_their_descriptors_and_may_outlive_the_machine()
    {
        using var memory = GuestMemory.Create(1 << 20);
        var machine = new KvmHypervisor().Create(new MachineOptions(memory, 1));
        var before = Held();
        var doorbell = machine.TryCreateDoorbell(new DoorbellAddress(0x510, IsPort: true, 2, 1))!;
        var interrupt = machine.CreateInterruptEvent(5, resample: true);
        doorbell.Dispose();
        interrupt.Dispose();
        Assert.Equal(before, Held());
        var late = machine.CreateInterruptEvent(7);
        machine.Dispose();
        late.Dispose();
    }
}
