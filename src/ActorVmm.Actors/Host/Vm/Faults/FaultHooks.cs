namespace ActorVmm.Actors.Host.Vm.Faults;

/// <summary>
/// Whether this process has fault hooks at all. Read once, so that where it is off the JIT leaves the hooks out: that is what the benchmark
/// compares with.
/// </summary>
internal static class FaultHooks
{
    /// <summary>The switch: <c>AppContext.SetSwitch</c> before the first VM, or <c>runtimeconfig.json</c>.</summary>
    public const string Switch = "ActorVmm.NoFaultHooks";

    public static readonly bool Compiled = !(AppContext.TryGetSwitch(Switch, out var off) && off);
}
