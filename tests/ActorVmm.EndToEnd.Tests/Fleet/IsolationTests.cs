using System.Diagnostics;
using System.Globalization;
using System.Text;
using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
using ActorVmm.Devices;
using ActorVmm.Devices.Faults;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Fleet;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing;
using Akka.Actor;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>
/// Linux guests of 128 MiB in one process under one supervisor: what happens to one of them, the others do not notice; 64 beside the victim
/// in the nightly run.
/// </summary>
[Collection(LinuxGuests.Name)]
public sealed class IsolationTests(GuestFiles files, ITestOutputHelper output)
{
    [Fact]
    public async Task A_crash_of_a_device_a_vcpu_or_a_vm_leaves_all_others_running()
    {
        var count = (int)Nightly.Count(always: 4, nightly: 64);
        using var system = ActorSystem.Create("fleet",
            Akka.Configuration.ConfigurationFactory.ParseString("akka.loglevel = OFF\n" + SilentLogger.Hocon));
        await using (var host = VmHost.Attach(system))
        {
            var fleet = new VmFleet(system, host);
            var guests = new List<Guest>();
            var empty = Proportional();
            for (var i = 0; i <= count; i++) guests.Add(new Guest($"vm-{i}"));
            await Parallel.ForEachAsync(guests, new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount },
                async (guest, _) =>
                {
                    await guest.StartAsync(fleet, files);
                    await guest.ExpectAsync("# ");
                });
            output.WriteLine($"{guests.Count} guests of 128 MiB are at their prompts");
            var victim = guests[^1];
            var others = guests[..^1];
            foreach (var guest in others) guest.Type("i=0; while :; do echo t''ick$i; i=$((i + 1)); sleep 1; done\n");
            await TickAsync(others);
            await PrintAsync("nothing happens", others);
            var ram = fleet.All.Sum(vm => (long)vm.Readings.ResidentBytes);
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"memory beyond guest RAM (PSS): {(Proportional() - empty - ram) / 1048576.0 / guests.Count:F2} MiB per VM"));

            // A device: it crashes at its next access and is restarted; its guest does not notice either.
            await fleet.Get(victim.Name).Handle!
                .InjectAsync(new FaultRule { Kind = FaultKind.ActorCrash, Name = "crash", Device = "serial0", Times = 1 });
            victim.Type("echo al''ive\n");
            await victim.ExpectAsync("alive");
            Assert.Equal(1, fleet.Get(victim.Name).Readings.Devices.Single(device => device.Name == "serial0").Restarts);
            await PrintAsync("a device crashed", others);
            // A vCPU: its VM ends as failed, and comes back, because its policy says so.
            system.ActorSelection($"/user/host/{victim.Name}/vcpus/0").Tell(Kill.Instance);
            await UntilAsync(() => fleet.Get(victim.Name).Status is { State: VmState.Running, Restarts: 1 }, fleet, victim);
            await PrintAsync("a vCPU crashed", others);
            // The VM itself.
            system.ActorSelection($"/user/host/{victim.Name}").Tell(Kill.Instance);
            await UntilAsync(() => fleet.Get(victim.Name).Status is { State: VmState.Running, Restarts: 2 }, fleet, victim);
            await PrintAsync("a VM crashed", others);

            foreach (var guest in others)
            {
                var status = fleet.Get(guest.Name).Status;
                Assert.Equal((VmState.Running, 1, 0), (status.State, status.Runs, status.Resets));
                Assert.Equal(0, guest.Watch.Lost);
            }

            foreach (var vm in fleet.All) await fleet.RemoveAsync(vm.Name, force: true).WaitAsync(Shell.CommandDeadline);
            Assert.Empty(fleet.All);
        }

        await system.Terminate();
    }

    /// <summary>Each of them says something twice more, within a time that a loaded machine can keep.</summary>
    private static async Task TickAsync(List<Guest> guests)
    {
        foreach (var guest in guests) guest.Watch.Begin();
        foreach (var guest in guests) await guest.Watch.Twice.WaitAsync(Shell.BootDeadline);
    }

    private async Task PrintAsync(string what, List<Guest> guests)
    {
        await TickAsync(guests);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{guests.Count} guests that speak every second, while {what}: ")
            + string.Create(CultureInfo.InvariantCulture, $"longest silence {guests.Max(guest => guest.Watch.LongestSilence).TotalSeconds:F2} s"));
    }

    /// <summary>Resident bytes of this process; what it shares with others, divided by their number.</summary>
    private static long Proportional()
    {
        GC.Collect();
        var line = File.ReadLines("/proc/self/smaps_rollup").First(line => line.StartsWith("Pss:", StringComparison.Ordinal));
        return long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10;
    }

    private static async Task UntilAsync(Func<bool> condition, VmFleet fleet, Guest victim)
    {
        using var late = new CancellationTokenSource(Shell.BootDeadline);
        foreach (var _ in Enumerable.Range(0, int.MaxValue))
        {
            if (condition()) return;
            Assert.False(late.IsCancellationRequested, $"{fleet.Get(victim.Name).Status}");
            await Task.Delay(20, CancellationToken.None);
        }
    }

    private sealed class Guest(string name)
    {
        private readonly ConsoleHub _console = new();
        private long _position;
        private string _rest = "";

        public string Name => name;
        public TickWatch Watch => field ??= new TickWatch(_console);

        public async Task StartAsync(VmFleet fleet, GuestFiles files)
        {
            await fleet.DefineAsync(new VmDefinition(
                RunningGuest.Spec(files.Image, memoryMib: 128, more: "reboot=k loglevel=1") with { Name = name }, static () => new SoftHypervisor(),
                    new VmConsole(Watch, _console))
            {
                Restart = RestartPolicy.Never with { Mode = RestartMode.OnFailure, BackOff = TimeSpan.FromMilliseconds(10) },
            });
            await fleet.StartAsync(name);
        }

        public void Type(string text) => _console.TypeAsync(Encoding.ASCII.GetBytes(text), CancellationToken.None).GetAwaiter().GetResult();

        public async Task ExpectAsync(string text)
        {
            var buffer = new byte[16 << 10];
            while (true)
            {
                var more = _console.Printed;
                int got;
                while ((got = _console.Read(ref _position, buffer, out _)) > 0) _rest += Encoding.Latin1.GetString(buffer, 0, got);
                if (_rest.IndexOf(text, StringComparison.Ordinal) is var at and >= 0)
                {
                    _rest = _rest[(at + text.Length)..];
                    return;
                }

                await more.WaitAsync(Shell.BootDeadline);
            }
        }
    }

    /// <summary>
    /// Hears each byte when it is printed: <c>tick0</c>, <c>tick1</c>, ... must come without one missing, and how long it takes is noted.
    /// </summary>
    private sealed class TickWatch(ConsoleHub console) : IByteSink
    {
        private readonly Lock _gate = new();
        private readonly StringBuilder _line = new();
        private TaskCompletionSource _twice = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private long _next;
        private long _last;
        private int _heard;

        public int Lost { get; private set; }
        public TimeSpan LongestSilence { get; private set; }
        public Task Twice => _twice.Task;

        /// <summary>A new count: of the ticks that come now, and of the silence from now on.</summary>
        public void Begin()
        {
            lock (_gate)
            {
                (_heard, LongestSilence, _last) = (0, TimeSpan.Zero, Stopwatch.GetTimestamp());
                _twice = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }
        }

        public void Write(ReadOnlySpan<byte> bytes)
        {
            console.Write(bytes);
            lock (_gate)
            {
                foreach (var value in bytes)
                {
                    if (value != '\n') { _line.Append((char)value); continue; }
                    OnLine(_line.ToString().TrimEnd('\r'));
                    _line.Clear();
                }
            }
        }

        private void OnLine(string line)
        {
            const string Tick = "tick";
            if (!line.StartsWith(Tick, StringComparison.Ordinal)
                || !long.TryParse(line.AsSpan(Tick.Length), NumberStyles.None, CultureInfo.InvariantCulture, out var number)) return;
            if (number != _next) Lost++;
            _next = number + 1;
            var silence = Stopwatch.GetElapsedTime(_last);
            if (silence > LongestSilence) LongestSilence = silence;
            _last = Stopwatch.GetTimestamp();
            if (++_heard == 2) _twice.TrySetResult();
        }
    }
}
