using ActorVmm.Actors;
using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Devices;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Virtio;
using ActorVmm.Devices.Virtio.Net;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;
using ActorVmm.Testing.Virtio;
using Akka.Configuration;

namespace ActorVmm.EndToEnd.Tests.Faults;

/// <summary>
/// A whole VM with a disk, a network interface and an entropy device, whose guest is the test: what a plan does to it is seen with the
/// guest's eyes. Time is virtual: it goes on with each access, and stands still in between.
/// </summary>
internal sealed class FaultVm : IAsyncDisposable, IExitHandler
{
    public const ulong NanosecondsPerStep = 1000;

    /// <summary>A port that no device claims: reading it lets time pass.</summary>
    private const ushort Nowhere = 0x80;
    private const int MostSteps = 20_000;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("actorvmm-fault-").FullName;
    private readonly List<FaultFiring> _firings = [];
    private readonly VmHost _host;
    private readonly ScriptedHypervisor _hypervisor;
    private IVmHandle? _vm;

    private FaultVm()
    {
        // Short deadlines: hangs are waited for.
        _host = VmHost.Create(ConfigurationFactory.ParseString(
            "akka.loglevel = OFF\nactorvmm.supervision { max-retries = 1000, hang-deadline = 200ms, backend-deadline = 200ms }"), new NoKernel());
        _hypervisor = new ScriptedHypervisor(Guest.Play) { HasMovableClock = true, NanosecondsPerStep = NanosecondsPerStep };
    }

    public DrivenGuest Guest { get; } = new(window: 0);
    public ScriptedConsole Console { get; } = new();
    public ScriptedPackets Packets { get; } = new();
    public ScriptedMachine Machine => _hypervisor.Machine!;
    public string DiskPath => Path.Combine(_folder, "disk.img");

    public IReadOnlyList<FaultFiring> Firings
    {
        get { lock (_firings) return [.. _firings]; }
    }

    public static async Task<FaultVm> StartAsync(IReadOnlyList<FaultRule> rules)
    {
        var vm = new FaultVm();
        try
        {
            await using (var disk = File.Create(vm.DiskPath)) disk.SetLength(1 << 20);
            var spec = new VmSpec
            {
                Name = "vm", Kernel = new KernelSpec { Path = "none" }, MemoryMib = 16, Clock = ClockMode.Virtual, Faults = new FaultPlan(7, rules),
                Disks = [new DiskSpec { Id = "disk", Path = vm.DiskPath, Writeback = true }],
                Nets = [new NetSpec { Id = "net", Backend = new NetBackend.Own(() => vm.Packets) }],
                Entropy = [new EntropySpec()],
            };
            vm._vm = await vm._host.StartAsync(spec, vm._hypervisor, vm.Console.Console, vm).WaitAsync(s_patience);
            return vm;
        }
        catch
        {
            await vm.DisposeAsync();
            throw;
        }
    }

    /// <inheritdoc/>
    public void OnFault(FaultFiring firing)
    {
        lock (_firings) _firings.Add(firing);
    }

    /// <summary>How often a device was made anew.</summary>
    public long Restarts(string device) => _vm!.Readings.Devices.Single(one => one.Name == device).Restarts;

    /// <summary>All of the VM's devices.</summary>
    public IEnumerable<string> Devices => _vm!.Readings.Devices.Select(static one => one.Name);

    public BlockDriver StartDisk()
    {
        var driver = Driver(0, 0x10_0000);
        driver.Start(ulong.MaxValue & ~VirtioFeatures.IndirectDescriptors, size: 16);
        return new BlockDriver(driver);
    }

    public VirtioDriver StartNet()
    {
        var driver = Driver(1, 0x40_0000);
        driver.Start(NetFeatures.Mac | NetFeatures.Status, size: 16);
        return driver;
    }

    public VirtioDriver StartEntropy()
    {
        var driver = Driver(2, 0x80_0000);
        driver.Start(size: 16);
        return driver;
    }

    /// <summary>Lets machine time pass.</summary>
    public void Steps(int count)
    {
        for (var i = 0; i < count; i++) Guest.In(Nowhere);
    }

    /// <summary>"at once" where it holds already; "later" where time has to pass; "never" where no time is enough.</summary>
    public string When(Func<bool> holds, int most = MostSteps)
    {
        if (holds()) return "at once";
        for (var step = 0; step < most; step++)
        {
            Guest.In(Nowhere);
            if (holds()) return "later";
        }

        return "never";
    }

    /// <summary>Ends the VM; then its files can be looked at.</summary>
    public async Task EndAsync()
    {
        Guest.Dispose();
        await _vm!.Completion.WaitAsync(s_patience);
    }

    public async ValueTask DisposeAsync()
    {
        Guest.Dispose();
        await _host.DisposeAsync().AsTask().WaitAsync(s_patience);
        Directory.Delete(_folder, recursive: true);
    }

    private VirtioDriver Driver(int place, ulong room) =>
        new(new Window(Guest, VirtioPlan.FirstWindow + ((ulong)place * 0x1000)), Machine.Memory, room);

    /// <summary>One device's registers among all.</summary>
    private sealed class Window(DrivenGuest guest, ulong at) : IBusDevice
    {
        public ulong Read(ulong offset, int size) => guest.Read(at + offset, size);
        public void Write(ulong offset, int size, ulong value) => guest.Write(at + offset, size, value);
        public void Reset() => throw new NotSupportedException("a guest has no such access");
    }
}
