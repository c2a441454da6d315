using System.Diagnostics;
using Akka.Actor;
using Akka.Event;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Host.Vm.Devices;
using ActorVmm.Actors.Host.Vm.Vcpus;
using ActorVmm.Devices.Faults;
using ActorVmm.Memory;

namespace ActorVmm.Actors.Host.Vm.Faults;

/// <summary>
/// <c>faults</c>: what the clock alone fires. It hangs on the machine's alarm like a device, so that under virtual time each firing comes at
/// the same instruction in every run. Faults at devices fire where they happen, at the devices' sites.
/// </summary>
internal sealed class FaultsActor : UntypedActor
{
    private const ulong DriftStep = 1_000_000; // ns: a clock that runs fast gains in steps of this length

    private readonly VmFaults _faults;
    private readonly AlarmClock _alarms;
    private readonly IEffectTarget _lines;
    private readonly int _alarm;
    private readonly List<TimedRule> _rules = [];
    private readonly ILoggingAdapter _log = Context.GetLogger();
    private int _thread; // that is inside OnAlarm; 0 for none
    private bool _again;

    public static Props Props(VmFaults faults, AlarmClock alarms, IEffectTarget lines) =>
        Made.By(() => new FaultsActor(faults, alarms, lines));

    public FaultsActor(VmFaults faults, AlarmClock alarms, IEffectTarget lines)
    {
        _faults = faults;
        _alarms = alarms;
        _lines = lines;
        _alarm = alarms.Register();
    }

    /// <inheritdoc/>
    protected override void PreStart()
    {
        var self = Self;
        _alarms.Attach(_alarm, self);
        foreach (var rule in _faults.Engine.Rules) Adopt(rule);
        _faults.Engine.Added += rule => self.Tell(new RuleAdded(rule));
        _faults.Engine.Healed += () => AskRearm(self);
        _faults.Engine.Seen += () => AskRearm(self);
        _faults.OnRearm(() => AskRearm(self));
        SetAlarm();
    }

    /// <summary>
    /// What this actor's own handler has changed it sees before it ends. A message to itself would be handled by another thread, while the
    /// guest runs on: at another instruction in each run.
    /// </summary>
    private void AskRearm(IActorRef self)
    {
        if (Volatile.Read(ref _thread) == Environment.CurrentManagedThreadId) _again = true;
        else self.Tell(Rearm.Instance);
    }

    /// <inheritdoc/>
    protected override void PostStop() => _alarms.Set(_alarm, ulong.MaxValue);

