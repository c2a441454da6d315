using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using ActorVmm.Boot.Acpi;
using Xunit;

namespace ActorVmm.Boot.Tests.Acpi;

public sealed class AcpiTablesTests : BootFixture
{
    private const ulong At = MemoryLayout.Acpi;

    private static readonly VirtioMmioSlot[] Slots =
        [new(new(0xD000_0000), 0x1000, 5), new(new(0xD000_1000), 0x1000, 17)];

    [Fact]
    public void Every_table_is_found_from_the_RSDP_and_its_bytes_sum_to_zero()
    {
        var block = Build(2);
        Assert.Equal("RSD PTR "u8.ToArray(), block[..8]);
        Assert.Equal(2, block[15]);
        Assert.Equal(0, Checksum.Sum(block.AsSpan(0, 20)));
        Assert.Equal(0, Checksum.Sum(block.AsSpan(0, 36)));
        var tables = Tables(block);
        Assert.Equal("APIC DSDT FACP XSDT", string.Join(' ', tables.Keys.Order(StringComparer.Ordinal)));
        Assert.All(tables.Values, table => Assert.Equal(0, Checksum.Sum(table)));
        Assert.All(tables.Values, table => Assert.Equal("ACTVMM"u8.ToArray(), table[10..16]));
    }

    [Fact]
    public void The_FADT_offers_power_off_reset_and_the_PM_timer()
    {
        var block = Build(1);
        var fadt = Tables(block)["FACP"];
        Assert.Equal(276, fadt.Length);
        Assert.Equal(6, fadt[8]);
        Assert.Equal(9, U16(fadt, 46));
        Assert.Equal((0x600u, 0x604u, 0x608u), (U32(fadt, 56), U32(fadt, 64), U32(fadt, 76)));
        Assert.Equal((4, 2, 4), ((int)fadt[88], (int)fadt[89], (int)fadt[91]));
        Assert.Equal(0b111, U16(fadt, 109));                        // legacy devices, 8042, no VGA
        Assert.NotEqual(0u, U32(fadt, 112) & (1 << 10));            // reset register
        Assert.Equal(0u, U32(fadt, 112) & (1 << 20));               // not hardware reduced
        Assert.Equal(0u, U32(fadt, 112) & (1 << 4));                // the power button is in the PM1 event block
        Assert.Equal((1, 8, 0x64ul), ((int)fadt[116], (int)fadt[117], U64(fadt, 120)));
        Assert.Equal(0xFE, fadt[128]);
        Assert.Equal((1, 0x600ul), ((int)fadt[148], U64(fadt, 152)));
        Assert.Equal((1, 0x604ul), ((int)fadt[172], U64(fadt, 176)));
        Assert.Equal((1, 0x608ul), ((int)fadt[208], U64(fadt, 212)));

        var facs = (int)(U32(fadt, 36) - At);
        Assert.Equal("FACS"u8.ToArray(), block[facs..(facs + 4)]);
        Assert.Equal(0ul, (At + (ulong)facs) % 64);                 // §5.2.10
        Assert.Equal(64u, U32(block, facs + 4));
    }

    [Fact]
    public void Without_keyboard_and_clock_the_FADT_says_so()
    {
        var block = AcpiTables.Build(At, new AcpiMachine { CpuCount = 1, Keyboard = false, Rtc = false, Pvpanic = null });
        Assert.Equal(0b10_0101, U16(Tables(block)["FACP"], 109));
        Assert.Equal("COM1", Dsdt(block)["\\_SB"].Children.Single().Name);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(254)]
    [InlineData(300)]
    public void The_MADT_has_a_local_APIC_for_each_CPU(int cpus)
    {
        var madt = Tables(AcpiTables.Build(At, new AcpiMachine { CpuCount = cpus }))["APIC"];
        Assert.Equal((0xFEE0_0000u, 1u), (U32(madt, 36), U32(madt, 40)));
        var entries = MadtEntries(madt);
        var ids = entries.Where(e => e[0] == 0).Select(e => (Id: (uint)e[3], Flags: U32(e, 4)))
            .Concat(entries.Where(e => e[0] == 9).Select(e => (Id: U32(e, 4), Flags: U32(e, 8)))).ToList();
        Assert.Equal(Enumerable.Range(0, cpus).Select(i => ((uint)i, 1u)), ids);
        Assert.Equal(Math.Max(0, cpus - 255), entries.Count(e => e[0] == 9)); // id 255 is xAPIC's broadcast
    }

