using System.Diagnostics;
using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Actors.Fleet;
using ActorVmm.EndToEnd.Tests.Harness;
using ActorVmm.Host.Fleet;
using ActorVmm.Hypervisor.Soft;
using ActorVmm.Testing;
using ActorVmm.Testing.Guests;
using Akka.Actor;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Fleet;

/// <summary>
/// VMs that are killed at random, over and over: each comes back as its policy says, what is shown of it is right, and what is counted is
/// exact. A guest prints one byte in each of its lives, so its console is a second count of them.
/// </summary>
[Collection(LinuxGuests.Name)]
public sealed class RestartSoakTests(ITestOutputHelper output) : IDisposable
{
    private const int Vms = 16;
    private const int Workers = 4;

    private readonly string _here = Directory.CreateTempSubdirectory("actorvmm-soak-").FullName;

    public void Dispose() => Directory.Delete(_here, recursive: true);

    [Fact]
    public async Task Vms_killed_at_random_come_back_and_states_and_counts_are_right()
    {
        var kernel = Path.Combine(_here, "tiny");
        await File.WriteAllBytesAsync(kernel, HaltingKernel.Elf());
        using var system = ActorSystem.Create("soak",
            Akka.Configuration.ConfigurationFactory.ParseString("akka.loglevel = OFF\n" + SilentLogger.Hocon));
        await using (var host = VmHost.Attach(system))
        {
            var fleet = new VmFleet(system, host, new FleetLimits(MaxVms: Vms, MaxMemoryMib: Vms * 2));
            var victims = Enumerable.Range(0, Vms).Select(id => new Victim(fleet, $"vm-{id}", kernel)).ToList();
            foreach (var victim in victims) await victim.StartAsync();
            var over = Stopwatch.StartNew();
            var (most, least) = Nightly.Wanted ? (TimeSpan.FromMinutes(10), 1) : (TimeSpan.Zero, 40);
            await Task.WhenAll(Enumerable.Range(0, Workers).Select(worker => Task.Run(async () =>
            {
                var random = new Random(worker);
                for (var kills = 0; kills < least || over.Elapsed < most; kills++)
                    await victims[worker + Workers * random.Next(Vms / Workers)].KillAsync(system, random);
            })));

            foreach (var victim in victims) victim.AssertCounts();
            var noticed = victims.Max(victim => victim.LongestUntilNoticed);
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{victims.Sum(victim => victim.Kills)} kills of {Vms} VMs in {over.Elapsed.TotalSeconds:F0} s: the longest until the state was right ")
                + string.Create(CultureInfo.InvariantCulture, $"{noticed.TotalMilliseconds:F0} ms, until a VM was back ")
                + string.Create(CultureInfo.InvariantCulture, $"{victims.Max(victim => victim.LongestUntilBack).TotalMilliseconds:F0} ms"));
            Assert.InRange(noticed, TimeSpan.Zero, TimeSpan.FromSeconds(Nightly.Wanted ? 1 : 60)); // elsewhere the machine may be busy
            foreach (var victim in victims) await fleet.RemoveAsync(victim.Name, force: true).WaitAsync(Shell.CommandDeadline);
            Assert.Empty(fleet.All);
        }

        await system.Terminate();
    }

    /// <summary>One VM, and how often it must have lived.</summary>
    private sealed class Victim(VmFleet fleet, string name, string kernel)
    {
        // In a loaded machine a poll may be late by more than anything that is measured: such a gap is the host's, and counts as this.
        private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(50);

        private readonly ConsoleHub _console = new(ringBytes: 4096);
        private int _restarts;
        private int _starts;

        public string Name => name;
        public int Kills { get; private set; }
        public TimeSpan LongestUntilNoticed { get; private set; }
        public TimeSpan LongestUntilBack { get; private set; }

        private VmStatus Status => fleet.Get(name).Status;

        /// <summary>It runs, is shown to run, and has spoken in as many lives as it has had.</summary>
        private bool IsAlive => Status is { State: VmState.Running } now && now.Runs == _starts + _restarts && _console.Total == now.Runs;

        public async Task StartAsync()
        {
            await fleet.DefineAsync(new VmDefinition(
                new VmSpec { Name = name, MemoryMib = 2, Kernel = new KernelSpec { Path = kernel, CommandLine = "" } },
                static () => new SoftHypervisor(), new VmConsole(_console, _console))
            {
                Restart = new RestartPolicy(RestartMode.OnFailure, BackOff: TimeSpan.FromMilliseconds(10),
                    MaxBackOff: TimeSpan.FromMilliseconds(10), Limit: 1000, HealthyAfter: TimeSpan.Zero),
            });
            await StartAgainAsync();
            await UntilAsync(() => IsAlive);
        }

        public async Task KillAsync(ActorSystem system, Random random)
        {
            Kills++;
            var before = Status.Runs;
            string[] parts = ["", "/vcpus/0", "/bus", "/events", "/vcpus"];
            var part = random.Next(parts.Length + 1);
            if (part == parts.Length)
            {
                // An operator's kill is no failure: it stays as it was left.
                Assert.Equal(VmState.Stopped, (await fleet.KillAsync(name).WaitAsync(Shell.CommandDeadline)).State);
                Assert.Equal(_restarts, Status.Restarts);
                await StartAgainAsync();
            }
            else
            {
                _restarts++;
                system.ActorSelection($"/user/host/{name}{parts[part]}").Tell(Kill.Instance);
                var noticed = await UntilAsync(() => Status is not { State: VmState.Running } now || now.Runs != before);
                if (noticed > LongestUntilNoticed) LongestUntilNoticed = noticed;
            }

            var back = await UntilAsync(() => IsAlive);
            if (back > LongestUntilBack) LongestUntilBack = back;
            AssertCounts();
        }

        public void AssertCounts()
        {
            var status = Status;
            Assert.Equal((VmState.Running, _restarts, _starts + _restarts, 0), (status.State, status.Restarts, status.Runs, status.Resets));
            Assert.Equal(status.Runs, _console.Total);
        }

        private async Task StartAgainAsync()
        {
            _starts++;
            Assert.Equal(VmState.Running, (await fleet.StartAsync(name).WaitAsync(Shell.CommandDeadline)).State);
        }

        private async Task<TimeSpan> UntilAsync(Func<bool> condition)
        {
            var waited = TimeSpan.Zero;
            for (var last = Stopwatch.GetTimestamp(); !condition(); last = Stopwatch.GetTimestamp())
            {
                Assert.True(waited < Shell.CommandDeadline, $"{Status}, {_console.Total} lives seen, {_starts} + {_restarts} expected");
                await Task.Delay(1);
                var gap = Stopwatch.GetElapsedTime(last);
                waited += gap < s_poll ? gap : s_poll;
            }

            return waited;
        }
    }
}
