using System.Text;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.VectorUnit;

public sealed unsafe class StringCompareTests : IDisposable
{
    private readonly InstructionBench _bench = new();

    public void Dispose() => _bench.Dispose();

    [Theory]
    [InlineData("aeiou", "hello world", 0x00, 1, true)]     // any of a set: first vowel
    [InlineData("aeiou", "hello world", 0x40, 7, true)]     // the last one
    [InlineData("az", "HELLO world", 0x04, 6, true)]        // in a range
    [InlineData("az", "HELLO", 0x04, 16, false)]
    [InlineData("hello", "hallo", 0x18, 1, true)]           // first difference
    [InlineData("wor", "hello world", 0x0C, 6, true)]       // substring
    [InlineData("", "abc", 0x0C, 0, true)]                  // the empty string occurs at once
    [InlineData("xyz", "hello", 0x0C, 16, false)]
    public void Pcmpistri_finds_what_string_functions_look_for(string a, string b, byte control, int index, bool found)
    {
        Load(0, a);
        Load(1, b);
        Assert.Null(_bench.Run(code => code.pcmpistri(xmm0, xmm1, control)));
        Assert.Equal((ulong)index, _bench.State->Regs[1]);
        Assert.Equal(found, Cpu.Flags.Carry(_bench.State));
        Assert.Equal(b.Length < 16, Cpu.Flags.Zero(_bench.State));
        Assert.Equal(a.Length < 16, Cpu.Flags.Sign(_bench.State));
    }

    [Fact]
    public void Pcmpestrm_takes_lengths_from_registers_by_magnitude()
    {
        Load(1, "abcabcabcabcabca");
        Load(2, "abcabcabcabcabca");
        _bench.State->Regs[0] = unchecked((uint)-3);
        _bench.State->Regs[2] = 100;
        Assert.Null(_bench.Run(code => code.pcmpestrm(xmm1, xmm2, 0x0C)));
        // "abc" at 0, 3, 6, 9, 12, and its beginning in the last byte.
        Assert.Equal([0x9249UL, 0UL], _bench.Xmm(0).ToArray());
    }

    private void Load(int register, string text)
    {
        var bytes = new byte[16];
        Encoding.ASCII.GetBytes(text, bytes);
        _bench.Xmm(register)[0] = BitConverter.ToUInt64(bytes, 0);
        _bench.Xmm(register)[1] = BitConverter.ToUInt64(bytes, 8);
    }
}