    [Fact]
    public void The_MADT_routes_as_the_MP_table_does()
    {
        var entries = MadtEntries(Tables(Build(1))["APIC"]);
        Assert.Equal([1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0], entries.Single(e => e[0] == 1));
        var overrides = entries.Where(e => e[0] == 2).Select(e => (Irq: e[3], Gsi: U32(e, 4), Flags: U16(e, 8))).ToList();
        Assert.Equal([((byte)0, 2u, (ushort)0), ((byte)9, 9u, (ushort)0xD)], overrides);
        Assert.Equal([4, 6, 0xFF, 0, 0, 1], entries.Single(e => e[0] == 4));
        // ISA IRQs without an override go to the pin of their number; the MP table must agree on each.
        foreach (var source in Enumerable.Range(0, 16).Where(irq => irq != 2))
        {
            var gsi = overrides.Where(o => o.Irq == source).Select(o => o.Gsi).FirstOrDefault((uint)source);
            Assert.Equal(InterruptRouting.PinOf(source), (int)gsi);
        }
    }

    [Fact]
    public void The_DSDT_describes_the_devices_that_no_bus_enumerates()
    {
        var dsdt = Dsdt(Build(1));
        Assert.Equal([5ul, 5, 0, 0], dsdt["\\_S5"].Value.Children.Select(c => c.Integer));
        var sb = dsdt["\\_SB"];
        Assert.Equal("COM1 KBD RTC PEVT V000 V001", string.Join(' ', sb.Children.Select(c => c.Name)));
        Assert.All(sb.Children, device => Assert.Equal(0xFul, device["_STA"].Value.Integer));

        // EISA ids in their compressed form (ACPI 6.5 §19.3.4): PNP0501 is 0x0105D041.
        Assert.Equal([0x0105_D041ul, 0x0303_D041, 0x000B_D041], sb.Children.Take(3).Select(d => d["_HID"].Value.Integer));
        Assert.Equal([0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8, 0x22, 1 << 4, 0, 0x79, 0], sb["COM1"]["_CRS"].Value.Buffer!);
        Assert.Equal("QEMU0001", sb["PEVT"]["_HID"].Value.Text);
        Assert.Equal([0x86, 9, 0, 1, 0, 0, 0xD4, 0xFE, 0, 0x10, 0, 0, 0x79, 0], sb["PEVT"]["_CRS"].Value.Buffer!);

        var second = sb["V001"];
        Assert.Equal("LNRO0005", second["_HID"].Value.Text);
        Assert.Equal((1ul, 1ul), (second["_UID"].Value.Integer, second["_CCA"].Value.Integer));
        Assert.Equal([0x86, 9, 0, 1, 0, 0x10, 0, 0xD0, 0, 0x10, 0, 0, 0x89, 6, 0, 1, 1, 17, 0, 0, 0, 0x79, 0],
            second["_CRS"].Value.Buffer!);
    }

    [Theory]
    [InlineData(0xFEC0_0000, 0x1000u, 5, "virtio-mmio 0")]
    [InlineData(0xFEE0_0F00, 0x200u, 5, "virtio-mmio 0")]
    [InlineData(0xFED4_0800, 0x10u, 5, "virtio-mmio 0")]
    [InlineData(0x1_0000_0000, 0x1000u, 5, "virtio-mmio 0")]
    [InlineData(0xFFFF_F800, 0x1000u, 5, "virtio-mmio 0")]
    [InlineData(0xD000_0002, 0x1000u, 5, "virtio-mmio 0")]
    [InlineData(0xD000_0000, 0u, 5, "virtio-mmio 0")]
    [InlineData(0xD000_0000, 0x1000u, 24, "virtio-mmio 0 GSI")]
    [InlineData(0xD000_0000, 0x1000u, -1, "virtio-mmio 0 GSI")]
    public void A_device_where_another_is_or_where_none_can_be_is_refused(ulong address, uint size, int gsi, string field) =>
        Refused(field, () => AcpiTables.Build(At, new AcpiMachine { CpuCount = 1, VirtioMmio = [new(new(address), size, gsi)] }));

