using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Host.Commands;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Logging;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;
using ActorVmm.Testing.Guests;
using ActorVmm.Testing.Native;

namespace ActorVmm.Host.Tests.Terminal;

/// <summary>
/// The program under test of the terminal tests: the real runner around the echo guest, on this process's own descriptors.
/// </summary>
internal static class TerminalProgram
{
    /// <param name="arguments">
    /// <c>run</c>, and then any of <c>deaf</c> (the guest does not stop) and <c>virtual</c>; <c>fetch</c>, which never ends; <c>akka</c>,
    /// which starts and ends an actor system that logs everything; <c>kvm</c>, the number of an ioctl, and that of the error with which the
    /// kernel shall refuse it.
    /// </param>
    public static async Task<int> RunAsync(string[] arguments)
    {
        if (arguments is ["fetch"])
        {
            return await GuestProgress.ShowAsync(ConsoleDescriptors.OfProcess().Errors, terminal: true, async progress =>
            {
                progress.Report("Fetching for ever", 0.5);
                await Task.Delay(Timeout.Infinite);
                return 0;
            });
        }
        if (arguments is ["kvm", var request, var errno])
        {
            var kernel = Path.Combine(Directory.CreateTempSubdirectory("actorvmm-test-").FullName, "kernel");
            File.WriteAllBytes(kernel, HaltingKernel.Elf());
            RefusingKernel.RefuseIoctl(uint.Parse(request, CultureInfo.InvariantCulture), int.Parse(errno, CultureInfo.InvariantCulture));
            var real = new HostServices(new HypervisorCatalog(("kvm", () => new KvmHypervisor())),
                new AkkaVmHostFactory((system, _) => VmHost.Attach(system)));
            var vm = new VmDescription { Kernel = new KernelSpec { Path = kernel }, Hypervisor = "kvm" };
            try { return await new VmRunner(real, ConsoleDescriptors.OfProcess()).RunAsync(vm, verbose: false, greeting: null); }
            finally { Directory.Delete(Path.GetDirectoryName(kernel)!, recursive: true); }
        }
        if (arguments is ["akka"])
            return await StartAndEndAkkaAsync();
        var host = new FakeVmHost { Deaf = arguments.Contains("deaf", StringComparer.Ordinal) };
        var services = new HostServices(new HypervisorCatalog(("soft", () => new FakeHypervisor("soft"))), host);
        var description = new VmDescription
        {
            Kernel = new KernelSpec { Path = "vmlinuz" },
            Clock = arguments.Contains("virtual", StringComparer.Ordinal) ? ClockMode.Virtual : ClockMode.Host,
        };
        return await new VmRunner(services, ConsoleDescriptors.OfProcess()).RunAsync(description, verbose: false, greeting: null);
    }

    private static async Task<int> StartAndEndAkkaAsync()
    {
        await using var log = new Serilog.LoggerConfiguration().CreateLogger();
        var factory = new AkkaVmHostFactory((system, _) => VmHost.Attach(system));
        await factory.Create(OperatorSettings.Load(), log, verbose: true).DisposeAsync();
        return 0;
    }
}
