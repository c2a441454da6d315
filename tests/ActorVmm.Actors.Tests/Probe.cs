using Akka.Actor;
using ActorVmm.Actors.Host.Vm.Bus;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Devices;

namespace ActorVmm.Actors.Tests;

/// <summary>
/// A device that does what a test wants at ports from 0x500: +0 a register, +1 crashes as often as asked, +2 prints and then crashes as
/// often as asked, +3 raises its line, +4 a deadline in that many nanoseconds, +5 lowers its line, +6 hangs as
/// often as asked, then prints and stores what was written.
/// </summary>
internal sealed class ProbeDevice(DeviceSlot slot, ProbeFaults faults) : IBusDevice, IDeviceState<(ulong Register, ulong At)>, ITimedDevice
{
    public const ushort Port = 0x500;
    public const int Gsi = 11;

    private readonly IByteSink _console = slot.Effects.Console;
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
        if (offset == 6) faults.MayHang();
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
                _console.Write([(byte)value]);
                faults.MayThrow();
                break;
            case 3: _line.Drive(true); break;
            case 4: _at = slot.Clock.Nanoseconds + value; break;
            case 5: _line.Drive(false); break;
            case 6:
                faults.MayHang();
                _register = value;
                _console.Write([(byte)value]);
                break;
            default: break;
        }

        faults.Leave();
    }

    public void Advance(ulong nanoseconds)
    {
        if (_at == 0 || nanoseconds < _at) return;
        faults.OnAlarm?.MayHang();
        _at = 0;
        _register++;
        _console.Write("!"u8);
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
    private int _hangs;
    private int _hung;
    private int _cameBack;
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

    /// <summary>Handlers that hang, and are let go by <see cref="Release"/>.</summary>
    public ProbeFaults Hang(int times)
    {
        Volatile.Write(ref _hangs, times);
        return this;
    }

    /// <summary>What goes wrong in an alarm; null: nothing.</summary>
    public AlarmFaults? OnAlarm { get; private set; }

    public ProbeFaults Alarm(AlarmFaults alarm)
    {
        OnAlarm = alarm;
        return this;
    }

    public ManualResetEventSlim Release { get; } = new();
    public int Hung => Volatile.Read(ref _hung);
    public int CameBack => Volatile.Read(ref _cameBack);

    public void MayHang()
    {
        if (Interlocked.Decrement(ref _hangs) < 0) return;
        Leave();
        Interlocked.Increment(ref _hung);
        Release.Wait(VmFixture.Patience);
        Interlocked.Increment(ref _cameBack);
        Enter();
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
    private readonly ProbeDevice _device;

    public ProbeActor(DeviceSlot slot, Checkpoint<(ulong, ulong)> checkpoint, ProbeFaults faults) : this(slot, checkpoint, Build(slot, faults)) { }

    private ProbeActor(DeviceSlot slot, Checkpoint<(ulong, ulong)> checkpoint, ProbeDevice device) : base(slot, checkpoint, device) =>
        _device = device;

    public static DeviceUnit Unit(
        DeviceParts parts, ProbeFaults faults, string name = "probe", ushort port = ProbeDevice.Port, bool registersOnly = true)
    {
        var (slot, checkpoint) = (parts.Slot(name), new Checkpoint<(ulong, ulong)>());
        return new DeviceUnit(name, Props.Create(() => new ProbeActor(slot, checkpoint, faults)), AddressRange.Ports(port, length: 16))
        {
            Slot = slot, RegistersOnly = registersOnly,
        };
    }

    protected override void OnReceive(object message)
    {
        if (message is Hang hang)
        {
            hang.Entered.Set();
            hang.Release.Wait(VmFixture.Patience);
        }
        else if (message is Bump)
        {
            _device.Write(0, size: 1, _device.State.Register + 1);
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

    /// <summary>Something comes from outside: the register is one more.</summary>
    public sealed record Bump;

    /// <summary>A host thread gets stuck inside the device.</summary>
    public sealed record Hang(ManualResetEventSlim Entered, ManualResetEventSlim Release);
}

/// <summary>An alarm handler that hangs the first time.</summary>
internal sealed class AlarmFaults
{
    private int _hung;

    public ManualResetEventSlim Release { get; } = new();
    public int Hung => Volatile.Read(ref _hung);

    public void MayHang()
    {
        if (Interlocked.CompareExchange(ref _hung, 1, 0) == 0) Release.Wait(VmFixture.Patience);
    }
}
