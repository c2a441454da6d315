using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Kvm.Tests;

/// <summary>What a failed exit says. The kernel's words are written into the shared page by hand, so that every host tells the
/// same.</summary>
public sealed class FailureTests : IDisposable
{
    private readonly Lazy<TinyGuest> _guest = new(() => new TinyGuest(new KvmHypervisor()).Code(c =>
    {
        c.int3();
        c.popcnt(eax, ebx);
    }).Start64());

    private KvmVcpu Vcpu => (KvmVcpu)_guest.Value.Machine.Vcpus[0];

    private string Detail(KvmExitReason reason, Action<KvmRunMapping>? fill = null)
    {
        var page = Vcpu.Page;
        page.Field<uint>(RunPage.ExitReason) = (uint)reason;
        fill?.Invoke(page);
        return KvmFailure.OfExit(Vcpu, page);
    }

    [KvmFact]
    public void A_failed_emulation_names_cause_rip_bytes_and_instruction()
    {
        var detail = Detail(KvmExitReason.INTERNAL_ERROR, page =>
        {
            page.Field<uint>(RunPage.SubError) = 1;
            page.Field<uint>(RunPage.SubErrorCount) = 0;
        });
        Assert.Contains(KvmVerdicts.CannotEmulate, detail, StringComparison.Ordinal);
        Assert.Contains("RIP 0x10000", detail, StringComparison.Ordinal);
        Assert.Contains("bytes cc: int 3", detail, StringComparison.Ordinal);
        Assert.Contains("ring 0, 64-bit", detail, StringComparison.Ordinal);
        Assert.Contains("--hypervisor soft", detail, StringComparison.Ordinal);
    }

    [KvmFact]
    public void Where_the_code_cannot_be_read_the_kernels_copy_of_the_bytes_is_used()
    {
        var state = Vcpu.GetState();
        Vcpu.SetState(state with { General = state.General with { Rip = GuestLayout.MappedArea } });
        var detail = Detail(KvmExitReason.INTERNAL_ERROR, page =>
        {
            page.Field<uint>(RunPage.SubError) = 1;
            page.Field<uint>(RunPage.SubErrorCount) = 3;
            page.Field<ulong>(RunPage.SubErrorData) = 1;
            page.Field<byte>(RunPage.SubErrorData + 8) = 2;
            page.Field<byte>(RunPage.SubErrorData + 9) = 0x0F;
            page.Field<byte>(RunPage.SubErrorData + 10) = 0x05;
        });
        Assert.Contains("bytes 0f05: syscall", detail, StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_refused_entry_has_the_hardware_code() =>
        Assert.Contains("hardware reason 0x80000021", Detail(KvmExitReason.FAIL_ENTRY, page =>
            page.Field<ulong>(RunPage.HardwareReason) = 0x8000_0021), StringComparison.Ordinal);

    [KvmFact]
    public void An_unknown_hardware_reason_and_an_unknown_exit_number_are_told_apart()
    {
        Assert.Contains("KVM_EXIT_UNKNOWN, hardware reason 0x99", Detail(KvmExitReason.UNKNOWN, page =>
            page.Field<ulong>(RunPage.HardwareReason) = 0x99), StringComparison.Ordinal);
        Assert.Contains("exit reason 4711", Detail((KvmExitReason)4711), StringComparison.Ordinal);
        Assert.Contains("KVM_EXIT_HYPERCALL", Detail(KvmExitReason.HYPERCALL), StringComparison.Ordinal);
    }

    [KvmFact]
    public void The_other_internal_errors_show_their_data()
    {
        var detail = Detail(KvmExitReason.INTERNAL_ERROR, page =>
        {
            page.Field<uint>(RunPage.SubError) = 3;
            page.Field<uint>(RunPage.SubErrorCount) = 2;
            page.Field<ulong>(RunPage.SubErrorData) = 0x80000B0E;
            page.Field<ulong>(RunPage.SubErrorData + 8) = 0x31;
        });
        Assert.Contains("delivery event, data 0x80000b0e 0x31", detail, StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_host_that_loses_the_vcpu_is_a_failure_with_its_errno()
    {
        var detail = KvmFailure.OfErrno(Vcpu, Libc.EIO, Vcpu.Page);
        Assert.Contains("KVM_RUN failed", detail, StringComparison.Ordinal);
        Assert.Contains("errno 5", detail, StringComparison.Ordinal);
    }

    [KvmFact]
    public void System_events_are_named()
    {
        Vcpu.Page.Field<uint>(RunPage.SystemEventType) = 2;
        Assert.Equal("reset", KvmFailure.SystemEvent(Vcpu.Page));
        Vcpu.Page.Field<uint>(RunPage.SystemEventType) = 77;
        Assert.Equal("system event 77", KvmFailure.SystemEvent(Vcpu.Page));
    }

    public void Dispose()
    {
        if (_guest.IsValueCreated) _guest.Value.Dispose();
    }
}
