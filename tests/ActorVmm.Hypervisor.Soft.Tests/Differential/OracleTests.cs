using ActorVmm.Hypervisor.Soft.Tests.Native;
using Iced.Intel;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>The generator and the host's CPU, before any comparison: cases are repeatable, varied, and end where they should.</summary>
public sealed class OracleTests(ITestOutputHelper output)
{
    private static readonly HashSet<CpuidFeature> Everything =
        [CpuidFeature.SSE3, CpuidFeature.SSSE3, CpuidFeature.SSE4_1, CpuidFeature.SSE4_2, CpuidFeature.POPCNT, CpuidFeature.CMPXCHG16B];

    [Fact]
    public void The_same_seed_gives_the_same_case_and_the_same_answer()
    {
        var generator = new CaseGenerator(new InstructionSet(Everything));
        var ends = new Dictionary<int, int>();
        var mnemonics = new HashSet<Mnemonic>();
        for (var batch = 0; batch < 8; batch++)
        {
            var first = Batch(generator, batch);
            var second = Batch(generator, batch);
            NativeRunner.Instance.Run(first);
            NativeRunner.Instance.Run(second);
            foreach (var (one, two) in first.Zip(second))
            {
                Assert.Equal(one.Code, two.Code);
                var differences = Comparison.Differences(one.Native, two.Native, RflagsBits.None).ToList();
                Assert.True(differences.Count == 0, $"{one}{string.Join('\n', differences)}");
                ends[one.Native.Vector] = ends.GetValueOrDefault(one.Native.Vector) + 1;
                mnemonics.UnionWith(one.Instructions.Select(instruction => instruction.Mnemonic));
            }
        }
        output.WriteLine($"ends by exception: {string.Join(", ", ends.OrderBy(end => end.Key).Select(end => $"{end.Key}: {end.Value}"))}");
        output.WriteLine($"{mnemonics.Count} mnemonics");
        Assert.True(ends[3] > 0.8 * 8 * Layout.BatchSize, "most cases run to their end");
        Assert.True(ends.ContainsKey(0) && ends.ContainsKey(13) && ends.ContainsKey(14), "some cases fault");
        Assert.True(mnemonics.Count >= 200);
    }

    private static TestCase[] Batch(CaseGenerator generator, int batch) =>
        [.. Enumerable.Range(0, Layout.BatchSize).Select(slot => generator.Generate(Rng.Derive(1, batch * Layout.BatchSize + slot), slot))];
}
