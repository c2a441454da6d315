using ActorVmm.Actors.Host.Vm.Devices.Virtio;
using ActorVmm.Boot;
using ActorVmm.Hypervisor;
using ActorVmm.Memory;

namespace ActorVmm.Actors;

/// <summary>Reads the kernel that the <see cref="VmSpec"/> names and enters it by its boot protocol.</summary>
internal sealed class KernelLoader : IGuestLoader
{
    public static readonly KernelLoader Instance = new();

    /// <inheritdoc/>
    public IReadOnlyList<string> Load(VmSpec spec, IMachine machine)
    {
        var plan = BootLoader.Load(machine.Memory, new BootRequest
        {
            KernelPath = spec.Kernel.Path,
            InitrdPath = spec.Kernel.InitrdPath,
            CommandLine = WithRoot(spec),
            LoadAddress = new GuestAddress(spec.Kernel.LoadAddress),
            Format = FormatOf(spec.Kernel.Entry),
            CpuCount = spec.Vcpus,
            VirtioMmio = [.. VirtioPlan.Of(spec).Select(static place => place.Slot)],
        });
        var processor = machine.Vcpus[0];
        processor.SetState(InitialState.For(processor.GetState(), plan));
        return [$"{plan.Format} entered at {plan.Entry} ({plan.Protocol}), command line: {plan.CommandLine}", .. plan.Notes];
    }

    /// <summary>Says which disk is the root, as Firecracker does, unless the user has.</summary>
    internal static string WithRoot(VmSpec spec)
    {
        var line = spec.Kernel.CommandLine;
        var index = spec.Disks.Select(static disk => disk.IsRoot).ToList().IndexOf(true);
        if (index < 0 || line.Split(' ').Any(static word => word.StartsWith("root=", StringComparison.Ordinal))) return line;
        var disk = spec.Disks[index];
        var root = disk.PartUuid is { } partition ? $"PARTUUID={partition}" : $"/dev/vd{(char)('a' + index)}";
        return $"{line} root={root} {(disk.ReadOnly ? "ro" : "rw")}".TrimStart();
    }

    private static KernelFormat FormatOf(KernelEntry entry) => entry switch
    {
        KernelEntry.Elf64   => KernelFormat.Elf64,
        KernelEntry.Pvh     => KernelFormat.Pvh,
        KernelEntry.BzImage => KernelFormat.BzImage,
        KernelEntry.Payload => KernelFormat.Payload,
        _                   => KernelFormat.Auto,
    };
}
