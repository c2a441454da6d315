using System.ComponentModel;
using System.Diagnostics;
using ActorVmm.Hypervisor;
using ActorVmm.Memory;
using ActorVmm.Testing.Actors;
using ActorVmm.Testing.Guests;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Bench;

/// <summary>
/// Exits per second of the same guest code on the same KVM: QEMU with a port that no device of it claims, and this program with the serial
/// port's scratch register behind bus and actor. The guest is one ROM of 64 KiB in real mode, so that QEMU needs no firmware and no loader.
/// </summary>
internal static class KvmVersusQemu
{
    private const int Rounds = 9;
    private const int Exits = 100_000;
    private const int FewExits = 1000;
    private const ushort DebugExitPort = 0x501; // QEMU's isa-debug-exit, its default
    private const byte Value = 0x15;
    private const int QemuExitCode = (Value << 1) | 1; // what isa-debug-exit makes of the value
    private const ulong RomAt = 0x10_000;
    private const int RomSize = 0x1_0000;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    public static void Run(IHypervisor hypervisor, ExitLane lane, string qemu)
    {
        var directory = Directory.CreateTempSubdirectory("actorvmm-bench-");
        try
        {
            var (many, few) = (Path.Combine(directory.FullName, "many"), Path.Combine(directory.FullName, "few"));
            File.WriteAllBytes(many, Rom(lane, Exits));
            File.WriteAllBytes(few, Rom(lane, FewExits));
            var (ours, theirs) = (new double[Rounds], new double[Rounds]);
            for (var round = 0; round < Rounds; round++)
            {
                if (round % 2 == 0) ours[round] = Ours(hypervisor, lane);
                // The difference leaves out what starting and ending a process takes.
                theirs[round] = (Exits - FewExits) / (Qemu(qemu, many) - Qemu(qemu, few));
                if (round % 2 != 0) ours[round] = Ours(hypervisor, lane);
            }

            Console.WriteLine($"exits per second, the same ROM of {Exits} OUTs, {Rounds} interleaved rounds: " +
                $"actorvmm {Sampling.Median(ours):F0}, QEMU {Sampling.Median(theirs):F0}, ratio of a round {Sampling.MedianRatio(ours, theirs):F3}   target >= 1");
        }
        catch (Exception missing) when (missing is Win32Exception or InvalidOperationException)
        {
            Console.WriteLine($"not compared with QEMU: {missing.Message}");
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static byte[] Rom(ExitLane lane, int exits)
    {
        var rom = new byte[RomSize];
        TinyGuest.Assemble(c =>
        {
            var again = c.CreateLabel();
            c.mov(dx, (short)(lane.Port + 7));
            c.mov(ecx, exits);
            c.mov(al, Value);
            c.Label(ref again);
            c.@out(dx, al);
            c.dec(ecx);
            c.jne(again);
            c.mov(dx, DebugExitPort);
            c.@out(dx, al);
            c.hlt();
        }, bitness: 16, origin: 0).CopyTo(rom, 0);
        byte[] farJump = [0xEA, 0x00, 0x00, 0x00, 0xF0]; // at the reset vector: to F000:0000
        farJump.CopyTo(rom, RomSize - 16);
        return rom;
    }

    private static double Ours(IHypervisor hypervisor, ExitLane lane)
    {
        using var guest = new TinyGuest(hypervisor);
        if (!guest.Memory.TryWrite(new GuestAddress(RomAt), Rom(lane, Exits))) throw new InvalidOperationException("no RAM for the ROM");
        guest.Start64(change: state =>
        {
            var data = state.Special.Ds with { Selector = 0, Base = 0, Limit = 0xFFFF, Db = false, Granularity = false };
            return state with
            {
                General = new GeneralRegisters { Rip = 0 },
                Special = state.Special with
                {
                    Cs = data with { Selector = (ushort)(RomAt >> 4), Base = RomAt, Type = 0xB },
                    Ds = data, Es = data, Fs = data, Gs = data, Ss = data,
                    Cr0 = 0x10, Cr3 = 0, Cr4 = 0, Efer = 0, // ET only: real mode
                },
            };
        });
        var vcpu = guest.Machine.Vcpus[0];
        var began = Stopwatch.GetTimestamp();
        for (var i = 0; i < Exits; i++)
        {
            if (vcpu.Run() != VcpuExitKind.PortWrite) throw new InvalidOperationException($"the guest did something else: {vcpu.Exit}");
            lane.ServeThroughBus(vcpu.Exit);
        }

        var seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        if (vcpu.Run() != VcpuExitKind.PortWrite || vcpu.Exit.Address != DebugExitPort)
            throw new InvalidOperationException($"the guest did not end: {vcpu.Exit}");
        return Exits / seconds;
    }

    /// <summary>Seconds from start to end of a QEMU that runs <paramref name="rom"/>.</summary>
    private static double Qemu(string qemu, string rom)
    {
        // qemu64: the host's own CPU model asks for MSRs that nested hosts may not have.
        string[] arguments = ["-machine", "pc,accel=kvm", "-cpu", "qemu64", "-m", "16", "-bios", rom, "-display", "none", "-nodefaults",
            "-device", "isa-debug-exit"];
        var began = Stopwatch.GetTimestamp();
        using var process = Process.Start(new ProcessStartInfo(qemu, arguments) { RedirectStandardError = true })
            ?? throw new InvalidOperationException($"{qemu} did not start");
        if (!process.WaitForExit(Patience))
        {
            process.Kill();
            throw new InvalidOperationException($"{qemu} did not end within {Patience}");
        }

        var seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        if (process.ExitCode == QemuExitCode) return seconds;
        throw new InvalidOperationException($"{qemu} ended with {process.ExitCode}: {process.StandardError.ReadToEnd().Trim()}");
    }
}
