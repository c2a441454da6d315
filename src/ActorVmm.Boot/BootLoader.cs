using ActorVmm.Boot.Acpi;
using ActorVmm.Boot.Kernel;
using ActorVmm.Memory;

namespace ActorVmm.Boot;

/// <summary>
/// Puts a kernel, its initrd and everything it must be told into guest RAM. Works in two halves: first all is read, checked and placed,
/// then all is written; what is refused is refused with RAM untouched (save that a file which changes while it is read may be refused
/// late).
/// </summary>
public static class BootLoader
{
    /// <summary>Loads what <paramref name="request"/> names.</summary>
    /// <param name="memory">Zeroed guest RAM, at least 2 MiB from address 0.</param>
    /// <param name="request">What to boot.</param>
    /// <returns>Where vCPU 0 begins.</returns>
    /// <exception cref="BootException">Any part of the request does not hold; names file, field and value.</exception>
    public static BootPlan Load(GuestMemory memory, BootRequest request)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ArgumentNullException.ThrowIfNull(request);
        var low = memory.Regions[0];
        if (low.Start.Value != 0 || low.Size < 0x20_0000)
            throw BootException.Hex("guest memory", "size", low.Size, "at least 2 MiB are needed");
        if (request.CpuCount is < 1 or > MpTable.MaxCpus)
            throw new BootException("request", "vcpus", $"{request.CpuCount}", $"1 to {MpTable.MaxCpus} are possible");
        if (request.LoadAddress.Value >= low.Size)
            throw BootException.Hex("request", "kernel_load_addr", request.LoadAddress.Value,
                $"himem starts past the end of RAM, 0x{low.Size:x}");

        var last = memory.Regions[^1];
        var e820 = E820Map.Build(last.Start.Value + last.Size);
        var acpi = AcpiTables.Build(MemoryLayout.Acpi, new AcpiMachine { CpuCount = request.CpuCount, VirtioMmio = request.VirtioMmio });
        var mp = new MpTable(request.CpuCount);

        using var kernel = KernelLoad.Open(request, low.Size);
        var pvh = kernel.Protocol is EntryProtocol.Pvh32;
        var commandLine = CommandLine.ForGuest(
            request.CommandLine, request.AnnounceOnCommandLine ? request.VirtioMmio : [], kernel.CommandLineCapacity);

        var map = new PlacementMap(low.Size);
        ClaimLow(map, pvh);
        kernel.Claim(map);
        using var initrd = request.InitrdPath is { } path ? ImageSource.Open(path, "initrd") : null;
        (ulong Address, ulong Size)? initrdAt = initrd is null ? null : Place(initrd, map, kernel);

        var gdt = EntryTables.Gdt(kernel.Protocol);
        Put(MemoryLayout.BdaEbdaSegment, [unchecked((byte)(MemoryLayout.Ebda >> 4)), (byte)(MemoryLayout.Ebda >> 12)]);
        Put(MemoryLayout.BdaBaseMemory, [unchecked((byte)(MemoryLayout.Ebda >> 10)), (byte)(MemoryLayout.Ebda >> 18)]);
        Put(MemoryLayout.Gdt, gdt);
        Put(MemoryLayout.Idt, new byte[8]);
        Put(MemoryLayout.CommandLine, commandLine.ToBytes());
        Put(MemoryLayout.Acpi, acpi);
        mp.Write(memory);
        if (pvh)
        {
            Put(MemoryLayout.StartInfo,
                StartInfo.Build(MemoryLayout.StartInfo, MemoryLayout.CommandLine, MemoryLayout.Acpi, e820, initrdAt));
        }
        else
        {
            Put(MemoryLayout.PageTables, EntryTables.PageTables(MemoryLayout.PageTables));
            Put(MemoryLayout.ZeroPage, ZeroPage(kernel, e820, initrdAt).Bytes);
        }
        kernel.Write(memory);
        if (initrdAt is { } placed) initrd!.CopyTo(memory, 0, placed.Size, new GuestAddress(placed.Address), "initrd");

        return new BootPlan
        {
            Protocol = kernel.Protocol,
            Format = kernel.Format,
            Entry = new GuestAddress(kernel.Entry),
            Parameters = new GuestAddress(pvh ? MemoryLayout.StartInfo : MemoryLayout.ZeroPage),
            PageTableRoot = new GuestAddress(MemoryLayout.PageTables),
            GdtBase = new GuestAddress(MemoryLayout.Gdt),
            GdtLimit = (ushort)(gdt.Length - 1),
            CommandLine = commandLine.ToString(),
            Placements = map.Taken,
            MemoryMap = e820.Entries,
            Notes = kernel.Notes,
        };

        void Put(ulong at, ReadOnlySpan<byte> bytes)
        {
            if (!memory.TryWrite(new GuestAddress(at), bytes))
                throw BootException.Hex("guest memory", "address", at, $"0x{bytes.Length:x} bytes of RAM are needed there");
        }
    }

    private static void ClaimLow(PlacementMap map, bool pvh)
    {
        Claim("interrupt vectors, BDA, GDT, IDT", 0, 0x1000);
        if (pvh)
        {
            Claim("hvm_start_info", MemoryLayout.StartInfo, 0x1000);
        }
        else
        {
            Claim("zero page", MemoryLayout.ZeroPage, BootParams.Size);
            Claim("stack", MemoryLayout.Stack, 0x1000);
            Claim("page tables", MemoryLayout.PageTables, MemoryLayout.PageTablesSize);
        }
        Claim("command line", MemoryLayout.CommandLine, MemoryLayout.CommandLineSize);
        Claim("EBDA, MP table, ACPI tables", MemoryLayout.Ebda, MemoryLayout.HighMemory - MemoryLayout.Ebda);

        void Claim(string name, ulong at, ulong size) => map.Claim("memory layout", name, name, at, size);
    }

    private static (ulong Address, ulong Size) Place(ImageSource initrd, PlacementMap map, KernelLoad kernel)
    {
        if (initrd.Length is 0 or > uint.MaxValue)
            throw BootException.Hex(initrd.Name, "initrd size", initrd.Length, "an initrd has 1 byte to 4 GiB");
        return (map.ClaimHighest(initrd.Name, "initrd size", "initrd", initrd.Length, kernel.InitrdMax, kernel.Span), initrd.Length);
    }

    private static BootParams ZeroPage(KernelLoad kernel, E820Map e820, (ulong Address, ulong Size)? initrd)
    {
        var page = kernel.Header is { } header
            ? BootParams.ForBzImage(header, kernel.Format is KernelFormat.BzImage ? (uint)kernel.Segments[0].Address : header.Code32Start)
            : BootParams.ForElf();
        page.WithCommandLine(MemoryLayout.CommandLine).WithRsdp(MemoryLayout.Acpi).WithMemoryMap(e820);
        return initrd is { } at ? page.WithInitrd(at.Address, at.Size) : page;
    }
}
