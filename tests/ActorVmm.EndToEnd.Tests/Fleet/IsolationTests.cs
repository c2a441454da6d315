using System.Diagnostics;
using System.Globalization;
using System.Text;
using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
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
            foreach (var guest in others) guest.Type("while :; do echo t''ick; sleep 1; done\n");
            foreach (var guest in others) await guest.ExpectAsync("tick");

            // A device: it crashes at its next access and is restarted; its guest does not notice either.
            await fleet.Get(victim.Name).Handle!
                .InjectAsync(new FaultRule { Kind = FaultKind.ActorCrash, Name = "crash", Device = "serial0", Times = 1 });
            victim.Type("echo al''ive\n");
            await victim.ExpectAsync("alive");
            Assert.Equal(1, fleet.Get(victim.Name).Readings.Devices.Single(device => device.Name == "serial0").Restarts);
            await TickAsync(others);
            // A vCPU: its VM ends as failed, and comes back, because its policy says so.
            system.ActorSelection($"/user/host/{victim.Name}/vcpus/0").Tell(Kill.Instance);
            await UntilAsync(() => fleet.Get(victim.Name).Status is { State: VmState.Running, Restarts: 1 }, fleet, victim);
            await TickAsync(others);
            // The VM itself.
            system.ActorSelection($"/user/host/{victim.Name}").Tell(Kill.Instance);
            await UntilAsync(() => fleet.Get(victim.Name).Status is { State: VmState.Running, Restarts: 2 }, fleet, victim);
            await TickAsync(others);

            foreach (var guest in others) Assert.Equal((VmState.Running, 1),
                (fleet.Get(guest.Name).Status.State, fleet.Get(guest.Name).Status.Runs));
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{count} guests beside the victim; longest silence of a guest that speaks every second: {others.Max(guest => guest.LongestSilence).TotalSeconds:F2} s"));
            foreach (var vm in fleet.All) await fleet.RemoveAsync(vm.Name, force: true).WaitAsync(Shell.CommandDeadline);
            Assert.Empty(fleet.All);
        }

        await system.Terminate();
    }

    /// <summary>Each of them says something within a time that a loaded machine can keep.</summary>
    private static async Task TickAsync(IEnumerable<Guest> guests)
    {
        foreach (var guest in guests) await guest.ExpectAsync("tick");
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
        private long _last;

        public string Name => name;
        public TimeSpan LongestSilence { get; private set; }

        public async Task StartAsync(VmFleet fleet, GuestFiles files)
        {
            await fleet.DefineAsync(new VmDefinition(
                RunningGuest.Spec(files.Image, memoryMib: 128) with { Name = name }, static () => new SoftHypervisor(),
                    new VmConsole(_console, _console))
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
                    var now = Stopwatch.GetTimestamp();
                    if (_last != 0 && text == "tick" && Stopwatch.GetElapsedTime(_last, now) is var silence
                        && silence > LongestSilence) LongestSilence = silence;
                    _last = now;
                    return;
                }

                await more.WaitAsync(Shell.BootDeadline);
            }
        }
    }
}
