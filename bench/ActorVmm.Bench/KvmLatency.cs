using System.Diagnostics;
using Akka.Actor;
using Akka.Configuration;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Devices;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Bench;

/// <summary>How long a vCPU takes to come out of its guest: for a kick, and for a message told to the vCPU's actor.</summary>
internal static class KvmLatency
{
    private const int Kicks = 3000;
    private const int Messages = 2000;
    private const int WarmUp = 200;

    private const byte MutePort = 0x50;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private static readonly (string Name, Action<Assembler> Body)[] Guests =
    [
        ("computing", static c => c.nop()),
        ("halted", static c => c.hlt()),
        ("in a loop of exits", static c => c.@out(dx, al)),
    ];

    public static void Run(IHypervisor hypervisor)
    {
        foreach (var (name, body) in Guests)
            Console.WriteLine($"kick, guest {name,-20} {Sampling.P50P99(Kick(hypervisor, body))}   target p50 <= 30, p99 <= 200");
        foreach (var (name, body) in Guests.Append(("waiting for a device", static c => c.@in(al, MutePort))))
        {
            var samples = AskAsync(hypervisor, body).GetAwaiter().GetResult();
            Console.WriteLine($"ask,  guest {name,-20} {Sampling.P50P99(samples)}   target p50 <= 50");
        }
    }

    private static void Write(Assembler c, Action<Assembler> body)
    {
        var again = c.CreateLabel();
        c.MaskPic();
        c.mov(edx, 0x3FF);
        c.sti();
        c.Label(ref again);
        body(c);
        c.jmp(again);
    }

    /// <summary>From the call of Kick to the return of Run. Every kick is waited for; one that is lost ends the benchmark.</summary>
    private static double[] Kick(IHypervisor hypervisor, Action<Assembler> body)
    {
        using var guest = new TinyGuest(hypervisor).Code(c => Write(c, body)).Start64();
        var vcpu = guest.Machine.Vcpus[0];
        var samples = new double[Kicks];
        long kicked = 0; // time stamp of the last Kicked; 0 while none is reported
        var runner = new Thread(() =>
        {
            for (var reported = 0; reported < WarmUp + Kicks;)
            {
                if (vcpu.Run() != VcpuExitKind.Kicked) continue;
                reported++;
                Volatile.Write(ref kicked, Stopwatch.GetTimestamp());
            }
        }) { IsBackground = true };
        runner.Start();
        for (var i = 0; i < WarmUp + Kicks; i++)
        {
            // The guest gets time to go in again: a kick that finds the vCPU on its way costs nothing, and is not what is asked here.
            for (var settle = Stopwatch.GetTimestamp(); Sampling.MicrosecondsSince(settle) < 50;) Thread.SpinWait(20);
            Volatile.Write(ref kicked, 0);
            var began = Stopwatch.GetTimestamp();
            vcpu.Kick();
            long ended;
            while ((ended = Volatile.Read(ref kicked)) == 0)
            {
                Thread.Yield(); // the vCPU may need this very core
                if (Stopwatch.GetElapsedTime(began) > Patience) throw new InvalidOperationException($"kick {i} was lost");
            }

            if (i >= WarmUp) samples[i - WarmUp] = Sampling.Microseconds(began, ended);
        }

        runner.Join();
        return samples;
    }

    /// <summary>From the question to the vCPU's actor, inside a whole VM, to its answer.</summary>
    private static async Task<double[]> AskAsync(IHypervisor hypervisor, Action<Assembler> body)
    {
        // A device that has not answered for as long as this is given up; here the vCPU shall go on waiting.
        var patient = ConfigurationFactory.ParseString("actorvmm.reply-deadline = 600s");
        await using var host = VmHost.Create(patient, new Loader(c => Write(c, body)));
        var kernel = new KernelSpec { Path = "none" };
        var spec = new VmSpec { Name = "tiny", Kernel = kernel, MemoryMib = (int)(GuestLayout.MemorySize >> 20), Vcpus = 1 };
        var vm = await host.StartAsync(spec, hypervisor, new VmConsole(new Nothing(), new Nothing()),
            exitHandler: null, [static _ => new DeviceUnit("mute", Props.Create(() => new Mute()), AddressRange.Ports(MutePort, 1))]);
        var vcpu = await host.System.ActorSelection("/user/host/tiny/vcpus/0").ResolveOne(Patience);
        var samples = new double[Messages];
        for (var i = 0; i < WarmUp + Messages; i++)
        {
            var began = Stopwatch.GetTimestamp();
            await vcpu.Ask<UnitProtocol.Done>(UnitProtocol.Start.Instance, Patience);
            if (i >= WarmUp) samples[i - WarmUp] = Sampling.MicrosecondsSince(began);
        }

        vm.Stop();
        await vm.Completion;
        return samples;
    }

    /// <summary>Puts a tiny guest into the VM instead of a kernel.</summary>
    private sealed class Loader(Action<Assembler> code) : IGuestLoader
    {
        public IReadOnlyList<string> Load(VmSpec spec, IMachine machine)
        {
            using var guest = new TinyGuest(machine);
            guest.Code(code).Start64();
            return [];
        }
    }

    /// <summary>A device that answers no access, only its supervisor.</summary>
    private sealed class Mute : UntypedActor
    {
        protected override void OnReceive(object message)
        {
            switch (message)
            {
                case UnitProtocol.Start or UnitProtocol.Stop or UnitProtocol.Reset: Sender.Tell(new UnitProtocol.Done("mute")); break;
                case BusAccess: break;
                default: Unhandled(message); break;
            }
        }
    }

    /// <summary>A console with nobody at it.</summary>
    private sealed class Nothing : IByteSink, IConsoleInput
    {
        public void Write(ReadOnlySpan<byte> bytes) { }
        public int Take(Span<byte> into) => 0;
        public void OnAvailable(Action available) { }
    }
}
