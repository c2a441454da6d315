using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>Compares what two CPUs left behind, leaving out what the manuals leave undefined.</summary>
internal static class Comparison
{
    private static readonly string[] GprNames =
        ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

    private static readonly (RflagsBits Bit, uint Mask)[] FlagBits =
    [
        (RflagsBits.CF, 1), (RflagsBits.PF, 4), (RflagsBits.AF, 0x10), (RflagsBits.ZF, 0x40), (RflagsBits.SF, 0x80), (RflagsBits.DF, 0x400),
        (RflagsBits.OF, 0x800),
    ];

    private static readonly (RflagsBits Bit, ushort Mask)[] ConditionBits =
        [(RflagsBits.C0, 0x100), (RflagsBits.C1, 0x200), (RflagsBits.C2, 0x400), (RflagsBits.C3, 0x4000)];

    /// <summary>One line for each difference between what the two CPUs made of a case.</summary>
    public static IEnumerable<string> Differences(TestCase test) =>
        Differences(test.Native, test.Soft, test.UndefinedAt(test.Native.Rip), x87: !SwitchesBeforeItFaults(test));

    // A conversion from or into an MMX register that raises #XM has switched the x87 stack to MMX on some processors, and not on others.
    private static bool SwitchesBeforeItFaults(TestCase test) =>
        test.Native.Vector == 19 && test.Instructions.Exists(i => i.IP == test.Native.Rip &&
            i.Mnemonic is Mnemonic.Cvtpi2ps or Mnemonic.Cvtps2pi or Mnemonic.Cvtpd2pi or Mnemonic.Cvttps2pi or Mnemonic.Cvttpd2pi);

    /// <summary>One line for each difference between two states; flags in <paramref name="undefined"/> do not count.</summary>
    public static IEnumerable<string> Differences(CpuImage native, CpuImage soft, RflagsBits undefined, bool x87 = true)
    {
        if (native.Vector != soft.Vector) yield return $"exception: native {native.Vector}, soft {soft.Vector}";
        if (native.Vector == soft.Vector && native.Vector is 10 or 11 or 12 or 13 or 14 && native.ErrorCode != soft.ErrorCode)
            yield return $"error code: native 0x{native.ErrorCode:x}, soft 0x{soft.ErrorCode:x}";
        if (native.Vector == 14 && soft.Vector == 14 && native.FaultAddress != soft.FaultAddress)
            yield return $"cr2: native 0x{native.FaultAddress:x}, soft 0x{soft.FaultAddress:x}";
        if (native.Rip != soft.Rip) yield return $"rip: native 0x{native.Rip:x}, soft 0x{soft.Rip:x}";
        for (var i = 0; i < 16; i++)
            if (native.Gpr[i] != soft.Gpr[i]) yield return $"{GprNames[i]}: native 0x{native.Gpr[i]:x16}, soft 0x{soft.Gpr[i]:x16}";

        var flags = FlagBits.Where(flag => (undefined & flag.Bit) == 0).Aggregate(0u, (mask, flag) => mask | flag.Mask);
        if (((native.Rflags ^ soft.Rflags) & flags) != 0)
            yield return $"flags: native 0x{native.Rflags & flags:x}, soft 0x{soft.Rflags & flags:x} (defined 0x{flags:x})";

        if (x87)
        {
            foreach (var line in FpuDifferences(native, soft, undefined)) yield return line;
        }
        if (native.Mxcsr != soft.Mxcsr) yield return $"mxcsr: native 0x{native.Mxcsr:x}, soft 0x{soft.Mxcsr:x}";
        for (var i = 0; i < 16; i++)
            if (!native.Xmm(i).SequenceEqual(soft.Xmm(i))) yield return $"xmm{i}: native {Hex(native.Xmm(i))}, soft {Hex(soft.Xmm(i))}";

        var same = native.Memory.AsSpan().CommonPrefixLength(soft.Memory);
        if (same < native.Memory.Length)
        {
            var from = same & ~15;
            yield return $"memory at 0x{Layout.Scratch + (ulong)same:x}: from 0x{from:x} native {Hex(native.Memory.AsSpan(from, 16))}, " +
                $"soft {Hex(soft.Memory.AsSpan(from, 16))}";
        }
    }

    private static IEnumerable<string> FpuDifferences(CpuImage native, CpuImage soft, RflagsBits undefined)
    {
        var conditions = ConditionBits.Where(bit => (undefined & bit.Bit) != 0).Aggregate(0xFFFF, (mask, bit) => mask & ~bit.Mask);
        if (native.FpuControl != soft.FpuControl) yield return $"fcw: native 0x{native.FpuControl:x}, soft 0x{soft.FpuControl:x}";
        if (((native.FpuStatus ^ soft.FpuStatus) & conditions) != 0)
            yield return $"fsw: native 0x{native.FpuStatus & conditions:x}, soft 0x{soft.FpuStatus & conditions:x} " +
                $"(defined 0x{conditions:x})";
        if (native.FpuTag != soft.FpuTag) yield return $"ftw: native 0x{native.FpuTag:x}, soft 0x{soft.FpuTag:x}";
        for (var i = 0; i < 8; i++)
            if (!native.St(i).SequenceEqual(soft.St(i))) yield return $"st{i}: native {Hex(native.St(i))}, soft {Hex(soft.St(i))}";
    }

    /// <summary>All of a state, for a failure's report.</summary>
    public static string Describe(CpuImage image)
    {
        var gpr = string.Join(' ', GprNames.Select((name, i) => $"{name}={image.Gpr[i]:x}{(i % 6 == 5 ? "\n   " : "")}"));
        var xmm = string.Join(' ', Enumerable.Range(0, 16).Select(i => $"xmm{i}={Hex(image.Xmm(i))}{(i % 3 == 2 ? "\n   " : "")}"));
        var st = string.Join(' ', Enumerable.Range(0, 8).Select(i => $"st{i}={Hex(image.St(i))}{(i % 4 == 3 ? "\n   " : "")}"));
        return $"    {gpr} rflags={image.Rflags:x}\n    {xmm} mxcsr={image.Mxcsr:x}\n" +
            $"    {st} fcw={image.FpuControl:x} fsw={image.FpuStatus:x} ftw={image.FpuTag:x}\n";
    }

    /// <summary>Most significant byte first.</summary>
    private static string Hex(ReadOnlySpan<byte> bytes)
    {
        Span<byte> reversed = stackalloc byte[bytes.Length];
        bytes.CopyTo(reversed);
        reversed.Reverse();
        return Convert.ToHexString(reversed);
    }
}
