using System.Text;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>A few instructions, the state they start from, and what each CPU made of them.</summary>
internal sealed class TestCase(ulong seed, int slot)
{
    /// <summary>Gives the same case again, together with <see cref="Slot"/> (which decides where the code lies).</summary>
    public ulong Seed { get; } = seed;
    public int Slot { get; } = slot;

    public List<Instruction> Instructions { get; } = [];

    /// <summary>The flags (x87 condition codes included) that the manuals leave undefined after n instructions; n = 0 to Count.</summary>
    public List<RflagsBits> UndefinedAfter { get; } = [RflagsBits.None];

    /// <summary>The encoded instructions and an INT3.</summary>
    public byte[] Code { get; set; } = [];
    public CpuImage Input { get; } = new();
    public CpuImage Native { get; } = new();
    public CpuImage Soft { get; } = new();

    public ulong CodeAddress => Layout.CodeBase + (ulong)(Slot * Layout.CodeSlot);

    /// <summary>The undefined flags where the case ended at <paramref name="rip"/>.</summary>
    public RflagsBits UndefinedAt(ulong rip)
    {
        for (var i = 0; i < Instructions.Count; i++)
            if (Instructions[i].IP == rip) return UndefinedAfter[i] | Instructions[i].RflagsUndefined;
        return UndefinedAfter[^1];
    }

    /// <summary>The same start, but only the first <paramref name="count"/> instructions.</summary>
    public TestCase Prefix(int count)
    {
        var prefix = new TestCase(Seed, Slot);
        prefix.Instructions.AddRange(Instructions.Take(count));
        prefix.UndefinedAfter.AddRange(UndefinedAfter.Skip(1).Take(count));
        prefix.Input.CopyFrom(Input);
        prefix.Code = count == Instructions.Count ? Code : [.. Code.AsSpan(0, (int)(Instructions[count].IP - CodeAddress)), 0xCC];
        return prefix;
    }

    /// <summary>Only instruction <paramref name="index"/>, at its own address, started from <paramref name="state"/>.</summary>
    public TestCase Single(int index, CpuImage state)
    {
        var single = new TestCase(Seed, Slot);
        var instruction = Instructions[index];
        single.Instructions.Add(instruction);
        single.UndefinedAfter.Add(UndefinedAfter[index + 1]);
        single.Input.CopyFrom(state);
        single.Input.Rip = instruction.IP;
        var start = (int)(instruction.IP - CodeAddress);
        var end = start + instruction.Length;
        single.Code = [.. Code.AsSpan(0, end), .. Enumerable.Repeat((byte)0xCC, Layout.CodeSlot - end)];
        return single;
    }

    public override string ToString() => $"case seed 0x{Seed:x16} slot {Slot}:\n{Disassemble()}";

    public string Disassemble()
    {
        var text = new StringBuilder();
        var formatter = new IntelFormatter();
        var output = new StringOutput();
        foreach (var instruction in Instructions)
        {
            formatter.Format(instruction, output);
            var bytes = Code.AsSpan((int)(instruction.IP - CodeAddress), instruction.Length);
            text.Append($"  {instruction.IP:x8}  {Convert.ToHexString(bytes),-30}  {output.ToStringAndReset()}\n");
        }
        return text.ToString();
    }
}
