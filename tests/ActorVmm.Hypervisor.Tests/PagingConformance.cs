using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

public abstract class PagingConformance<TSubject> : Conformance<TSubject> where TSubject : IConformanceSubject, new()
{
    private const ulong At = GuestLayout.MappedArea;
    private const ulong Page = GuestLayout.Free;
    private const PageBits Kernel = PageBits.KernelData;

    /// <summary>One access that must fault; the fault's error code and CR2.</summary>
    private GuestFault Fault(TinyGuest guest, Action<Assembler> access)
    {
        guest.Code(c =>
        {
            var after = c.CreateLabel();
            c.ExpectFault(after);
            c.mov(rbx, At);
            access(c);
            c.Report(0xBAD); // no fault
            c.Label(ref after);
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        Assert.Empty(run.Reports);
        var fault = Assert.Single(run.Faults);
        Assert.Equal(14, fault.Vector);
        return fault;
    }

    [SkippableFact]
    public void A_page_that_is_not_present_faults_with_the_address_in_cr2()
    {
        var guest = Guest();
        guest.Map(At, Page, PageBits.None);
        var fault = Fault(guest, c => c.mov(eax, __dword_ptr[rbx + 0x123]));
        Assert.Equal((0u, At + 0x123), (fault.ErrorCode, fault.Cr2));
        Assert.Equal(GuestLayout.KernelStack, fault.Rsp);
    }

    [SkippableFact]
    public void A_store_to_an_absent_page_sets_the_write_bit()
    {
        var guest = Guest();
        guest.Map(At, Page, PageBits.None);
        Assert.Equal(2u, Fault(guest, c => c.mov(__dword_ptr[rbx], eax)).ErrorCode);
    }

    [SkippableFact]
    public void A_missing_table_faults_like_a_missing_page()
    {
        Assert.Equal(0u, Fault(Guest(), c => c.mov(eax, __dword_ptr[rbx])).ErrorCode);
    }

    [SkippableFact]
    public void A_store_to_a_read_only_page_is_a_protection_fault_when_wp_is_set()
    {
        var guest = Guest();
        guest.Map(At, Page, PageBits.Present);
        Assert.Equal(3u, Fault(guest, c => c.mov(__dword_ptr[rbx], eax)).ErrorCode);
    }

    [SkippableFact]
    public void Without_wp_ring_0_writes_to_read_only_pages()
    {
        var guest = Guest();
        guest.Map(At, Page, PageBits.Present);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(__dword_ptr[rbx], 0x1234);
            c.Done();
        }).Start64(change: state => state with { Special = state.Special with { Cr0 = state.Special.Cr0 & ~0x10000UL } });
        RunToDone(guest);
        Assert.Equal(0x1234u, guest.Read<uint>(Page));
    }

    [SkippableFact]
    public void Fetching_from_a_no_execute_page_sets_the_fetch_bit()
    {
        var guest = Guest();
        guest.Map(At, Page, Kernel | PageBits.NoExecute);
        var fault = Fault(guest, c => c.jmp(rbx));
        Assert.Equal((0x11u, At, At), (fault.ErrorCode, fault.Cr2, fault.Rip));
    }

    [SkippableFact]
    public void A_reserved_bit_in_an_entry_is_reported_as_such()
    {
        var guest = Guest();
        guest.Map(At, Page | (1UL << 51), Kernel);
        Assert.Equal(9u, Fault(guest, c => c.mov(eax, __dword_ptr[rbx])).ErrorCode);
    }

    [SkippableFact]
    public void A_store_across_a_page_border_faults_before_it_writes_anything()
    {
        var guest = Guest();
        guest.Map(At, Page, Kernel);
        guest.Map(At + 0x1000, Page + 0x1000, PageBits.None);
        var fault = Fault(guest, c => c.mov(__qword_ptr[rbx + 0xFFC], rbx));
        Assert.Equal((2u, At + 0x1000), (fault.ErrorCode, fault.Cr2));
        Assert.Equal(0u, guest.Read<uint>(Page + 0xFFC));
    }

