using ActorVmm.Actors;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Soft;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Harness;

/// <summary>A VM in this process, through the programmer's door. Where a test fails, console and inspect tree go into its output.</summary>
public sealed class RunningGuest : IAsyncDisposable
{
    /// <summary>What every boot needs; how it ends is up to the test.</summary>
    public const string CommandLine =
        "console=ttyS0,115200n8r panic=-1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd pci=off";

    private readonly VmHost _host;
    private readonly ITestOutputHelper _output;

    private RunningGuest(VmHost host, IVmHandle vm, GuestConsole console, ITestOutputHelper output)
    {
        (_host, Vm, Console, _output) = (host, vm, console, output);
        Shell = new Shell(console.Transcript, console.Send);
        _ = vm.Completion.ContinueWith(
            ended => console.Transcript.End(ended.Result.Text), CancellationToken.None, TaskContinuationOptions.None,
            TaskScheduler.Default);
    }

    public IVmHandle Vm { get; }
    public GuestConsole Console { get; }
    public Shell Shell { get; }

    /// <summary>Starts <paramref name="spec"/> on the software CPU, with settings in the words of <c>akka.hocon</c>.</summary>
    public static async Task<RunningGuest> StartAsync(VmSpec spec, ITestOutputHelper output, GuestConsole? console = null, string settings = "")
    {
        console ??= new GuestConsole();
        var host = VmHost.Create(settings.Length == 0 ? null : Akka.Configuration.ConfigurationFactory.ParseString(settings));
        try
        {
            var vm = await host.StartAsync(spec, new SoftHypervisor(), new VmConsole(console, console));
            return new RunningGuest(host, vm, console, output);
        }
        catch
        {
            await host.DisposeAsync();
            throw;
        }
    }

    /// <summary>A VM of the stock guest.</summary>
    public static VmSpec Spec(Host.Guests.GuestImage image, int vcpus = 1, int memoryMib = 256, string more = "reboot=k") => new()
    {
        Name = "guest",
        Kernel = new KernelSpec { Path = image.KernelPath, InitrdPath = image.InitramfsPath, CommandLine = $"{CommandLine} {more}" },
        Vcpus = vcpus,
        MemoryMib = memoryMib,
        Clock = ClockMode.Host,
    };

    /// <summary>Runs a test's story; where it fails, says all that is known about the guest.</summary>
    public async Task TellAsync(Func<Task> story)
    {
        try
        {
            await story();
        }
        catch
        {
            _output.WriteLine("console:");
            _output.WriteLine(Console.Transcript.Tail(80));
            _output.WriteLine("units:");
            _output.WriteLine(Vm.Completion.IsCompleted ? (await Vm.Completion).Text : await InspectAsync());
            throw;
        }
    }

    /// <summary>Where even that fails, it must not hide what failed before.</summary>
    private async Task<string> InspectAsync()
    {
        try { return (await Vm.InspectAsync()).ToString(); }
        catch (Akka.Actor.AskTimeoutException silent) { return silent.Message; }
    }

    /// <summary>Waits for the end of the VM.</summary>
    public Task<VmOutcome> EndAsync(TimeSpan deadline) => Vm.Completion.WaitAsync(deadline);

    public ValueTask DisposeAsync() => _host.DisposeAsync();
}
