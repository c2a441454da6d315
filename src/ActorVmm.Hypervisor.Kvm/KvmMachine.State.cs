using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>Save, restore, reset.</summary>
public sealed partial class KvmMachine
{
    // KVM_GET_IRQCHIP's numbers (kvm/api.rst §4.26).
    private static readonly (string Name, uint Id)[] IrqChips = [("pic0", 0), ("pic1", 1), ("ioapic", 2)];
    private const string Pit = "pit";
    private const string GuestClock = "clock";

    private KvmClockData? _stoppedClock;
    private KvmTime? _stoppedTime;

    /// <inheritdoc/>
    public void PauseClock()
    {
        _stoppedClock ??= ReadGuestClock();
        _stoppedTime ??= KvmTime.Of(Msrs, _vcpus);
        ClockImplementation.Pause();
    }

    /// <inheritdoc/>
    public void ResumeClock()
    {
        // Before the paravirtual clock, which is reckoned from the counters.
        _stoppedTime?.GoOn(_vcpus);
        _stoppedTime = null;
        if (_stoppedClock is { } clock)
        {
            // The paravirtual clock goes on from where it stood, and its guest is told, so that its watchdogs stay calm; a guest without
            // one refuses.
            _vm.Call(KvmApi.KVM_SET_CLOCK, ref clock, nameof(KvmApi.KVM_SET_CLOCK));
            foreach (var vcpu in _vcpus) _ = Libc.Ioctl(vcpu.File, KvmApi.KVM_KVMCLOCK_CTRL, (nuint)0);
        }
        _stoppedClock = null;
        ClockImplementation.Resume();
    }

    /// <inheritdoc/>
    public MachineState Save()
    {
        var chips = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        foreach (var (name, id) in IrqChips)
        {
            var chip = new KvmIrqChip { ChipId = id };
            _vm.Call(KvmApi.KVM_GET_IRQCHIP, ref chip, nameof(KvmApi.KVM_GET_IRQCHIP));
            chips[name] = Bytes(chip);
        }
        var pit = new KvmPitState();
        _vm.Call(KvmApi.KVM_GET_PIT2, ref pit, nameof(KvmApi.KVM_GET_PIT2));
        chips[Pit] = Bytes(pit);
        chips[GuestClock] = Bytes(_stoppedClock ?? ReadGuestClock());
        return new MachineState("kvm", ClockImplementation.Nanoseconds, chips,
            [.. _vcpus.Select(vcpu => _stoppedTime?.Correct(vcpu.GetState(), vcpu.Id) ?? vcpu.GetState())]);
    }

    /// <inheritdoc/>
    public void Restore(MachineState state)
    {
        if (state.Hypervisor != "kvm") throw new HypervisorException($"a state saved by '{state.Hypervisor}' cannot be restored by 'kvm'");
        if (state.Vcpus.Count != _vcpus.Length)
            throw new HypervisorException($"the state has {state.Vcpus.Count} vCPUs, this machine has {_vcpus.Length}");
        var known = IrqChips.Select(chip => chip.Name).Append(Pit).Append(GuestClock).ToHashSet(StringComparer.Ordinal);
        if (state.Chips.Keys.FirstOrDefault(name => !known.Contains(name)) is { } unknown)
            throw new HypervisorException($"the state has a part '{unknown}' that this machine lacks");
        ApplyChips(state);
        var clock = Part<KvmClockData>(state, GuestClock);
        _vm.Call(KvmApi.KVM_SET_CLOCK, ref clock, nameof(KvmApi.KVM_SET_CLOCK));
        if (_stoppedClock is not null) _stoppedClock = clock;
        ClockImplementation.Set(state.ClockNanoseconds);
        foreach (var vcpu in _vcpus) vcpu.SetState(state.Vcpus[vcpu.Id]);
        if (_stoppedTime is not null) _stoppedTime = KvmTime.Of(Msrs, state);
    }

    /// <inheritdoc/>
    public void Reset()
    {
        ApplyChips(_powerOn);
        foreach (var vcpu in _vcpus) vcpu.SetState(_powerOn.Vcpus[vcpu.Id]);
    }

    private KvmClockData ReadGuestClock()
    {
        var clock = new KvmClockData();
        _vm.Call(KvmApi.KVM_GET_CLOCK, ref clock, nameof(KvmApi.KVM_GET_CLOCK));
        return new KvmClockData { Clock = clock.Clock }; // the flags describe the host, and SET_CLOCK refuses most of them
    }

    private void ApplyChips(MachineState state)
    {
        // The timer first: loading a counter moves its line, which the controllers' own state then overrides.
        var pit = Part<KvmPitState>(state, Pit);
        _vm.Call(KvmApi.KVM_SET_PIT2, ref pit, nameof(KvmApi.KVM_SET_PIT2));
        foreach (var (name, id) in IrqChips)
        {
            var chip = Part<KvmIrqChip>(state, name);
            chip.ChipId = id;
            _vm.Call(KvmApi.KVM_SET_IRQCHIP, ref chip, nameof(KvmApi.KVM_SET_IRQCHIP));
        }
    }

    private static byte[] Bytes<T>(T value) where T : unmanaged
    {
        var bytes = new byte[Unsafe.SizeOf<T>()];
        MemoryMarshal.Write(bytes, value);
        return bytes;
    }

    private static T Part<T>(MachineState state, string name) where T : unmanaged
    {
        if (!state.Chips.TryGetValue(name, out var bytes)) throw new HypervisorException($"the state lacks the part '{name}'");
        if (bytes.Length != Unsafe.SizeOf<T>())
            throw new HypervisorException($"the state's part '{name}' has {bytes.Length} bytes instead of {Unsafe.SizeOf<T>()}");
        return MemoryMarshal.Read<T>(bytes);
    }
}
