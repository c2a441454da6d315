using System.Globalization;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>
/// The software CPU against the host's, on random instruction sequences from random states. 50,000 cases; 1,000,000 with
/// <c>ACTORVMM_DIFF_CASES=1000000</c> (nightly).
/// </summary>
public sealed class DifferentialTests(ITestOutputHelper output)
{
    private const int CasesInCi = 50_000;
    private const int MinimumMnemonics = 200;
    private const ulong DefaultSeed = 0x5EED_2026;

    [Theory]
    [InlineData(InstructionGroup.Integer, 30, 0)]
    [InlineData(InstructionGroup.X87AndMmx, 15, 0)]
    [InlineData(InstructionGroup.Sse, 15, 0)]
    [InlineData(InstructionGroup.All, 40, 0)]
    [InlineData(InstructionGroup.Integer, 40, 1)]
    [InlineData(InstructionGroup.Sse, 15, 1)]
    [InlineData(InstructionGroup.All, 30, 1)]
    public void Random_sequences_leave_the_same_state_as_on_the_host_cpu(InstructionGroup group, int percent, int compileThreshold)
    {
        using var guest = new GuestRunner(new SoftHypervisor(new SoftOptions(compileThreshold)), warm: compileThreshold > 0);
        var offered = GuestFeatures.Read(guest);
        var set = new InstructionSet(offered, group);
        var seed = Settings.Number(Settings.SeedVariable) ?? DefaultSeed;
        var run = new DifferentialRun(guest, set, seed);
        output.WriteLine($"seed 0x{seed:x}; beyond the baseline the guest offers {string.Join(' ', offered)}; {set.Codes.Count} forms");

        if (Environment.GetEnvironmentVariable(Settings.CaseVariable) is { Length: > 0 } one)
        {
            var parts = one.Split(':');
            run.Replay(Settings.Parse(parts[0]), int.Parse(parts[1], CultureInfo.InvariantCulture));
        }
        else
        {
            run.Run((long)(Settings.Number(Settings.CasesVariable) ?? CasesInCi) * percent / 100);
            output.WriteLine($"{run.Cases} cases, {run.Mnemonics.Count} mnemonics, {run.Forms.Count} forms");
            output.WriteLine(guest.Counters);
            output.WriteLine($"ends by exception: {string.Join(", ", run.Ends.Select(end => $"{end.Key}: {end.Value}"))}");
        }
        Assert.True(run.Failures == 0, run.Summary());
        if (group == InstructionGroup.All && run.Cases >= 5_000)
            Assert.True(run.Mnemonics.Count >= MinimumMnemonics, $"only {run.Mnemonics.Count} mnemonics");
    }
}
