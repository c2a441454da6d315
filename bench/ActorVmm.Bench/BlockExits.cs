using System.Diagnostics;
using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Mmio;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;
using ActorVmm.Testing.Virtio;
using Akka.Configuration;

namespace ActorVmm.Bench;

/// <summary>
/// 4 KiB reads of a whole VM's disk out of the page cache, one at a time, as a guest makes them: a doorbell, the cause of the interrupt, its
/// acknowledgment, each an exit through bus and actor. The guest is a script on the vCPU's thread, so nothing of a CPU is measured.
/// </summary>
internal static class BlockExits
{
    private const int DiskBytes = 16 << 20;
    private const uint Bytes = 4096;

    /// <summary>Nanoseconds per request, of so many samples of so many requests each.</summary>
    public static async Task<double[]> MeasureAsync(TimeSpan warmUp, int samples, int requests)
    {
        var disk = Path.Combine(Path.GetTempPath(), FormattableString.Invariant($"actorvmm-bench-{Environment.ProcessId}.img"));
        await File.WriteAllBytesAsync(disk, new byte[DiskBytes]);
        try
        {
            using var start = new DrivenGuest(VirtioPlan.FirstWindow);
            var loop = new Loop(start, warmUp, samples, requests);
            var hypervisor = new ScriptedHypervisor(loop.Play);
            await using var host = VmHost.Create(ConfigurationFactory.ParseString("akka.loglevel = OFF"), new NoKernel());
            var spec = new VmSpec
            {
                Name = "vm", Kernel = new KernelSpec { Path = "none" }, MemoryMib = 16, Disks = [new DiskSpec { Id = "d", Path = disk, Writeback = true }],
            };
            var vm = await host.StartAsync(spec, hypervisor, new ScriptedConsole().Console);
            loop.Driver = new VirtioDriver(start, hypervisor.Machine!.Memory);
            await Task.Run(() => loop.Driver.Start());
            loop.Prepare();
            start.Dispose(); // from here on the script alone
            await vm.Completion;
            return loop.Times;
        }
        finally
        {
            File.Delete(disk);
        }
    }

    /// <summary>The guest.</summary>
    private sealed class Loop(DrivenGuest start, TimeSpan warmUp, int samples, int requests)
    {
        private const ulong Window = VirtioPlan.FirstWindow;

        private GuestBuffer _header, _data, _status;
        private ulong _sector;

        public VirtioDriver Driver { get; set; } = null!;
        public double[] Times { get; } = new double[samples];

        public void Prepare()
        {
            _header = Driver.Readable(BlockDriver.Header(Devices.Virtio.Block.BlockRequestType.In, 0));
            _data = Driver.Writable(Bytes);
            _status = Driver.Writable(1);
        }

        public IEnumerator<VcpuExitKind> Play(ScriptedVcpu cpu)
        {
            for (var first = start.Play(cpu); first.MoveNext();) yield return first.Current;
            var ring = Driver.Rings[0];
            var warm = Stopwatch.GetTimestamp();
            for (var sample = -1; sample < Times.Length; sample++)
            {
                var began = Stopwatch.GetTimestamp();
                for (var request = 0; request < requests; request++)
                {
                    _sector = (_sector + (8 * 7919)) % (DiskBytes / 512);
                    Driver.Memory.TryWrite(_header.Address + 8, _sector);
                    ring.Add(_header, _data, _status);
                    ring.Publish();
                    yield return cpu.Store(Window + (ulong)MmioRegister.QueueNotify, 4, 0);
                    yield return cpu.Load(Window + (ulong)MmioRegister.InterruptStatus, 4);
                    yield return cpu.Store(Window + (ulong)MmioRegister.InterruptAck, 4, cpu.Answer);
                    if (!ring.TryCollect(out _)) throw new InvalidOperationException("the request is not done");
                }

                if (sample >= 0) Times[sample] = Stopwatch.GetElapsedTime(began).TotalNanoseconds / requests;
                else if (Stopwatch.GetElapsedTime(warm) < warmUp) sample--;
            }
        }
    }
}
