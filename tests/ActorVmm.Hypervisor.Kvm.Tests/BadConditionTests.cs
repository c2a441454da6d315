using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Memory;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Native;
using Mono.Unix.Native;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Kvm.Tests;

/// <summary>A host that refuses, or takes away what it gave: each time its own message, and nothing left behind.</summary>
[Collection(AloneGroup.Name)]
public sealed partial class BadConditionTests
{
    private const int DescriptorLimit = 7; // RLIMIT_NOFILE
    private const int Vcpus = 2;

    [Fact]
    public void A_device_that_may_not_be_opened_says_what_to_do_and_opens_nothing()
    {
        var before = DescriptorTests.Held();
        // Nobody may write to this one, root included: it stands for a /dev/kvm of another group.
        var refused = Assert.Throws<HypervisorException>(() => KvmSystem.Open("/proc/sys/kernel/osrelease"));
        Assert.StartsWith("open /proc/sys/kernel/osrelease failed: ", refused.Message, StringComparison.Ordinal);
        Assert.Contains("add the user to the group that owns /dev/kvm", refused.Message, StringComparison.Ordinal);
        Assert.Equal(before, DescriptorTests.Held());
    }

    [Fact]
    public void A_device_that_is_no_kvm_is_refused_and_closed()
    {
        var before = DescriptorTests.Held();
        using (var system = KvmSystem.Open("/dev/null"))
        {
            var refused = Assert.Throws<HypervisorException>(() => KvmCapabilities.Demand(system, []));
            Assert.StartsWith("KVM_GET_API_VERSION failed", refused.Message, StringComparison.Ordinal);
        }
        Assert.Equal(before, DescriptorTests.Held());
    }

    /// <summary>The device, the VM and each vCPU take one descriptor: whichever is refused, those before it are closed again.</summary>
    [KvmFact]
    public void A_machine_whose_next_descriptor_is_refused_leaves_nothing_behind_at_any_step()
    {
        using var memory = GuestMemory.Create(1 << 20);
        Build(memory);
        // All code of the way out has run once, so that nothing is loaded from files while there are no descriptors.
        Assert.NotNull(WithDescriptors(0, () => Build(memory)));
        var before = DescriptorTests.Held();
        string[] calls = ["open /dev/kvm", "KVM_CREATE_VM", .. Enumerable.Repeat("KVM_CREATE_VCPU", Vcpus)];
        for (var granted = 0; granted < calls.Length; granted++)
        {
            var refused = Assert.IsType<HypervisorException>(WithDescriptors(granted, () => Build(memory)));
            Assert.StartsWith($"{calls[granted]} failed: ", refused.Message, StringComparison.Ordinal);
            Assert.Contains("ulimit -n", refused.Message, StringComparison.Ordinal);
            Assert.Equal(before, DescriptorTests.Held());
        }
        Assert.Null(WithDescriptors(calls.Length, () => Build(memory)));
        Assert.Equal(before, DescriptorTests.Held());
    }

    /// <summary>Whatever the kernel refuses, and with whatever error, while a machine is built.</summary>
    public static TheoryData<string, int> Refusals
    {
        get
        {
            var data = new TheoryData<string, int>();
            string[] calls =
            [
                nameof(KvmApi.KVM_GET_API_VERSION), nameof(KvmApi.KVM_CHECK_EXTENSION), nameof(KvmApi.KVM_CREATE_VM),
                nameof(KvmApi.KVM_GET_SUPPORTED_CPUID), nameof(KvmApi.KVM_GET_MSR_INDEX_LIST), nameof(KvmApi.KVM_GET_VCPU_MMAP_SIZE),
                nameof(KvmApi.KVM_SET_TSS_ADDR), nameof(KvmApi.KVM_SET_IDENTITY_MAP_ADDR), nameof(KvmApi.KVM_CREATE_IRQCHIP),
                nameof(KvmApi.KVM_SET_GSI_ROUTING), nameof(KvmApi.KVM_CREATE_PIT2), nameof(KvmApi.KVM_SET_USER_MEMORY_REGION),
                nameof(KvmApi.KVM_CREATE_VCPU), nameof(KvmApi.KVM_SET_CPUID2), nameof(KvmApi.KVM_SET_MSRS), nameof(KvmApi.KVM_SET_LAPIC),
                nameof(KvmApi.KVM_GET_REGS), nameof(KvmApi.KVM_GET_IRQCHIP), nameof(KvmApi.KVM_GET_PIT2), nameof(KvmApi.KVM_GET_CLOCK),
            ];
            foreach (var call in calls) data.Add(call, Libc.ENOMEM);
            data.Add(nameof(KvmApi.KVM_CREATE_VM), Libc.EBUSY);
            data.Add(nameof(KvmApi.KVM_CREATE_VCPU), Libc.EBUSY);
            data.Add(nameof(KvmApi.KVM_SET_USER_MEMORY_REGION), Libc.ENOSPC);
            data.Add(nameof(KvmApi.KVM_CREATE_VM), Libc.EPERM);
            return data;
        }
    }

    [KvmTheory, MemberData(nameof(Refusals))]
    public void A_call_that_the_kernel_refuses_is_named_with_what_to_do_and_leaves_nothing_behind(string call, int errno)
    {
        using var memory = GuestMemory.Create(1 << 20);
        Build(memory);
        var before = DescriptorTests.Held();
        var request = (uint)typeof(KvmApi).GetField(call)!.GetRawConstantValue()!;
        var refused = Assert.IsType<HypervisorException>(RefusingKernel.WithoutIoctl(request, errno, () => Build(memory)));
        Assert.StartsWith($"{call} failed: ", refused.Message, StringComparison.Ordinal);
        Assert.Contains($"(errno {errno}); {KvmError.Advice(errno)}", refused.Message, StringComparison.Ordinal);
        Assert.Equal(before, DescriptorTests.Held());
    }

