using ActorVmm.Devices.Chipset;

namespace ActorVmm.Testing.Devices;

/// <summary>A core that only counts what its local APIC tells it.</summary>
public sealed class RecordingApicCore : IApicCore
{
    int _interrupts;

    public int Interrupts => Volatile.Read(ref _interrupts);
    public int Nmis { get; private set; }
    public int Inits { get; private set; }
    public int Smis { get; private set; }
    public List<byte> Startups { get; } = [];

    public void InterruptRequested() => Interlocked.Increment(ref _interrupts);
    public void NmiRequested() => Nmis++;
    public void InitRequested() => Inits++;
    public void StartupRequested(byte vector) => Startups.Add(vector);
    public void SmiRequested() => Smis++;
}
