namespace ActorVmm.Hypervisor.Soft;

/// <summary>The software x86-64 CPU: runs anywhere .NET does, and repeats a run exactly under virtual time.</summary>
/// <param name="settings">How it runs; the default is what suits most hosts.</param>
public sealed class SoftHypervisor(SoftOptions? settings = null) : IHypervisor
{
    private readonly SoftOptions _settings = settings ?? new SoftOptions();

    public string Name => "soft";

    public ProbeReport Probe() =>
        new("soft", Usable: true, [new ProbeItem("interpreter", Works: true, "decoded blocks on the host's .NET runtime")], "soft: works everywhere");

    public IMachine CreateMachine(MachineOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.VcpuCount is < 1 or > 254)
            throw new HypervisorException($"a machine has 1 to 254 vCPUs, not {options.VcpuCount}");
        if (options.LockStep && options.Clock != ClockMode.Virtual)
            throw new HypervisorException("lock-step runs each block twice and needs time and devices to stand still meanwhile: set clock = virtual.");
        return new SoftMachine(options, _settings);
    }
}
