using System.Text;
using ActorVmm.Hypervisor.Soft.Cpu;
using Xunit;

namespace ActorVmm.Hypervisor.Soft.Tests.SystemSide;

public sealed class CpuidTests
{
    private static readonly CpuIdentity One = new(0, 1, ApicEnabled: true, 1_000_000);

    private static string Text(params uint[] words) => Encoding.ASCII.GetString([.. words.SelectMany(BitConverter.GetBytes)]).TrimEnd('\0');

    private static CpuidResult Query(uint leaf, uint subleaf = 0) => Cpuid.Query(leaf, subleaf, One);

    [Fact]
    public void Names_are_spelled_in_the_order_of_the_registers()
    {
        var (basic, hypervisor) = (Query(0), Query(0x4000_0000));
        Assert.Equal("AuthenticAMD", Text(basic.Ebx, basic.Edx, basic.Ecx));
        Assert.Equal("ActorVmmSoft", Text(hypervisor.Ebx, hypervisor.Ecx, hypervisor.Edx));
        var brand = Enumerable.Range(2, 3).Select(i => Query(0x8000_0000 + (uint)i)).SelectMany(r => (uint[])[r.Eax, r.Ebx, r.Ecx, r.Edx]).ToArray();
        Assert.Equal("ActorVmm software CPU", Text(brand));
    }

    [Fact]
    public void Family_and_model_are_15_and_107()
    {
        var eax = Query(1).Eax;
        Assert.Equal((15u, 107u), ((eax >> 8 & 15) + (eax >> 20 & 0xFF), eax >> 16 << 4 & 0xF0 | eax >> 4 & 15));
    }

    [Theory]
    [InlineData(26)] // XSAVE
    [InlineData(27)] // OSXSAVE
    [InlineData(28)] // AVX
    [InlineData(25)] // AES
    [InlineData(1)] // PCLMULQDQ
    [InlineData(3)] // MONITOR
    [InlineData(30)] // RDRAND
    public void What_is_not_built_is_not_offered(int bit) => Assert.Equal(0u, Query(1).Ecx >> bit & 1);

    [Fact]
    public void The_extended_leaf_repeats_what_amd_repeats()
    {
        const uint both = 0x0183_F3FF;
        Assert.Equal(Query(1).Edx & both, Query(0x8000_0001).Edx & both);
        Assert.Equal(0x2C10_0800u, Query(0x8000_0001).Edx & 0x2C10_0800); // LM, RDTSCP, 1 GiB pages, NX, SYSCALL
    }

    [Fact]
    public void Cr4_bits_and_feature_bits_agree()
    {
        bool Offered(uint word, int bit) => (word >> bit & 1) != 0;
        var (edx, ecx, ebx7) = (Query(1).Edx, Query(1).Ecx, Query(7).Ebx);
        foreach (var (bit, offered) in ((int, bool)[])
        [
            (0, Offered(edx, 1)), (3, Offered(edx, 2)), (4, Offered(edx, 3)), (5, Offered(edx, 6)), (6, Offered(edx, 7)), (7, Offered(edx, 13)),
            (9, Offered(edx, 24)), (10, Offered(edx, 25)), (11, Offered(Query(7).Ecx, 2)), (16, Offered(ebx7, 0)), (17, Offered(ecx, 17)),
            (18, Offered(ecx, 26)), (20, Offered(ebx7, 7)), (21, Offered(ebx7, 20)), (22, Offered(Query(7).Ecx, 3)),
        ]) Assert.True(offered == ((Cr4Bits.All >> bit & 1) != 0), $"CR4 bit {bit}");
    }

    [Fact]
    public void The_apic_bit_follows_its_base_register()
    {
        Assert.NotEqual(0u, Query(1).Edx & CpuFeatures.Apic);
        Assert.Equal(0u, Cpuid.Query(1, 0, One with { ApicEnabled = false }).Edx & CpuFeatures.Apic);
    }

    [Theory]
    [InlineData(1u, 0u)]
    [InlineData(2u, 1u)]
    [InlineData(3u, 2u)]
    [InlineData(4u, 2u)]
    [InlineData(200u, 8u)]
    public void Topology_leaves_tell_one_story(uint count, uint idBits)
    {
        var last = new CpuIdentity(count - 1, count, ApicEnabled: true, 0);
        var (threads, cores) = (Cpuid.Query(0xB, 0, last), Cpuid.Query(0xB, 1, last));
        Assert.Equal((0u, 1u, 0x100u, count - 1), (threads.Eax, threads.Ebx, threads.Ecx, threads.Edx));
        Assert.Equal((idBits, count, 0x201u, count - 1), (cores.Eax, cores.Ebx, cores.Ecx, cores.Edx));
        Assert.Equal((0u, 0u, 2u), (Cpuid.Query(0xB, 2, last).Eax, Cpuid.Query(0xB, 2, last).Ebx, Cpuid.Query(0xB, 2, last).Ecx));
        var leaf1 = Cpuid.Query(1, 0, last);
        Assert.Equal((count - 1, count), (leaf1.Ebx >> 24, leaf1.Ebx >> 16 & 0xFF));
        Assert.Equal(count > 1, (leaf1.Edx & CpuFeatures.Htt) != 0);
        Assert.Equal(count - 1, Cpuid.Query(0x8000_0008, 0, last).Ecx & 0xFF);
    }

    [Theory]
    [InlineData(4u)]
    [InlineData(0x8000_001Du)]
    public void Cache_leaves_end_and_multiply_out(uint leaf)
    {
        var sizes = new List<uint>();
        for (uint index = 0; (Query(leaf, index).Eax & 31) != 0; index++)
        {
            var r = Query(leaf, index);
            sizes.Add(((r.Ebx >> 22) + 1) * ((r.Ebx >> 12 & 0x3FF) + 1) * ((r.Ebx & 0xFFF) + 1) * (r.Ecx + 1));
        }
        Assert.Equal([64u << 10, 64u << 10, 512u << 10], sizes);
    }

    [Theory]
    [InlineData(0xEu)]
    [InlineData(0x1234_5678u)]
    [InlineData(0x4000_0001u)]
    [InlineData(0x8000_001Fu)]
    public void Unknown_leaves_are_zero(uint leaf) => Assert.Equal(default, Query(leaf));
}
