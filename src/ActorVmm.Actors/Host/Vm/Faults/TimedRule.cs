using ActorVmm.Devices.Faults;

namespace ActorVmm.Actors.Host.Vm.Faults;

/// <summary>When a rule that the clock fires is due next.</summary>
internal sealed class TimedRule(FaultRule rule, FaultEngine engine)
{
    private readonly FaultStream _stream = new(engine.Plan.Seed, $"clock/{rule.Name}");
    private ulong _turn;
    private ulong _fired;

    public FaultRule Rule { get; } = rule;

    /// <summary>Machine time; <see cref="ulong.MaxValue"/> where it is never due again, or not before the console has shown something.</summary>
    public ulong Next()
    {
        if (_fired >= (Rule.Times ?? (Rule.Period is null ? 1 : ulong.MaxValue)) || (Rule.Period is null && _turn > 0)) return ulong.MaxValue;
        if (engine.SeenAt(Rule.AfterConsole) is not { } seen) return ulong.MaxValue;
        var at = (UInt128)seen + Rule.From + ((UInt128)_turn * (Rule.Period ?? 0));
        return at >= (UInt128)seen + Rule.Until || at >= ulong.MaxValue ? ulong.MaxValue : (ulong)at;
    }

    /// <summary>It is due: the firing, or null where chance is against it.</summary>
    public (ulong Request, ulong Draw)? Take()
    {
        _turn++;
        if (!_stream.Chance(Rule.Probability)) return null;
        _fired++;
        return (_turn, _stream.Next());
    }
}
