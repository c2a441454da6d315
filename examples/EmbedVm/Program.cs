using ActorVmm.Actors;
using ActorVmm.Devices;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Soft;

// Boots the kernel that is named on the command line, and answers for a device of its own at port 0x510.
await using var host = VmHost.Create();
var spec = new VmSpec { Name = "embedded", Kernel = new KernelSpec { Path = args[0] }, MemoryMib = 64 };
var vm = await host.StartAsync(spec, new SoftHypervisor(), new VmConsole(new StandardOutput(), new NoInput()), new Doubler());
var outcome = await vm.Completion;
Console.WriteLine($"stopped: {outcome.Text}");
return outcome.ExitCode;

/// <summary>A register at port 0x510 that reads as twice what was written; and a guest that resets itself is left at that.</summary>
internal sealed class Doubler : IExitHandler
{
    private ulong _value;

    public bool TryHandle(VcpuExit access)
    {
        if (access.Address != 0x510) return false; // not ours: the bus answers
        if (access.Kind == VcpuExitKind.PortWrite) _value = 2 * access.Data;
        else access.Data = _value;
        return true;
    }

    public StopVerdict OnStopping(StopReason reason) => StopVerdict.Stop;
}

internal sealed class StandardOutput : IByteSink
{
    private readonly Stream _stream = Console.OpenStandardOutput();

    public void Write(ReadOnlySpan<byte> bytes) => _stream.Write(bytes);
}

internal sealed class NoInput : IConsoleInput
{
    public int Take(Span<byte> into) => 0;
    public void OnAvailable(Action available) { }
}
