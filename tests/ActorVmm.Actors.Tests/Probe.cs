using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Devices;

namespace ActorVmm.Actors.Tests;

/// <summary>
/// A device that does what a test wants at ports from 0x500: +0 a register, +1 crashes as often as asked, +2 prints and then crashes as
/// often as asked, +3 raises its line, +4 a deadline in that many nanoseconds, +5 lowers its line.
/// </summary>
internal sealed class ProbeDevice(DeviceSlot slot, ProbeFaults faults) : IBusDevice, IDeviceState<(ulong Register, ulong At)>, ITimedDevice
{
    public const ushort Port = 0x500;
    public const int Gsi = 11;

    private readonly IInterruptLine _line = slot.Effects.InterruptLine(Gsi);
    private ulong _register;
    private ulong _at;

    public (ulong Register, ulong At) State
    {
        get => (_register, _at);
        set => (_register, _at) = value;
    }

    public ulong? Deadline => _at == 0 ? null : _at;

    public ulong Read(ulong offset, int size)
    {
        faults.Enter();
        if (offset == 1) faults.MayThrow();
        faults.Leave();
        return _register;
    }

    public void Write(ulong offset, int size, ulong value)
    {
        faults.Enter();
        switch (offset)
        {
            case 0: _register = value; break;
            case 1: _register = value; faults.MayThrow(); break;
            case 2:
                slot.Effects.Console.Write([(byte)value]);
                faults.MayThrow();
                break;
            case 3: _line.Drive(true); break;
            case 4: _at = slot.Clock.Nanoseconds + value; break;
            case 5: _line.Drive(false); break;
            default: break;
        }

        faults.Leave();
    }

    public void Advance(ulong nanoseconds)
    {
        if (_at == 0 || nanoseconds < _at) return;
        _at = 0;
        _register++;
        slot.Effects.Console.Write("!"u8);
    }

    public void Reset()
    {
        _register = 0;
        _at = 0;
        _line.Drive(false);
    }
}

/// <summary>What goes wrong in a <see cref="ProbeDevice"/>, and what was seen of it.</summary>
internal sealed class ProbeFaults
{
    private int _remaining;
    private int _inside;
    private int _intruders;
    private int _builds;

    public int Intruders => Volatile.Read(ref _intruders);
    public int Builds => Volatile.Read(ref _builds);
    public int? BuildFailsFrom { get; set; }

    public ProbeFaults Crash(int times)
    {
        Volatile.Write(ref _remaining, times);
        return this;
    }

    public void Built()
    {
        if (Interlocked.Increment(ref _builds) >= BuildFailsFrom) throw new InvalidOperationException("cannot be built");
    }

    public void MayThrow()
    {
        if (Interlocked.Decrement(ref _remaining) < 0) return;
        Leave();
        throw new InvalidOperationException("probe crashed");
    }

    public void Enter()
    {
        if (Interlocked.Increment(ref _inside) > 1) Interlocked.Increment(ref _intruders);
    }

    public void Leave() => Interlocked.Decrement(ref _inside);
}

/// <summary>The shell of a <see cref="ProbeDevice"/>; <see cref="Hang"/> makes it hold its mailbox.</summary>
internal sealed class ProbeActor : DeviceActor<(ulong Register, ulong At)>
{
    public ProbeActor(DeviceSlot slot, Checkpoint<(ulong, ulong)> checkpoint, ProbeFaults faults) : base(slot, checkpoint, Build(slot, faults)) { }

    public static DeviceUnit Unit(DeviceParts parts, ProbeFaults faults, string name = "probe", ushort port = ProbeDevice.Port)
    {
        var (slot, checkpoint) = (parts.Slot(name), new Checkpoint<(ulong, ulong)>());
        return new DeviceUnit(name, Props.Create(() => new ProbeActor(slot, checkpoint, faults)), AddressRange.Ports(port, length: 16));
    }

    protected override void OnReceive(object message)
    {
        if (message is Hang hang)
        {
            hang.Entered.Set();
            hang.Release.Wait(VmFixture.Patience);
        }
        else
        {
            base.OnReceive(message);
        }
    }

    private static ProbeDevice Build(DeviceSlot slot, ProbeFaults faults)
    {
        faults.Built();
        return new ProbeDevice(slot, faults);
    }

    /// <summary>A host thread gets stuck inside the device.</summary>
    public sealed record Hang(ManualResetEventSlim Entered, ManualResetEventSlim Release);
}
