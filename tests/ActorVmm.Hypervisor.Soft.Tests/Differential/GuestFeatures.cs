using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>What the guest's CPUID says about instructions beyond SSE2; only what is offered is tested.</summary>
internal static class GuestFeatures
{
    private static readonly (uint Leaf, int Register, int Bit, CpuidFeature Feature)[] Bits =
    [
        (1, 1, 0, CpuidFeature.SSE3), (1, 1, 1, CpuidFeature.PCLMULQDQ), (1, 1, 9, CpuidFeature.SSSE3), (1, 1, 13, CpuidFeature.CMPXCHG16B),
        (1, 1, 19, CpuidFeature.SSE4_1), (1, 1, 20, CpuidFeature.SSE4_2), (1, 1, 22, CpuidFeature.MOVBE), (1, 1, 23, CpuidFeature.POPCNT),
        (1, 1, 25, CpuidFeature.AES), (7, 3, 3, CpuidFeature.BMI1), (7, 3, 19, CpuidFeature.ADX), (7, 3, 29, CpuidFeature.SHA),
        (0x8000_0001, 1, 5, CpuidFeature.LZCNT), (0x8000_0001, 1, 8, CpuidFeature.PREFETCHW),
    ];

    public static HashSet<CpuidFeature> Read(GuestRunner guest)
    {
        var features = new HashSet<CpuidFeature>();
        foreach (var leaf in Bits.GroupBy(bit => bit.Leaf))
        {
            var registers = Cpuid(guest, leaf.Key);
            foreach (var bit in leaf)
                if ((registers[bit.Register] >> bit.Bit & 1) != 0) features.Add(bit.Feature);
        }
        return features;
    }

    /// <summary>EAX, ECX, EDX, EBX of one leaf (subleaf 0), as the guest's ring 3 sees them.</summary>
    private static ulong[] Cpuid(GuestRunner guest, uint leaf)
    {
        var test = new TestCase(0, 0);
        var assembler = new Assembler(64);
        assembler.cpuid();
        assembler.int3();
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), test.CodeAddress);
        test.Code = stream.ToArray();
        test.Input.Rip = test.CodeAddress;
        test.Input.Gpr[0] = leaf;
        test.Input.Gpr[4] = Layout.Scratch + 0x1000;
        test.Input.FpuControl = 0x37F;
        test.Input.Mxcsr = 0x1F80;
        guest.Run([test]);
        return test.Soft.Gpr;
    }
}
