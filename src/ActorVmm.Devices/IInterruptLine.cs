namespace ActorVmm.Devices;

/// <summary>
/// One interrupt input of the machine. A device drives a level derived from its registers; driving the same level again is free.
/// </summary>
public interface IInterruptLine
{
    /// <summary>Sets the level. Edge-triggered inputs see the rise.</summary>
    void Drive(bool level);
}
