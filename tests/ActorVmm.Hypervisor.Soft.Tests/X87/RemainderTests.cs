using System.Buffers.Binary;
using ActorVmm.Hypervisor.Soft.Tests.Differential;
using ActorVmm.Hypervisor.Soft.Tests.Native;
using ActorVmm.Hypervisor.Soft.Tests.VectorUnit;
using Xunit;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Soft.Tests.X87Unit;

/// <summary>
/// FPREM and FPREM1 against the host's CPU where one step suffices (how far a partial step goes is the processor's choice).
/// </summary>
public sealed unsafe class RemainderTests
{
    private const ulong Seed = 0x0F_9E3B;
    private static readonly byte[][] Instructions = [[0xD9, 0xF8], [0xD9, 0xF5]];

    [Fact]
    public void Remainders_and_quotient_bits_equal_the_hosts()
    {
        var rng = new Rng(Seed);
        var cases = Enumerable.Range(0, Layout.BatchSize).Select(slot => Make(rng, slot)).ToArray();
        NativeRunner.Instance.Run(cases);
        using var bench = new InstructionBench();
        foreach (var test in cases)
        {
            var s = bench.State;
            Cpu.Fxsave.Load(s, test.Input.Fx);
            Assert.Null(bench.Run(bench.Translate(test.Code[..2])));
            var native = test.Native;
            var image = new byte[512];
            Cpu.Fxsave.Save(s, image);
            Assert.Equal(
                $"{test.Code[1]:x} {Convert.ToHexString(native.St(0))} {native.FpuStatus:x}",
                $"{test.Code[1]:x} {Convert.ToHexString(image.AsSpan(32, 10))} {BitConverter.ToUInt16(image, 2):x}");
        }
    }

    private static TestCase Make(Rng rng, int slot)
    {
        var test = new TestCase(Seed, slot) { Code = [.. Instructions[slot & 1], 0xCC] };
        test.Input.Rip = test.CodeAddress;
        test.Input.Rflags = 0x202;
        test.Input.Gpr[4] = Layout.Scratch + 0x1000;
        test.Input.FpuControl = 0x37F;
        test.Input.FpuTag = 0xFF;
        test.Input.Mxcsr = 0x1F80;
        var exponent = 0x3FFF + rng.Below(2000) - 1000;
        Write(test.Input.St(0), Significand(rng), (exponent + rng.Below(70) - 6) | (rng.OneIn(2) ? 0x8000 : 0));
        Write(test.Input.St(1), Significand(rng), exponent | (rng.OneIn(2) ? 0x8000 : 0));
        return test;
    }

    private static ulong Significand(Rng rng) => (rng.OneIn(2) ? rng.Next() : rng.Next() & ~0UL << rng.Below(64)) | 1UL << 63;

    private static void Write(Span<byte> into, ulong significand, int signExponent)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(into, significand);
        BinaryPrimitives.WriteUInt16LittleEndian(into[8..], (ushort)signExponent);
    }

    [Fact]
    public void A_large_quotient_takes_partial_steps_to_the_same_remainder()
    {
        using var bench = new InstructionBench();
        var s = bench.State;
        (s->FpuTop, s->FpuEmpty) = (6, 0x3F);
        (s->St[6], s->StExponent[6]) = (1UL << 63, 0x3FFF + 1000); // 2^1000
        (s->St[7], s->StExponent[7]) = (0xE000_0000_0000_0000, 0x3FFF + 2); // 7
        var steps = 0;
        do
        {
            Assert.Null(bench.Run(a => a.fprem()));
            steps++;
        }
        while ((s->FpuStatus & 0x400) != 0 && steps < 100);
        Assert.InRange(steps, 2, 35);
        // 2^1000 = 2 * 8^333 mod 7 = 2.
        Assert.Equal((1UL << 63, 0x4000), (s->St[6], s->StExponent[6]));
    }

    [Theory]
    [InlineData(0x0000_1234_5678_9012UL, 0, 123_456_789_012L)]
    [InlineData(0x9999_9999_9999_9999UL, 0x8099, -999_999_999_999_999_999L)]
    [InlineData(0UL, 0x0010, 100_000_000_000_000_000L)]
    public void Fbld_reads_eighteen_digits_and_a_sign(ulong low, int high, long value)
    {
        using var bench = new InstructionBench();
        bench.State->Regs[7] = Layout.Scratch;
        BinaryPrimitives.WriteUInt64LittleEndian(bench.Memory, low);
        BinaryPrimitives.WriteUInt16LittleEndian(bench.Memory[8..], (ushort)high);
        Assert.Null(bench.Run(a => { a.fbld(__[rdi]); a.fistp(__qword_ptr[rdi + 16]); }));
        Assert.Equal(value, BinaryPrimitives.ReadInt64LittleEndian(bench.Memory[16..]));
    }
}
