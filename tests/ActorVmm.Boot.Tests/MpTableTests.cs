using System.Buffers.Binary;
using ActorVmm.Memory;
using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>The mptable and mpspec tests of vm-vcpu-ref, each under its own name.</summary>
public sealed class MpTableTests : BootFixture
{
    private const byte MaxIrq = 23;

    [Fact]
    public void test_bounds_check()
    {
        // The last byte of the table is the last byte of RAM; one page less and it does not fit.
        using var memory = GuestMemory.Create(0x2000);
        var table = new MpTable(1, MaxIrq);
        var last = new GuestAddress(0x2000 - (ulong)table.TableSize);
        table.Write(memory, new GuestAddress(0), last);
        Refused("address", () => table.Write(memory, new GuestAddress(0), last + 1));
        Refused("address", () => table.Write(memory, new GuestAddress(0x2000 - 15), new GuestAddress(0)));
        Refused("address", () => table.Write(memory));
    }

    [Fact]
    public void test_mpf_intel_checksum()
    {
        var memory = Ram(2);
        new MpTable(1, MaxIrq).Write(memory);
        var pointer = Bytes(memory, MemoryLayout.Ebda, MpTable.PointerSize);
        Assert.Equal("_MP_"u8.ToArray(), pointer[..4]);
        Assert.Equal(0, Checksum.Sum(pointer));
        Assert.NotEqual(0, pointer[10]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(254)]
    public void test_mpc_table_checksum(int cpus)
    {
        var memory = Ram(2);
        new MpTable(cpus, MaxIrq).Write(memory);
        var at = Value<uint>(memory, MemoryLayout.Ebda + 4);
        var size = Value<ushort>(memory, at + 4);
        var table = Bytes(memory, at, size);
        Assert.Equal("PCMP"u8.ToArray(), table[..4]);
        Assert.Equal(0, Checksum.Sum(table));
        // Both places are reserved in e820 and hold nothing else.
        Assert.True(at + size <= MemoryLayout.EbdaEnd || at == MemoryLayout.BigMpTable);
        Assert.True(at >= MemoryLayout.Ebda + 16);
    }

    [Fact]
    public void test_cpu_entry_count()
    {
        for (var cpus = 0; cpus < MpTable.MaxCpus; cpus++)
        {
            var processors = Entries(new MpTable(cpus, MaxIrq)).Where(e => e[0] == 0).ToList();
            Assert.Equal(cpus, processors.Count);
            Assert.Equal(Enumerable.Range(0, cpus), processors.Select(e => (int)e[1]));
            Assert.Equal(cpus > 0 ? 1 : 0, processors.Count(e => (e[3] & 2) != 0)); // one boot processor
        }
    }

    [Fact]
    public void test_cpu_entry_count_max()
    {
        Assert.Equal(254, Entries(new MpTable(254)).Count(e => e[0] == 0));
        Refused("cpus", () => _ = new MpTable(255));
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 2)]
    [InlineData(4, 4)]
    [InlineData(23, 23)]
    [InlineData(254, 254)]
    public void test_irq_num(byte maxIrq, int entries)
    {
        // One entry per line; line 2 is the cascade and has none (the timer arrives at its pin).
        var table = new MpTable(2, maxIrq);
        var sources = Entries(table).Where(e => e[0] == 3).ToList();
        Assert.Equal(entries, sources.Count);
        Assert.Equal(entries, table.InterruptEntries);
        Assert.Equal(sources.Count, sources.Select(e => e[7]).Distinct().Count()); // no pin twice
        Assert.All(sources, e => Assert.Equal(e[5] == 0 ? 2 : e[5], e[7]));
        Assert.All(sources, e => Assert.Equal(3, e[6])); // to the I/O APIC, whose id is cpus + 1
    }

    [Fact]
    public void test_max_irq_overflow() => Refused("max irq", () => _ = new MpTable(1, 255));

    [Fact]
    public void mpspec_layout_sizes()
    {
        Assert.Equal((16, 44, 20, 8), (MpTable.PointerSize, MpTable.HeaderSize, MpTable.ProcessorSize, MpTable.EntrySize));
        Assert.Equal(16, MpTable.BuildPointer(0x9FC10).Length);
        // §4.2 and §4.3: header, processor, bus, I/O APIC, 23 sources, 2 local sources.
        Assert.Equal(44 + 20 + 8 + 8 + 23 * 8 + 2 * 8, new MpTable(1).TableSize);
        Assert.Equal(new MpTable(1).TableSize, new MpTable(1).BuildTable().Length);
    }

    [Fact]
    public void The_local_interrupts_are_ExtINT_at_LINT0_of_the_first_and_NMI_at_LINT1_of_all()
    {
        var local = Entries(new MpTable(3)).Where(e => e[0] == 4).ToList();
        Assert.Equal([4, 3, 0, 0, 0, 0, 0, 0], local[0]);
        Assert.Equal([4, 1, 0, 0, 0, 0, 0xFF, 1], local[1]);
        Assert.Equal(2, local.Count);
    }

    /// <summary>Reads the table as a kernel does, and fails where header and entries disagree.</summary>
    private static List<byte[]> Entries(MpTable mp)
    {
        var table = mp.BuildTable();
        Assert.Equal(table.Length, BinaryPrimitives.ReadUInt16LittleEndian(table.AsSpan(4)));
        Assert.Equal(0xFEE0_0000u, BinaryPrimitives.ReadUInt32LittleEndian(table.AsSpan(36)));
        var entries = new List<byte[]>();
        for (var at = 44; at < table.Length;)
        {
            Assert.InRange(table[at], 0, 4);
            var size = table[at] == 0 ? 20 : 8;
            entries.Add(table[at..(at + size)]);
            at += size;
        }
        Assert.Equal(entries.Count, BinaryPrimitives.ReadUInt16LittleEndian(table.AsSpan(34)));
        return entries;
    }
}
