using System.Buffers.Binary;
using ActorVmm.Boot.Kernel;
using ActorVmm.Memory;
using CsCheck;
using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>
/// Images with lies in them: whatever the bytes, they load or they are refused by a <see cref="BootException"/>, and nothing is written
/// outside of what the plan says. CsCheck prints the seed of a failure.
/// </summary>
public sealed class HostileImagesTests : BootFixture
{
    private static readonly ulong[] Corners =
    [
        0, 1, 0xFF, 0x1000, 0xFFFF, 0x10_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, 1ul << 63,
        ulong.MaxValue - 0xFF, ulong.MaxValue,
    ];

    // Everything lies low, so that all of RAM can be looked at after each image.
    private const ulong RamSize = 4 << 20;
    private const uint Low = 0x20_0000;

    private static readonly byte[][] Images =
    [
        TestImages.Elf(Low),
        TestImages.PvhElf(Low + 0x10, Low),
        TestImages.Elf(Low,
            new Segment(TestImages.PtLoad, Low, TestImages.Code(0x80)),
            new Segment(TestImages.PtLoad, Low + 0x1000, TestImages.Code(0x80), 0x1000),
            new Segment(TestImages.PtLoad, Low + 0x8000, TestImages.Code(0x80))),
        TestImages.BzImage(preferred: Low),
        TestImages.BzImageWithElf(TestImages.PvhElf(Low + 0x10, Low)),
        TestImages.BzImage(TestImages.WithSize(Kernel.PayloadVectors.XzX86(), 4800), preferred: Low),
    ];

    /// <summary>A change of 1, 2, 4 or 8 bytes at a header offset, to a corner value or any.</summary>
    private static readonly Gen<(int At, int Size, ulong Value)> Change = Gen.Select(
        Gen.OneOf(Gen.Int[0, 0x100], Gen.Int[0x1F0, 0x270], Gen.Int[0, 0x1000]),
        Gen.OneOf(1, 2, 4, 8),
        Gen.OneOf(Gen.OneOf(Corners), Gen.ULong, Gen.ULong[0, 0x400]));

    [Fact]
    public void Mutated_headers_load_or_are_refused_and_nothing_else()
    {
        using var memory = GuestMemory.Create(RamSize);
        var path = Path.Combine(Directory_, "mutant");
        var loaded = 0;
        var mutants = Gen.Select(Gen.Int[0, Images.Length - 1], Change.Array[1, 4], Gen.Enum<KernelFormat>(), Gen.Int[0, 3]);
        mutants.Sample((which, changes, format, cut) =>
        {
            var image = (byte[])Images[which].Clone();
            foreach (var (at, size, value) in changes) Apply(image, at, size, value);
            File.WriteAllBytes(path, cut == 0 ? image[..(image.Length / 2)] : image);
            try
            {
                var plan = BootLoader.Load(memory, new BootRequest { KernelPath = path, Format = format, InitrdPath = path });
                loaded++;
                Assert.All(plan.Placements, p => Assert.True(memory.Contains(p.Start, p.Size)));
                var kernel = plan.Placements.Where(p => p.Name.StartsWith("kernel", StringComparison.Ordinal));
                Assert.Contains(kernel, p => plan.Entry >= p.Start && plan.Entry.Value < p.Start.Value + p.Size);
                AssertClearOutside(memory, plan);
            }
            catch (BootException e)
            {
                Assert.NotEmpty(e.File);
                Assert.NotEmpty(e.Field);
                Assert.True(memory.TrySlice(new(0), (int)RamSize, out var untouched));
                Assert.False(untouched.ContainsAnyExcept((byte)0), $"written although refused: {e.Message}");
            }
        }, iter: 1500, threads: 1);
        Assert.InRange(loaded, 100, 1400); // both ways are taken often, else this test says little
    }

    [Fact]
    public void Mutated_payloads_unpack_or_are_refused()
    {
        byte[][] vectors = [.. Kernel.PayloadTests.Vectors.Select(row => (byte[])((object[])row)[1])];
        var mutants = Gen.Select(Gen.Int[0, vectors.Length - 1], Gen.Select(Gen.Int[0, 4000], Gen.Byte).Array[1, 4], Gen.Int[0, 20]);
        mutants.Sample((which, changes, cut) =>
        {
            var payload = (byte[])vectors[which].Clone();
            foreach (var (at, value) in changes) payload[at % payload.Length] = value;
            if (cut > 0 && cut * 16 < payload.Length) payload = payload[..^(cut * 16)];
            try { return Payload.Unpack("mutant", payload, limit: 8192).Length <= 8192; }
            catch (BootException) { return true; }
        }, iter: 5000, threads: 1);
    }

    [Fact]
    public void Random_notes_are_walked_to_their_end_or_refused() =>
        Gen.Select(Gen.Byte.Array[0, 200], Gen.OneOf(0ul, 1ul, 4ul, 8ul, 3ul)).Sample((note, align) =>
        {
            for (var i = 0; i + 12 <= note.Length; i += 16)
            {
                // Small name and descriptor sizes, else nearly every walk ends at its first note.
                note.AsSpan(i + 1, 3).Clear();
                note.AsSpan(i + 5, 3).Clear();
            }
            var image = TestImages.Elf(0x100_0000, new Segment(TestImages.PtLoad, 0x100_0000, TestImages.Code(0x40)),
                new Segment(TestImages.PtNote, 0, note, Align: align));
            try { return ElfImage.Parse(TestImages.Source(image)).Segments.Count == 1; }
            catch (BootException e) { return e.Field is "p_align" or "n_descsz" or "XEN_ELFNOTE_PHYS32_ENTRY"; }
        }, iter: 2000, threads: 1);

    private static void Apply(byte[] image, int at, int size, ulong value)
    {
        Span<byte> raw = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(raw, value);
        at = Math.Min(at, image.Length - size);
        raw[..size].CopyTo(image.AsSpan(at));
    }

    /// <summary>Every byte that no placement owns is still zero; then clears RAM for the next image.</summary>
    private static void AssertClearOutside(GuestMemory memory, BootPlan plan)
    {
        ulong at = 0;
        foreach (var placement in plan.Placements)
        {
            AssertClear(at, placement.Start.Value);
            at = placement.Start.Value + placement.Size;
        }
        AssertClear(at, memory.Size);
        Assert.True(memory.TrySliceForWrite(new(0), (int)memory.Size, out var all));
        foreach (var placement in plan.Placements) all.Slice((int)placement.Start.Value, (int)placement.Size).Clear();

        void AssertClear(ulong from, ulong to)
        {
            Assert.True(memory.TrySlice(new(from), (int)(to - from), out var gap));
            Assert.False(gap.ContainsAnyExcept((byte)0), $"bytes in [0x{from:x}, 0x{to:x}) belong to nobody");
        }
    }
}
