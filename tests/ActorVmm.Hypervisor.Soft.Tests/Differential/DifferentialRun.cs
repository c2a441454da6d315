using System.Text;
using ActorVmm.Hypervisor.Soft.Tests.Native;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>One comparison of many cases between the host's CPU and a guest.</summary>
/// <param name="guest">Where the cases run besides natively.</param>
/// <param name="instructions">What the cases are made of.</param>
/// <param name="seed">Decides every case of the run.</param>
internal sealed class DifferentialRun(GuestRunner guest, InstructionSet instructions, ulong seed)
{
    private const int MaxReports = 24;

    private readonly CaseGenerator _generator = new(instructions);

    /// <summary>Cases compared so far.</summary>
    public long Cases { get; private set; }

    /// <summary>Cases that differed.</summary>
    public long Failures { get; private set; }

    public HashSet<Mnemonic> Mnemonics { get; } = [];

    public HashSet<Code> Forms { get; } = [];

    /// <summary>How many cases ended in each exception.</summary>
    public SortedDictionary<int, long> Ends { get; } = [];

    /// <summary>The first differences, one per instruction form, each minimised and ready to print.</summary>
    public Dictionary<string, string> Reports { get; } = [];

    /// <summary>How often each form was the one that differed.</summary>
    public Dictionary<string, int> Blame { get; } = [];

    /// <summary>Runs <paramref name="count"/> cases, numbered from 0.</summary>
    public void Run(long count)
    {
        for (var first = 0L; first < count; first += Layout.BatchSize)
        {
            var size = (int)Math.Min(Layout.BatchSize, count - first);
            RunBatch([.. Enumerable.Range(0, size).Select(slot => _generator.Generate(Rng.Derive(seed, first + slot), slot))]);
        }
    }

    /// <summary>Runs one case again, as a failure's report names it.</summary>
    public void Replay(ulong caseSeed, int slot) => RunBatch([_generator.Generate(caseSeed, slot)]);

    private void RunBatch(TestCase[] cases)
    {
        NativeRunner.Instance.Run(cases);
        guest.Run(cases);
        foreach (var test in cases)
        {
            Cases++;
            Ends[test.Native.Vector] = Ends.GetValueOrDefault(test.Native.Vector) + 1;
            foreach (var instruction in test.Instructions)
            {
                Mnemonics.Add(instruction.Mnemonic);
                Forms.Add(instruction.Code);
            }
            if (!Comparison.Differences(test).Any()) continue;
            Failures++;
            Report(test);
        }
    }

    private void Report(TestCase test)
    {
        var culprit = Minimise(test, out var report);
        Blame[culprit] = Blame.GetValueOrDefault(culprit) + 1;
        if (Reports.Count < MaxReports) Reports.TryAdd(culprit, report);
    }

    // The shortest prefix that differs; then its last instruction alone, from the state that the host had just before it.
    private string Minimise(TestCase test, out string report)
    {
        var shortest = test;
        TestCase? before = null;
        for (var count = 1; count < test.Instructions.Count; count++)
        {
            var prefix = test.Prefix(count);
            if (Differs(prefix))
            {
                shortest = prefix;
                break;
            }
            before = prefix;
        }
        if (before is { Native.Vector: 3 } && before.Instructions.Count < shortest.Instructions.Count)
        {
            var index = IndexAt(shortest, before.Native.Rip - 1);
            if (index >= 0 && shortest.Single(index, before.Native) is var single && Differs(single)) shortest = single;
        }
        var last = shortest.Instructions[^1];
        report = Describe(test, shortest);
        return shortest.Instructions.Count == 1 ? last.Code.ToString() : $"sequence up to {last.Code}";
    }

    private static int IndexAt(TestCase test, ulong rip) => test.Instructions.FindIndex(instruction => instruction.IP == rip);

    private bool Differs(TestCase test)
    {
        NativeRunner.Instance.Run([test]);
        guest.Run([test]);
        return Comparison.Differences(test).Any();
    }

    private string Describe(TestCase whole, TestCase shortest)
    {
        var text = new StringBuilder();
        text.Append($"run seed 0x{seed:x}, {whole}");
        text.Append(shortest.Instructions.Count == 1 ? "differs in one instruction:\n" : "differs first after:\n");
        text.Append(shortest.Disassemble());
        foreach (var line in Comparison.Differences(shortest))
            text.Append("    ").Append(line).Append('\n');
        text.Append("  from\n").Append(Comparison.Describe(shortest.Input));
        return text.ToString();
    }

    /// <summary>Every report, and which forms differed how often.</summary>
    public string Summary()
    {
        var text = new StringBuilder();
        text.Append($"{Failures} of {Cases} cases differ (seed 0x{seed:x}; set {Settings.SeedVariable} to repeat the run, and ");
        text.Append($"{Settings.CaseVariable}=CASESEED:SLOT for one case)\n");
        foreach (var (form, count) in Blame.OrderByDescending(pair => pair.Value)) text.Append($"  {count,7}  {form}\n");
        foreach (var report in Reports.Values) text.Append('\n').Append(report);
        return text.ToString();
    }
}
