namespace ActorVmm.Actors.Host.Vm;

/// <summary>
/// Set by the device (on a vCPU's thread) that ends the run: no vCPU of the machine enters the guest again after that exit.
/// </summary>
public sealed class RunFlag
{
    private volatile bool _ending;

    public bool Ending
    {
        get => _ending;
        set => _ending = value;
    }
}
