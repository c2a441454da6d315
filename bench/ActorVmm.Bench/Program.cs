using System.ComponentModel;
using ActorVmm.Bench;

(string Name, string What, Func<string[], int> Run)[] benchmarks =
[
    ("exit-path", "one register access: direct call, one actor hop, bus and device", ExitPath.Run),
    ("fault-hooks", "what the fault hooks cost where no plan uses them, against a process without them [ROUNDS [exit|block]]", FaultHooksBench.Run),
    ("neighbour-stall", "gaps between a guest's ticks while another VM of the process fails again and again [ROUNDS]", NeighbourStall.Run),
    ("kvm-exits", "under KVM: exits against direct calls and against QEMU, kicks, messages to a vCPU [exits|kick|latency|qemu [ROUNDS [EXITS [QEMU]]]]",
        KvmExits.Run),
    ("boot-vs-tcg", "power-on to prompt to reset: soft against qemu-system-x86_64 -accel tcg [ROUNDS [QEMU [host|virtual|smp]]]", BootVersusTcg.Run),
    ("virtio-blk", "block requests without a guest: per second, bytes allocated; doorbell to completion [ROUNDS [REQUESTS]]", VirtioBlk.Run),
    ("fio-vs-tcg", "fio in the guest: soft against qemu-system-x86_64 -M microvm, tcg [ROUNDS [SECONDS [QEMU [sync|async [FILE]]]]]", FioVersusTcg.Run),
    ("iperf3-vs-tcg", "iperf3 over a tap, both ways: soft against qemu-system-x86_64 -M microvm, tcg [ROUNDS [SECONDS [QEMU]]]", Iperf3VersusTcg.Run),
    ("virtio-ring", "requests per second through a virtqueue, driver and device on one core", VirtioRing.Run),
    ("guest-vs-tcg", "work inside the guest: soft against qemu-system-x86_64 -accel tcg [ROUNDS [QEMU]]", GuestVersusTcg.Run),
    ("programs-vs-tcg", "programs of the host's in the guest (openssl, gzip, xz, sysbench, stress-ng): soft against tcg [ROUNDS [QEMU]]",
        ProgramsVersusTcg.Run),
    ("cold-start", "process start to first guest instruction, beside qemu -M microvm; memory [ROUNDS [QEMU [NATIVE]]]", ColdStart.Run),
    ("many-vms", "many VMs in one process: rate, what is left behind, memory per VM beside qemu -M microvm [TINY [STOCK,... [QEMU [PROCESSES]]]]", ManyVms.Run),
];

if (args.Length > 0 && benchmarks.FirstOrDefault(b => string.Equals(b.Name, args[0], StringComparison.Ordinal)) is { Run: { } run })
{
    try
    {
        return run(args[1..]);
    }
    catch (Win32Exception refused)
    {
        // A program that is not there, or an argument in another one's place.
        Console.Error.WriteLine(refused.Message);
        return 2;
    }
}

Console.Error.WriteLine("usage: dotnet run -c Release --project bench/ActorVmm.Bench -- NAME");
foreach (var (name, what, _) in benchmarks) Console.Error.WriteLine($"  {name,-12} {what}");
return 2;
