using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm.Tests;

public class CpuidTests
{
    private static readonly KvmCpuidEntry[] s_host =
    [
        new() { Function = 0, Eax = 0x1F },
        new() { Function = 1, Ebx = 0x0710_0842, Edx = 1u << 28 },
        new() { Function = 4, Index = 0, Flags = 1, Eax = 0x1C00_4121 },
        new() { Function = 4, Index = 3, Flags = 1, Eax = 0x1C03_C163 },
        new() { Function = 6, Ecx = 9 },
        new() { Function = 0xB, Index = 0, Flags = 1, Eax = 1, Ebx = 2, Ecx = 0x100, Edx = 77 },
        new() { Function = 0xB, Index = 1, Flags = 1, Eax = 4, Ebx = 16, Ecx = 0x201, Edx = 77 },
        new() { Function = 0x1F, Index = 0, Flags = 1, Edx = 77 },
        new() { Function = 0x8000_0008, Eax = 0x3030, Ecx = 0x700F },
        new() { Function = 0x8000_001D, Index = 3, Flags = 1, Eax = 0x3C163 },
        new() { Function = 0x8000_001E, Eax = 77, Ebx = 0x101, Ecx = 3 },
    ];

    private static KvmCpuidEntry[] Of(int vcpus, int vcpu, KvmCpuTemplate? template = null) =>
        KvmCpuid.For(s_host, vcpus, tscDeadline: true, template ?? KvmCpuTemplate.None).EntriesOf(vcpu);

    private static KvmCpuidEntry Leaf(KvmCpuidEntry[] entries, uint function, uint index = 0) =>
        entries.Single(entry => entry.Function == function && entry.Index == index);

    [Fact]
    public void Filtering_adds_and_removes_no_leaf() => Assert.Equal(s_host.Select(e => (e.Function, e.Index)), Of(4, 2).Select(e =>
        (e.Function, e.Index)));

    [Fact]
    public void Leaf_1_has_the_apic_id_the_count_and_keeps_the_brand()
    {
        var leaf = Leaf(Of(4, 2), 1);
        Assert.Equal(0x0204_0842u, leaf.Ebx);
        Assert.Equal(1u << 31 | 1u << 24, leaf.Ecx);
        Assert.Equal(1u << 28, leaf.Edx);
        Assert.Equal(0u, Leaf(Of(1, 0), 1).Edx & (1u << 28));
    }

    [Fact]
    public void The_deadline_timer_is_offered_only_where_kvm_has_it() =>
        Assert.Equal(0u, Leaf(KvmCpuid.For(s_host, 1, tscDeadline: false, KvmCpuTemplate.None).EntriesOf(0), 1).Ecx & (1u << 24));

    [Fact]
    public void Extended_topology_describes_the_guest_and_not_the_host()
    {
        var entries = Of(4, 3);
        var threads = Leaf(entries, 0xB, 0);
        var cores = Leaf(entries, 0xB, 1);
        Assert.Equal((0u, 1u, 0x100u, 3u), (threads.Eax, threads.Ebx, threads.Ecx, threads.Edx));
        Assert.Equal((2u, 4u, 0x201u, 3u), (cores.Eax, cores.Ebx, cores.Ecx, cores.Edx));
        Assert.Equal(3u, Leaf(entries, 0x1F).Edx);
    }

    [Fact]
    public void Caches_are_private_up_to_the_second_level_and_shared_by_all_at_the_third()
    {
        var entries = Of(4, 0);
        Assert.Equal(0u, Leaf(entries, 4, 0).Eax >> 14 & 0xFFF);
        Assert.Equal(3u, Leaf(entries, 4, 3).Eax >> 14 & 0xFFF);
        Assert.Equal(3u, Leaf(entries, 4, 3).Eax >> 26);
        Assert.Equal(3u, Leaf(entries, 0x8000_001D, 3).Eax >> 14 & 0xFFF);
    }

    [Fact]
    public void Amd_leaves_count_the_guests_cores()
    {
        var entries = Of(4, 3);
        Assert.Equal(0x2003u, Leaf(entries, 0x8000_0008).Ecx);
        var node = Leaf(entries, 0x8000_001E);
        Assert.Equal((3u, 3u, 0u), (node.Eax, node.Ebx, node.Ecx));
    }

    [Fact]
    public void The_energy_bias_is_not_offered() => Assert.Equal(1u, Leaf(Of(1, 0), 6).Ecx);

    [Fact]
    public void A_template_sets_and_clears_the_bits_it_names()
    {
        Assert.True(BitPattern.TryParse("0bxxxx_xxxx_xxxx_xxxx_xxxx_xxxx_xxxx_x01x", 32, out var bits));
        var template = new KvmCpuTemplate { Cpuid = [new CpuidModifier(0x8000_001D, 3, CpuidRegister.Eax, bits)] };
        var plain = Leaf(Of(1, 0), 0x8000_001D, 3).Eax;
        Assert.Equal((plain & ~6u) | 2, Leaf(Of(1, 0, template), 0x8000_001D, 3).Eax);
        foreach (var register in Enum.GetValues<CpuidRegister>())
        {
            var one = Leaf(Of(1, 0, new KvmCpuTemplate { Cpuid = [new CpuidModifier(6, 0, register, new BitPattern(0x80, 0x80))] }), 6);
            Assert.Equal(register, new[] { (CpuidRegister.Eax, one.Eax), (CpuidRegister.Ebx, one.Ebx), (CpuidRegister.Ecx, one.Ecx),
                (CpuidRegister.Edx, one.Edx) }
                .Single(pair => (pair.Item2 & 0x80) != 0).Item1);
        }
        var strange = new KvmCpuTemplate { Cpuid = [new CpuidModifier(0x77, 0, CpuidRegister.Eax, bits)] };
        Assert.Contains("0x77", Assert.Throws<HypervisorException>(() => Of(1, 0, strange)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("01x", false)]
    [InlineData("0b", false)]
    [InlineData("0b2", false)]
    [InlineData("0b111111111", false)]
    [InlineData("0b1x0", true)]
    public void Bit_patterns_are_checked(string text, bool good) => Assert.Equal(good, BitPattern.TryParse(text, 8, out _));
}