    /// <inheritdoc/>
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case AlarmRang: OnAlarm(); break;
            case Rearm: OnAlarm(); break; // something may be due at once
            case RuleAdded added: Adopt(added.Rule); OnAlarm(); break;
            case UnitProtocol.Inspect: Sender.Tell(new UnitProtocol.Inspected(Inspect())); break;
            case UnitProtocol.Save: Sender.Tell(new UnitProtocol.Saved(Self.Path.Name, State: null)); break;
            case UnitProtocol.Start or UnitProtocol.Stop or UnitProtocol.Reset or UnitProtocol.Restore:
                SetAlarm(); // a machine that was reset has forgotten its alarm
                Sender.Tell(new UnitProtocol.Done(Self.Path.Name));
                break;
            default: Unhandled(message); break;
        }
    }

    private void Adopt(FaultRule rule)
    {
        if (rule.IsTimed) _rules.Add(new TimedRule(rule, _faults.Engine));
    }

    private void OnAlarm()
    {
        Volatile.Write(ref _thread, Environment.CurrentManagedThreadId);
        try
        {
            do
            {
                _again = false;
                FireDue();
            }
            while (_again);
            SetAlarm();
        }
        finally
        {
            Volatile.Write(ref _thread, 0);
        }
    }

    private void FireDue()
    {
        var engine = _faults.Engine;
        var now = engine.Now;
        if (engine.Plan.HealAt is { } heal && now >= heal) engine.Heal();
        _faults.RunDue(now);
        foreach (var rule in _rules)
        {
            while (!engine.IsHealed && rule.Next() <= now)
                if (rule.Take() is { } hit) Fire(rule.Rule, hit.Request, hit.Draw);
        }
    }

    private void SetAlarm()
    {
        var engine = _faults.Engine;
        var next = _faults.Deadline;
        if (!engine.IsHealed)
        {
            next = Math.Min(next, engine.Plan.HealAt ?? ulong.MaxValue);
            foreach (var rule in _rules) next = Math.Min(next, rule.Next());
        }

        _alarms.Set(_alarm, next);
    }

    private void Fire(FaultRule rule, ulong request, ulong draw)
    {
        switch (rule.Kind)
        {
            case FaultKind.IrqSpurious: Spurious(rule, request); break;
            case FaultKind.ClockJump: Jump(rule, request, rule.Delay!.Value); break;
            case FaultKind.ClockDrift: Drift(rule, request, _faults.Engine.Now + rule.For!.Value); break;
            case FaultKind.MemoryBitFlip: FlipBit(rule, request, draw); break;
            case FaultKind.VcpuPause:
                Report(rule, request, $"vcpu{rule.Vcpu ?? 0}", $"stays out of the guest for {rule.For} ns of host time");
                Context.Parent.Tell(new VcpuProtocol.Hold(rule.Vcpu ?? 0, Host(rule.For!.Value)));
                break;
            case FaultKind.VcpuSlow:
                Report(rule, request, $"vcpu{rule.Vcpu ?? 0}", FormattableString.Invariant($"{rule.Factor} times slower for {rule.For} ns of host time"));
                Context.Parent.Tell(new VcpuProtocol.Slow(rule.Vcpu ?? 0, rule.Factor!.Value, Host(rule.For!.Value)));
                break;
            case FaultKind.NetLinkFlap: Flap(rule, request); break;
            case FaultKind.HostKill:
                Report(rule, request, "host", "killed");
                Process.GetCurrentProcess().Kill(); // SIGKILL: no handler, no flush
                break;
            default: throw new InvalidOperationException($"{rule.Kind} is not fired by the clock");
        }
    }

    private void Spurious(FaultRule rule, ulong request)
    {
        var gsi = rule.Gsi!.Value;
        var high = _lines is EffectTarget target && target.LevelOf(gsi);
        Report(rule, request, $"gsi{gsi}", high ? "the line is up already" : "rises and falls");
        if (high) return;
        _lines.SetInterruptLine(gsi, true);
        _lines.SetInterruptLine(gsi, false);
    }

    private void Jump(FaultRule rule, ulong request, ulong by)
    {
        var moved = _faults.Machine.Clock.TryAdvance(by);
        Report(rule, request, "clock", moved ? $"jumps ahead by {by} ns" : "cannot be moved under this hypervisor");
    }

    private void Drift(FaultRule rule, ulong request, ulong until)
    {
        Report(rule, request, "clock", FormattableString.Invariant($"runs {rule.Factor} times as fast until {until}"));
        var gain = (ulong)((rule.Factor!.Value - 1) * DriftStep);
        void Step()
        {
            if (_faults.Engine.IsHealed || _faults.Engine.Now >= until || !_faults.Machine.Clock.TryAdvance(gain)) return;
            _faults.At(_faults.Engine.Now + DriftStep, Step);
        }

        _faults.At(_faults.Engine.Now + DriftStep, Step);
    }

    private void FlipBit(FaultRule rule, ulong request, ulong draw)
    {
        var (first, last) = (rule.First!.Value, rule.Last!.Value);
        var at = new GuestAddress(first + (ulong)(((UInt128)draw * (last - first + 1)) >> 64));
        var bit = (int)(draw & 7);
        var memory = _faults.Machine.Memory;
        if (!memory.TrySliceForWrite(at, 1, out var bytes))
        {
            Report(rule, request, "memory", $"there is no RAM at {at}");
            return;
        }

        bytes[0] ^= (byte)(1 << bit);
        memory.Written(at, 1);
        Report(rule, request, "memory", $"bit {bit} of {at} flips");
    }

    private void Flap(FaultRule rule, ulong request)
    {
        foreach (var (device, link) in _faults.Links.ToArray())
        {
            if (rule.Device is not FaultRule.AnyDevice && !string.Equals(rule.Device, device, StringComparison.Ordinal)) continue;
            Report(rule, request, device, $"the cable is out for {rule.For} ns");
            link(false);
            _faults.At(_faults.Engine.Now + rule.For!.Value, () => link(true));
        }
    }

    private void Report(FaultRule rule, ulong request, string device, string outcome)
    {
        _log.Debug("fault {0} at {1}: {2}", rule.Name, device, outcome);
        _faults.Engine.Report(rule, device, request, new FaultEvent(Direction: null), outcome);
    }

    private static TimeSpan Host(ulong nanoseconds) => TimeSpan.FromTicks((long)Math.Min(nanoseconds / 100, (ulong)TimeSpan.MaxValue.Ticks / 2));

    private InspectNode Inspect() => new(Self.Path.Name, new SortedDictionary<string, string>(StringComparer.Ordinal)
    {
        ["seed"] = $"{_faults.Engine.Plan.Seed}",
        ["rules"] = $"{_faults.Engine.Rules.Count}",
        ["firings"] = $"{_faults.Engine.Firings}",
        ["healed"] = _faults.Engine.IsHealed ? "yes" : "no",
    });

    private sealed record RuleAdded(FaultRule Rule) : ISyncExit
    {
        public void Undeliverable() { /* The VM has ended. */ }
    }

    private sealed record Rearm : ISyncExit
    {
        public static readonly Rearm Instance = new();

        public void Undeliverable() { /* The VM has ended. */ }
    }
}