    [SkippableFact]
    public void A_load_across_two_distant_pages_joins_their_bytes()
    {
        var guest = Guest();
        guest.Map(At, Page, Kernel);
        guest.Map(At + 0x1000, Page + 0x9000, Kernel);
        guest.Write(Page + 0xFFC, 0x44332211u);
        guest.Write(Page + 0x9000, 0x88776655u);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(rax, __qword_ptr[rbx + 0xFFC]);
            c.ReportRax();
            c.Done();
        }).Start64();
        Assert.Equal([0x8877665544332211UL], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Accessed_is_set_by_a_load_and_dirty_by_a_store()
    {
        var guest = Guest();
        var first = guest.Map(At, Page, Kernel);
        var second = guest.Map(At + 0x1000, Page + 0x1000, Kernel);
        var third = guest.Map(At + 0x2000, Page + 0x2000, Kernel);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(eax, __dword_ptr[rbx]);
            c.mov(__dword_ptr[rbx + 0x1000], eax);
            c.Done();
        }).Start64();
        RunToDone(guest);
        const ulong accessed = (ulong)PageBits.Accessed, dirty = (ulong)PageBits.Dirty;
        Assert.Equal(accessed, guest.Read<ulong>(first) & (accessed | dirty));
        Assert.Equal(accessed | dirty, guest.Read<ulong>(second) & (accessed | dirty));
        Assert.Equal(0UL, guest.Read<ulong>(third) & (accessed | dirty));
        Assert.Equal(accessed, guest.Read<ulong>(GuestLayout.Pml4 + (8 * (At >> 39))) & accessed);
    }

    [SkippableFact]
    public void Dirty_is_set_by_a_store_after_a_load_had_set_accessed()
    {
        var guest = Guest();
        var entry = guest.Map(At, Page, Kernel);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(eax, __dword_ptr[rbx]);
            c.mov(__dword_ptr[rbx], eax);
            c.Done();
        }).Start64();
        RunToDone(guest);
        Assert.Equal(0x60UL, guest.Read<ulong>(entry) & 0x60);
    }

    [SkippableFact]
    public void After_invlpg_the_new_entry_counts()
    {
        var guest = Guest();
        var entry = guest.Map(At, Page, Kernel);
        guest.Write(Page, 0x1111u);
        guest.Write(Page + 0x1000, 0x2222u);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(eax, __dword_ptr[rbx]);
            c.ReportEax();
            c.mov(edx, (uint)entry);
            c.mov(rax, (Page + 0x1000) | (ulong)Kernel);
            c.mov(__qword_ptr[rdx], rax);
            c.invlpg(__byte_ptr[rbx]);
            c.mov(eax, __dword_ptr[rbx]);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0x1111UL, 0x2222], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void Reloading_cr3_flushes_what_was_translated()
    {
        var guest = Guest();
        var entry = guest.Map(At, Page, Kernel);
        guest.Write(Page, 0x1111u);
        guest.Write(Page + 0x1000, 0x2222u);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(eax, __dword_ptr[rbx]);
            c.ReportEax();
            c.mov(edx, (uint)entry);
            c.mov(rax, (Page + 0x1000) | (ulong)Kernel);
            c.mov(__qword_ptr[rdx], rax);
            c.mov(rax, cr3);
            c.mov(cr3, rax);
            c.mov(eax, __dword_ptr[rbx]);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0x1111UL, 0x2222], RunToDone(guest).Reports);
    }

    [SkippableFact]
    public void A_fault_makes_a_newly_present_entry_visible_without_invlpg()
    {
        var guest = Guest();
        var entry = guest.Map(At, Page, PageBits.None);
        guest.Write(Page, 0x3333u);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(eax, __dword_ptr[rbx]);
            c.ReportEax();
            c.Done();
        });
        guest.Handler(14, c =>
        {
            c.mov(edx, (uint)entry);
            c.or(__qword_ptr[rdx], (int)Kernel);
            c.add(rsp, 8);
            c.iretq();
        }).Start64();
        Assert.Equal([0x3333UL], RunToDone(guest).Reports);
    }

    [SkippableTheory]
    [InlineData(2UL << 20)]
    [InlineData(1UL << 30)]
    public void Large_pages_translate_to_their_last_byte(ulong size)
    {
        var guest = Guest();
        guest.Map(At, 0, Kernel, size);
        guest.Write(0x1F_FFF8UL, 0x0123456789ABCDEFUL);
        guest.Code(c =>
        {
            var after = c.CreateLabel();
            c.ExpectFault(after);
            c.mov(rbx, At + 0x1F_FFF8);
            c.mov(rax, __qword_ptr[rbx]);
            c.ReportRax();
            c.Label(ref after);
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        // 1 GiB pages are CPUID 0x80000001 EDX bit 26; without it the entry's bit 7 is reserved.
        if (size == 2UL << 20 || (Cpuid(0x8000_0001).Edx & (1 << 26)) != 0) Assert.Equal([0x0123456789ABCDEFUL], run.Reports);
        else Assert.Equal(9u, Assert.Single(run.Faults).ErrorCode);
    }

    [SkippableFact]
    public void Two_mappings_of_one_page_see_each_others_stores()
    {
        var guest = Guest();
        guest.Map(At, Page, Kernel);
        guest.Map(At + 0x5000, Page, Kernel);
        guest.Code(c =>
        {
            c.mov(rbx, At);
            c.mov(__dword_ptr[rbx], 0x600D);
            c.mov(eax, __dword_ptr[rbx + 0x5000]);
            c.ReportEax();
            c.Done();
        }).Start64();
        Assert.Equal([0x600DUL], RunToDone(guest).Reports);
    }

    [SkippableTheory]
    [InlineData(7, 20)] // SMEP
    [InlineData(20, 21)] // SMAP
    public void Supervisor_access_protection_works_where_cpuid_offers_it_and_cannot_be_enabled_elsewhere(int cpuidBit, int cr4Bit)
    {
        var guest = Guest();
        guest.Map(At, Page, PageBits.UserData);
        guest.Code(c =>
        {
            var after = c.CreateLabel();
            c.ExpectFault(after);
            c.mov(rbx, At);
            c.mov(rax, cr4);
            c.bts(rax, (sbyte)cr4Bit);
            c.mov(cr4, rax);
            if (cr4Bit == 20) c.jmp(rbx);
            else c.mov(eax, __dword_ptr[rbx]);
            c.Report(0xBAD);
            c.Label(ref after);
            c.Done();
        }).Start64();
        var run = RunToDone(guest);
        Assert.Empty(run.Reports);
        var fault = Assert.Single(run.Faults);
        if ((Cpuid(7).Ebx & (1u << cpuidBit)) == 0) Assert.Equal(13, fault.Vector);
        else Assert.Equal((14, cr4Bit == 20 ? 0x11u : 1u), (fault.Vector, fault.ErrorCode));
    }

    [SkippableFact]
    public void A_noncanonical_address_is_a_general_protection_fault()
    {
        var guest = Guest().Code(c =>
        {
            var after = c.CreateLabel();
            c.ExpectFault(after);
            c.mov(rbx, 0x0000_8000_0000_0000);
            c.mov(eax, __dword_ptr[rbx]);
            c.Label(ref after);
            c.Done();
        }).Start64();
        var fault = Assert.Single(RunToDone(guest).Faults);
        Assert.Equal((13, 0u), (fault.Vector, fault.ErrorCode));
    }
}
