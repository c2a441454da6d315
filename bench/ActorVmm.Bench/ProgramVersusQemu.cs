using System.Buffers.Binary;
using System.Globalization;
using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Bench;

/// <summary>
/// Exits per second under KVM: the whole program against QEMU, in processes of their own, with one and the same image. The guest prints a
/// letter, writes 100,000 times to a port that nothing claims, prints a letter, does so as often as asked, prints a letter, does the same to
/// the scratch register of its serial port, prints a letter, and resets. What counts is the time between the letters, as they come out of the
/// monitor: by the clock, and what the kernel gave to the vCPU's thread of it, which other work on the host does not lengthen. The first part
/// is shown by itself: each process is a fresh one, and there the runtime still compiles. The two take turns.
/// </summary>
internal static class ProgramVersusQemu
{
    private const ushort SerialPort = 0x3F8, Unclaimed = 0x330, Scratch = SerialPort + 7;
    private const uint LoadAddress = 0x10_0000;
    private const uint Cold = 100_000, Grace = 10_000;
    private const string OurThread = "vcpu", TheirThread = "CPU 0/KVM"; // prctl names, at most 15 letters

    /// <summary>Arguments: rounds (7), exits of each kind and round (300000), path of qemu-system-x86_64. Two minutes.</summary>
    public static int Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task<int> RunAsync(string[] args)
    {
        var rounds = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 7;
        var exits = args.Length > 1 ? uint.Parse(args[1], CultureInfo.InvariantCulture) : 300_000;
        var qemu = args.Length > 2 ? args[2] : "qemu-system-x86_64";
        var report = new KvmHypervisor().Probe();
        if (report.Items.FirstOrDefault(item => item.Name == "machine") is not { Works: true })
        {
            Console.WriteLine($"skipped: {report.Verdict}");
            return 0;
        }

        GuestProcess.Build();
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var image = Path.Combine(directory.FullName, "exits.elf");
            var description = Path.Combine(directory.FullName, "exits.conf");
            File.WriteAllBytes(image, Image(exits));
            File.WriteAllText(description, "kernel { path = exits.elf, entry = pvh }\nmemory.size-mib = 64\nhypervisor = kvm\n");
            GuestProcess Ours() => GuestProcess.StartActorVmm(["run", description]);
            if (await ProcessorAsync(qemu, image, exits) is not { } processor)
            {
                Console.WriteLine($"no comparison: {qemu} -enable-kvm does not run this guest on this host");
                return 0;
            }
            GuestProcess Theirs() => GuestProcess.Start(qemu, QemuArguments(processor, image));
            await MeasureAsync(Ours, OurThread, exits);

            var (ours, theirs) = (new Round[rounds], new Round[rounds]);
            for (var round = 0; round < rounds; round++)
            {
                for (var turn = 0; turn < 2; turn++)
                {
                    if ((turn + round) % 2 == 0) ours[round] = await MeasureAsync(Ours, OurThread, exits);
                    else theirs[round] = await MeasureAsync(Theirs, TheirThread, exits);
                }
            }

            Console.WriteLine($"exits per second, medians of {rounds} interleaved rounds of {exits} exits; ratio of a round, median");
            Print("the first 100,000,   by the clock", ours, theirs, static round => round.First.ByClock);
            Print("OUT, unclaimed port, by the clock", ours, theirs, static round => round.Unclaimed.ByClock);
            Print("OUT, 16550 scratch,  by the clock", ours, theirs, static round => round.Scratch.ByClock);
            Print("OUT, unclaimed port, vCPU's thread", ours, theirs, static round => round.Unclaimed.ByThread);
            Print("OUT, 16550 scratch,  vCPU's thread", ours, theirs, static round => round.Scratch.ByThread);
            return 0;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    /// <summary>
    /// The first processor model with which QEMU runs the guest, or null: on some hosts it stops at a register of the host's own model that
    /// KVM offers and then refuses.
    /// </summary>
    private static async Task<string?> ProcessorAsync(string qemu, string image, uint exits)
    {
        foreach (var model in (string[])["host", "host,-arch-capabilities", "qemu64"])
        {
            try
            {
                await MeasureAsync(() => GuestProcess.Start(qemu, QemuArguments(model, image)), TheirThread, exits);
                Console.WriteLine($"peer: {qemu} -enable-kvm -cpu {model}");
                return model;
            }
            catch (Exception cannot)
                when (cannot is InvalidOperationException or System.ComponentModel.Win32Exception or OperationCanceledException)
            {
                Console.WriteLine($"qemu -cpu {model}: {cannot.Message.ReplaceLineEndings(" ").Trim()}");
            }
        }
        return null;
    }

    private static string[] QemuArguments(string processor, string image) =>
    [
        "-name", "exits,debug-threads=on", "-enable-kvm", "-cpu", processor, "-machine", "pc", "-smp", "1", "-m", "64",
        "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", image,
    ];

    private static void Print(string name, Round[] ours, Round[] theirs, Func<Round, double> rate)
    {
        double[] mine = [.. ours.Select(rate)], others = [.. theirs.Select(rate)];
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"  {name,-34} ours {Sampling.Median(mine),9:F0}  qemu {Sampling.Median(others),9:F0}  "
            + $"ratio {Sampling.MedianRatio(mine, others):F3}  target >= 1"));
    }

    private static async Task<Round> MeasureAsync(Func<GuestProcess> start, string thread, uint exits)
    {
        using var guest = start();
        var marks = new (double Clock, double Thread)[4];
        foreach (var (number, text) in ((string[])["<A>", "<B>", "<C>", "<D>"]).Index())
            marks[number] = (await guest.ExpectAsync(text), guest.ThreadSeconds(thread));
        await guest.EndAsync();
        Rate After(int mark, uint count) =>
            new(count / (marks[mark + 1].Clock - marks[mark].Clock), count / (marks[mark + 1].Thread - marks[mark].Thread));
        return new Round(After(0, Cold), After(1, exits), After(2, exits));
    }

    /// <summary>Exits per second.</summary>
    private readonly record struct Rate(double ByClock, double ByThread);

    private sealed record Round(Rate First, Rate Unclaimed, Rate Scratch);

    /// <summary>
    /// A 64-bit ELF image whose PVH note (Xen's PHYS32_ENTRY) says where 32-bit code begins: QEMU and ActorVmm load it alike.
    /// </summary>
    private static byte[] Image(uint exits)
    {
        const int headers = 64 + (2 * 56), note = headers, code = 0x1000;
        var program = TinyGuest.Assemble(c => Write(c, exits), 32, LoadAddress);
        var image = new byte[code + program.Length];
        var file = image.AsSpan();
        new byte[] { 0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1 }.CopyTo(file);
        U16(16, 2); // executable
        U16(18, 62); // x86-64
        U32(20, 1);
        U64(24, LoadAddress);
        U64(32, 64); // program headers
        U16(52, 64);
        U16(54, 56);
        U16(56, 2);
        Segment(64, type: 1, flags: 7, offset: code, address: LoadAddress, size: program.Length, align: 0x1000);
        Segment(64 + 56, type: 4, flags: 4, offset: note, address: 0, size: 24, align: 4);
        U32(note, 4);
        U32(note + 4, 8);
        U32(note + 8, 18); // XEN_ELFNOTE_PHYS32_ENTRY
        "Xen\0"u8.CopyTo(file[(note + 12)..]);
        U64(note + 16, LoadAddress);
        program.CopyTo(file[code..]);
        return image;

        void U16(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(at), value);
        void U32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(at), value);
        void U64(int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(at), value);
        void Segment(int at, uint type, uint flags, int offset, uint address, int size, uint align)
        {
            U32(at, type);
            U32(at + 4, flags);
            U64(at + 8, (ulong)offset);
            U64(at + 16, address);
            U64(at + 24, address);
            U64(at + 32, (ulong)size);
            U64(at + 40, (ulong)size);
            U64(at + 48, align);
        }
    }

    private static void Write(Assembler c, uint exits)
    {
        Print(c, "<A>");
        Loop(c, Unclaimed, Cold);
        Print(c, "<B>");
        Loop(c, Unclaimed, exits);
        Print(c, "<C>");
        Loop(c, Scratch, exits);
        Print(c, "<D>");
        Loop(c, Unclaimed, Grace); // while the thread's time is read
        c.mov(al, 0xFE); // reset through the keyboard controller ends both monitors
        c.@out(0x64, al);
        var stay = c.CreateLabel();
        c.Label(ref stay);
        c.hlt();
        c.jmp(stay);
    }

    private static void Print(Assembler c, string text)
    {
        foreach (var letter in text)
        {
            var wait = c.CreateLabel();
            c.mov(dx, SerialPort + 5);
            c.Label(ref wait);
            c.@in(al, dx);
            c.test(al, 0x20); // transmitter holding register empty
            c.je(wait);
            c.mov(dx, SerialPort);
            c.mov(al, (byte)letter);
            c.@out(dx, al);
        }
    }

    private static void Loop(Assembler c, ushort port, uint exits)
    {
        var again = c.CreateLabel();
        c.mov(ecx, exits);
        c.mov(edx, (uint)port);
        c.mov(al, 0x5A);
        c.Label(ref again);
        c.@out(dx, al);
        c.dec(ecx);
        c.jne(again);
    }
}
