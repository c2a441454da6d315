using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Devices.Faults;
using ActorVmm.Devices.Power;

namespace ActorVmm.Actors.Host.Vm.Faults;

/// <summary>What a device's effects pass on their way out where a plan has rules for them: interrupts get lost or late, bytes too.</summary>
/// <param name="target">Where effects go.</param>
/// <param name="faults">The VM's.</param>
/// <param name="interrupts">Rules for levels.</param>
/// <param name="console">Rules for bytes.</param>
internal sealed class FaultyTarget(IEffectTarget target, VmFaults faults, FaultSite interrupts, FaultSite console) : IEffectTarget
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, (bool Level, int Change)> _wanted = [];

    /// <inheritdoc/>
    public void SetInterruptLine(int gsi, bool level)
    {
        int change;
        lock (_lock)
        {
            change = _wanted.GetValueOrDefault(gsi).Change + 1;
            _wanted[gsi] = (level, change);
        }

        if (level && interrupts.IsArmed && !Rises(gsi, change)) return;
        target.SetInterruptLine(gsi, level);
    }

    /// <inheritdoc/>
    public void WriteConsole(ReadOnlySpan<byte> bytes)
    {
        if (!console.IsArmed)
        {
            target.WriteConsole(bytes);
            return;
        }

        Span<byte> out1 = stackalloc byte[1];
        foreach (var value in bytes)
        {
            out1[0] = value;
            if (Passes(ref out1[0])) target.WriteConsole(out1);
        }
    }

    /// <inheritdoc/>
    public void Signal(PowerEvent signal) => target.Signal(signal);

    private bool Rises(int gsi, int change)
    {
        var happening = new FaultEvent(Direction: null, First: (ulong)gsi);
        foreach (var hit in interrupts.Fire(happening))
        {
            if (hit.Rule.Kind == FaultKind.IrqLost)
            {
                interrupts.Report(hit, happening, $"line {gsi} stays low");
                return false;
            }

            var delay = hit.Rule.Delay!.Value;
            interrupts.Report(hit, happening, $"line {gsi} rises {delay} ns late");
            faults.At(faults.Engine.Now + delay, () => RiseLate(gsi, change));
            return false;
        }

        return true;
    }

    private void RiseLate(int gsi, int change)
    {
        lock (_lock)
        {
            // Only where the device has not changed its mind in the meantime.
            if (_wanted.GetValueOrDefault(gsi) != (true, change)) return;
        }

        target.SetInterruptLine(gsi, true);
    }

    private bool Passes(ref byte value)
    {
        var happening = new FaultEvent("tx", First: value);
        foreach (var hit in console.Fire(happening))
        {
            if (hit.Rule.Kind == FaultKind.SerialDrop)
            {
                console.Report(hit, happening, "dropped");
                return false;
            }

            var flipped = (byte)(value ^ (1 << (int)(hit.Draw & 7)));
            console.Report(hit, happening, $"0x{value:x2} becomes 0x{flipped:x2}");
            value = flipped;
        }

        return true;
    }
}
