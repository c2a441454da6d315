using ActorVmm.Devices;

namespace ActorVmm.Testing.Devices;

/// <summary>An interrupt line that remembers its level and counts its rises.</summary>
public sealed class RecordingLine(Action<bool>? onChange = null) : IInterruptLine
{
    public bool Asserted { get; private set; }

    public int Rises { get; private set; }

    public void Drive(bool level)
    {
        if (level == Asserted) return;
        if (level) Rises++;
        Asserted = level;
        onChange?.Invoke(level);
    }
}