    [Fact]
    public void Tables_that_outgrow_their_room_are_refused()
    {
        var many = Enumerable.Range(0, 1000).Select(i => new VirtioMmioSlot(new(0xD000_0000 + 0x1000 * (ulong)i), 0x1000, 5)).ToArray();
        Refused("size", () => AcpiTables.Build(At, new AcpiMachine { CpuCount = 1, VirtioMmio = many }));
        var dsdt = Dsdt(AcpiTables.Build(At, new AcpiMachine { CpuCount = 1, VirtioMmio = many[..500] }));
        Assert.Equal(500, dsdt["\\_SB"].Children.Count(d => d.Name.StartsWith('V')));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(50)]
    [InlineData(70)]
    [InlineData(4070)]
    [InlineData(4096)]
    [InlineData(1 << 20)]
    public void Package_lengths_hold_around_each_of_their_sizes(int around)
    {
        for (var length = around; length < around + 30; length++)
        {
            var text = new string('x', length);
            var device = AmlReader.Read(new AmlWriter().Device("DEV", d => d.Name("TEXT", text)).Name("END", 1).ToArray());
            Assert.Equal("DEV END", string.Join(' ', device.Select(o => o.Name)));
            Assert.Equal(text, device[0]["TEXT"].Value.Text);
        }
    }

    [Fact]
    public void Integers_take_their_shortest_form() =>
        Assert.Equal(
            [0, 1, 0x0A, 2, 0x0A, 0xFF, 0x0B, 0, 1, 0x0C, 0, 0, 1, 0, 0x0E, 0, 0, 0, 0, 1, 0, 0, 0],
            new AmlWriter().Integer(0).Integer(1).Integer(2).Integer(0xFF).Integer(0x100).Integer(0x1_0000).Integer(0x1_0000_0000)
                .ToArray());

    [ToolFact("iasl")]
    public void Iasl_disassembles_every_table_and_compiles_the_DSDT_again()
    {
        foreach (var (name, table) in Tables(Build(4)))
        {
            var path = Path.Combine(Directory_, $"{name}.dat");
            File.WriteAllBytes(path, table);
            var said = Iasl("-d", path);
            Assert.DoesNotContain("Invalid", said, StringComparison.OrdinalIgnoreCase);
            Assert.DoesNotContain("Error", said, StringComparison.Ordinal);
        }
        Assert.Contains("0 Errors, 0 Warnings", Iasl("-ta", Path.Combine(Directory_, "DSDT.dsl")), StringComparison.Ordinal);
    }

    private static string Iasl(string option, string path)
    {
        using var process = Process.Start(new ProcessStartInfo("iasl", [option, path])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        })!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return output + errors.GetAwaiter().GetResult();
    }

    private static byte[] Build(int cpus) => AcpiTables.Build(At, new AcpiMachine { CpuCount = cpus, VirtioMmio = Slots });

    private static AmlObject Dsdt(byte[] block) => new("Root", "", AmlReader.Read(Tables(block)["DSDT"].AsSpan(36)));

    /// <summary>Follows RSDP, XSDT and FADT as a guest does.</summary>
    private static Dictionary<string, byte[]> Tables(byte[] block)
    {
        var tables = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        var xsdt = Add(U64(block, 24));
        for (var i = 36; i < xsdt.Length; i += 8) Add(U64(xsdt, i));
        var fadt = tables["FACP"];
        Assert.Equal(U64(fadt, 140), U32(fadt, 40));
        Add(U64(fadt, 140));
        return tables;

        byte[] Add(ulong address)
        {
            var at = (int)(address - At);
            var table = block[at..(at + (int)U32(block, at + 4))];
            tables.Add(Encoding.ASCII.GetString(table, 0, 4), table);
            return table;
        }
    }

    private static List<byte[]> MadtEntries(byte[] madt)
    {
        var entries = new List<byte[]>();
        for (var at = 44; at < madt.Length; at += madt[at + 1]) entries.Add(madt[at..(at + madt[at + 1])]);
        return entries;
    }

    private static ushort U16(byte[] bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(at));
    private static uint U32(byte[] bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at));
    private static ulong U64(byte[] bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(at));
}