    [KvmFact]
    public void A_run_page_that_cannot_be_mapped_leaves_nothing_behind()
    {
        using var memory = GuestMemory.Create(1 << 20);
        Build(memory);
        using var system = KvmSystem.Open();
        var size = (uint)system.RunPageSize;
        var before = DescriptorTests.Held();
        var refused = Assert.IsType<HypervisorException>(RefusingKernel.WithoutMapping(size, Libc.ENOMEM, () => Build(memory)));
        Assert.StartsWith("mmap of kvm_run failed: ", refused.Message, StringComparison.Ordinal);
        Assert.Contains("out of memory", refused.Message, StringComparison.Ordinal);
        Assert.Equal(before, DescriptorTests.Held());
    }

    [KvmFact]
    public void A_second_slot_for_the_same_memory_is_refused_by_the_kernel()
    {
        using var memory = GuestMemory.Create(1 << 20);
        using var machine = new KvmHypervisor().Create(new MachineOptions(memory, 1));
        var region = memory.Regions[0];
        var twice = new KvmMemoryRegion { Slot = 1, GuestAddress = region.Start.Value, Size = region.Size, HostAddress = (ulong)region.HostAddress };
        var refused = Assert.Throws<HypervisorException>(() =>
            machine.File.Call(KvmApi.KVM_SET_USER_MEMORY_REGION, ref twice, nameof(KvmApi.KVM_SET_USER_MEMORY_REGION)));
        Assert.Contains($"(errno {Libc.EEXIST})", refused.Message, StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_vcpu_handle_that_dies_in_mid_run_fails_the_run_with_its_errno_and_everything_is_given_back()
    {
        new TinyGuest(new KvmHypervisor()).Dispose();
        var before = DescriptorTests.Held();
        using (var guest = new TinyGuest(new KvmHypervisor()).Code(c =>
        {
            c.Act(1);
            c.mov(eax, 1);
            c.ReportEax();
            c.Done();
        }).Start64())
        {
            guest.Actions[1] = () => Kill(((KvmVcpu)guest.Machine.Vcpus[0]).File);
            var run = guest.Run();
            Assert.Equal(GuestEnd.Failed, run.End);
            Assert.Empty(run.Reports);
            Assert.StartsWith("vCPU 0: KVM_RUN failed: ", run.Detail, StringComparison.Ordinal);
            Assert.Contains($"errno {Libc.ENOTTY}", run.Detail, StringComparison.Ordinal);
            Assert.Contains("registers cannot be read", run.Detail, StringComparison.Ordinal);
            Assert.Contains("a failure of the host, not of the guest", run.Detail, StringComparison.Ordinal);
        }
        Assert.Equal(before, DescriptorTests.Held());
    }

    [KvmFact]
    public void A_machine_handle_that_dies_fails_each_call_by_name_and_everything_is_given_back()
    {
        using var memory = GuestMemory.Create(1 << 20);
        Build(memory);
        var before = DescriptorTests.Held();
        using (var machine = new KvmHypervisor().Create(new MachineOptions(memory, Vcpus)))
        {
            machine.CreateInterruptEvent(5);
            machine.TryCreateDoorbell(new DoorbellAddress(0x510, IsPort: true, 2, 1));
            Kill(machine.File);
            Assert.StartsWith("KVM_IRQ_LINE failed", Assert.Throws<HypervisorException>(() => machine.SetInterruptLine(4, true)).Message,
                StringComparison.Ordinal);
            Assert.StartsWith("KVM_SIGNAL_MSI failed", Assert.Throws<HypervisorException>(() => machine.SendMsi(0xFEE0_0000, 0x40)).Message,
                StringComparison.Ordinal);
        }
        Assert.Equal(before, DescriptorTests.Held());
    }

    private static void Build(GuestMemory memory) => new KvmHypervisor().Create(new MachineOptions(memory, Vcpus)).Dispose();

    /// <summary>Takes the kernel object away from under its number, which stays ours to close.</summary>
    private static void Kill(KvmFile file)
    {
        var other = Syscall.open("/dev/null", OpenFlags.O_RDWR | OpenFlags.O_CLOEXEC);
        Assert.True(other >= 0);
        Assert.Equal(file.Fd, Syscall.dup2(other, file.Fd));
        Assert.Equal(0, Syscall.close(other));
    }

    /// <summary>Runs <paramref name="act"/> while the process can open <paramref name="count"/> more descriptors; what it threw.</summary>
    private static Exception? WithDescriptors(int count, Action act)
    {
        Assert.Equal(0, GetLimit(DescriptorLimit, out var limit));
        // The numbers that the next ones would get: the lowest free ones, in order. The limit is the first that may not be given out.
        var next = Enumerable.Range(0, count + 1).Select(_ => Syscall.open("/dev/null", OpenFlags.O_RDONLY | OpenFlags.O_CLOEXEC)).ToArray();
        foreach (var number in next) Assert.Equal(0, Syscall.close(number));
        Assert.Equal(0, SetLimit(DescriptorLimit, limit with { Soft = (ulong)next[count] }));
        try
        {
            return Record.Exception(act);
        }
        finally
        {
            Assert.Equal(0, SetLimit(DescriptorLimit, limit));
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private readonly record struct ResourceLimit(ulong Soft, ulong Hard);

    [LibraryImport("libc", EntryPoint = "getrlimit")]
    private static partial int GetLimit(int resource, out ResourceLimit limit);

    [LibraryImport("libc", EntryPoint = "setrlimit")]
    private static partial int SetLimit(int resource, in ResourceLimit limit);
}
