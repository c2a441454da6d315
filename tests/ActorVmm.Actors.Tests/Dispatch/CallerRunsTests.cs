using System.Collections.Concurrent;
using Akka.Actor;
using Akka.Configuration;
using ActorVmm.Actors.Dispatch;
using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Tests.Dispatch;

public sealed class CallerRunsTests : IDisposable
{
    private readonly ActorSystem _system = ActorSystem.Create(
        "dispatch", ConfigurationFactory.ParseString("akka.loglevel = OFF").WithFallback(ActorSettings.Shipped));

    public void Dispose() => _system.Terminate().Wait(VmFixture.Patience);

    [Fact]
    public async Task An_exit_told_on_a_vcpu_thread_is_handled_there_before_tell_returns()
    {
        var actor = await SpawnAsync(static _ => { });
        var exit = new Exit();
        var thread = 0;

        OnVcpuThread(() =>
        {
            actor.Tell(exit);
            thread = exit.HandledOn;
            Assert.Equal(Environment.CurrentManagedThreadId, thread);
        });

        Assert.NotEqual(0, thread);
    }

    [Fact]
    public void This_akka_has_what_the_short_way_is_made_of() => Assert.True(MailboxAccess.IsComplete);

    [Fact]
    public async Task What_is_not_an_exit_or_not_told_on_a_vcpu_thread_goes_to_the_pool()
    {
        var handledOn = new BlockingCollection<int>();
        var actor = await SpawnAsync(message => { if (message is not Exit) handledOn.Add(Environment.CurrentManagedThreadId); });
        OnVcpuThread(() =>
        {
            actor.Tell("plain");
            Assert.True(handledOn.TryTake(out var thread, VmFixture.Patience));
            Assert.NotEqual(Environment.CurrentManagedThreadId, thread);
        });

        var exit = new Exit();
        actor.Tell(exit); // here, on a thread without a context
        Assert.True(exit.Handled.Wait(VmFixture.Patience));
    }

    [Fact]
    public async Task A_plain_message_told_by_an_inline_handler_does_not_inherit_the_permission()
    {
        var handledOn = new BlockingCollection<int>();
        var other = await SpawnAsync(_ => handledOn.Add(Environment.CurrentManagedThreadId));
        var actor = await SpawnAsync(message => { if (message is Exit) other.Tell("plain"); });

        OnVcpuThread(() =>
        {
            actor.Tell(new Exit());
            Assert.True(handledOn.TryTake(out var thread, VmFixture.Patience));
            Assert.NotEqual(Environment.CurrentManagedThreadId, thread);
        });
    }

    [Fact]
    public async Task What_another_thread_queues_while_an_exit_is_handled_runs_behind_it_on_the_same_thread()
    {
        var queued = new Exit();
        IActorRef? actor = null;
        actor = await SpawnAsync(message =>
        {
            if (message is not Exit { Number: 1 }) return;
            // A bell that rings while the device is at work: on a thread of its own, which finds the mailbox busy.
            OnVcpuThread(() => actor!.Tell(queued));
        });

        OnVcpuThread(() =>
        {
            actor.Tell(new Exit { Number = 1 });
            Assert.True(queued.Handled.IsSet); // already, and nobody else did it
            Assert.Equal(Environment.CurrentManagedThreadId, queued.HandledOn);
        });
    }

    /// <summary>Where a run has to repeat, nothing is left to the pool: not what a device tells itself, and not where the vCPU is wanted.</summary>
    [Fact]
    public async Task Under_virtual_time_a_device_does_all_that_it_has_to_do_before_its_guest_goes_on()
    {
        const int Hops = 5000;
        var threads = new ConcurrentDictionary<int, int>();
        var left = Hops;
        IActorRef? actor = null;
        actor = await SpawnAsync(_ =>
        {
            threads.AddOrUpdate(Environment.CurrentManagedThreadId, 1, static (_, before) => before + 1);
            if (--left > 0) actor!.Tell(new Exit());
        });

        var own = 0;
        OnVcpuThread(() =>
        {
            actor.Tell(new Exit());
            Assert.Equal(0, left);
            own = Environment.CurrentManagedThreadId;
        }, new CallerRunsContext(static () => true) { IsExact = true });
        Assert.Equal(KeyValuePair.Create(own, Hops), Assert.Single(threads));
    }

    [Fact]
    public async Task A_device_that_always_has_more_to_do_does_not_keep_the_thread()
    {
        var stop = false;
        var threads = new ConcurrentDictionary<int, int>();
        IActorRef? actor = null;
        actor = await SpawnAsync(_ =>
        {
            threads.AddOrUpdate(Environment.CurrentManagedThreadId, 1, static (_, before) => before + 1);
            if (!Volatile.Read(ref stop)) actor!.Tell(new Exit());
        });

        var own = 0;
        OnVcpuThread(() =>
        {
            actor.Tell(new Exit()); // comes back although the chain has no end
            own = Environment.CurrentManagedThreadId;
        });
        Assert.True(SpinWait.SpinUntil(() => threads.Count > 1, VmFixture.Patience)); // the pool goes on with it
        Volatile.Write(ref stop, true);
        Assert.InRange(threads[own], 1, 1 + 8 * (CallerRunsContext.FollowUpLimit + 1));
    }

    [Fact]
    public async Task A_chain_of_two_hundred_thousand_hops_needs_no_deeper_stack()
    {
        var peers = new IActorRef[2];
        var left = 200_000;
        var deepest = 0;
        for (var i = 0; i < 2; i++)
        {
            var next = 1 - i;
            peers[i] = await SpawnAsync(message =>
            {
                if (message is not Exit exit || left == 0) return;
                left--;
                if (left % 10_000 == 0) deepest = Math.Max(deepest, new System.Diagnostics.StackTrace(fNeedFileInfo: false).FrameCount);
                peers[next].Tell(exit);
            });
        }

        OnVcpuThread(() =>
        {
            peers[0].Tell(new Exit());
            // All of it inside the one Tell, unless the pool still held a mailbox that it has just started: then the pool ends the chain.
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref left) == 0, VmFixture.Patience));
        });

        Assert.InRange(deepest, 1, 60);
    }

    [Fact]
    public async Task Two_vcpus_and_two_pool_senders_are_never_two_in_the_actor_and_every_sender_keeps_its_order()
    {
        const int Each = 20_000;
        int inside = 0, intruders = 0, handled = 0, disorder = 0;
        var last = new int[4];
        var actor = await SpawnAsync(message =>
        {
            if (Interlocked.Increment(ref inside) > 1) Interlocked.Increment(ref intruders);
            var (sender, number) = message switch { Exit exit => (exit.Sender, exit.Number), ValueTuple<int, int> plain => plain, _ => (-1, 0) };
            if (sender >= 0)
            {
                if (number != last[sender] + 1) disorder++;
                last[sender] = number;
                handled++;
            }

            Interlocked.Decrement(ref inside);
        });

        var vcpus = Enumerable.Range(0, 2).Select(id => StartVcpuThread(() =>
        {
            for (var i = 1; i <= Each; i++)
            {
                var exit = new Exit { Sender = id, Number = i };
                actor.Tell(exit);
                Assert.True(exit.Handled.Wait(VmFixture.Patience));
            }
        })).ToArray();
        var pool = Enumerable.Range(2, 2).Select(id => Task.Run(() => { for (var i = 1; i <= Each; i++) actor.Tell((id, i)); })).ToArray();
        await Task.WhenAll([.. vcpus, .. pool]).WaitAsync(TimeSpan.FromMinutes(2));
        await VmFixture.EventuallyAsync(() => Volatile.Read(ref handled) == 4 * Each, "all are handled");

        Assert.Equal(0, intruders);
        Assert.Equal(0, disorder);
    }

    [Fact]
    public async Task Exits_that_an_actor_will_never_see_are_answered()
    {
        using var entered = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        var actor = await SpawnAsync(message =>
        {
            if (message is not "hold") return;
            entered.Set();
            release.Wait(VmFixture.Patience);
        });
        actor.Tell("hold");
        Assert.True(entered.Wait(VmFixture.Patience));
        var queued = new Exit();
        actor.Tell(queued);
        var stopped = actor.GracefulStop(VmFixture.Patience);
        release.Set();
        await stopped;
        Assert.True(SpinWait.SpinUntil(() => queued.Refused.IsSet || queued.Handled.IsSet, VmFixture.Patience));

        var late = new Exit();
        OnVcpuThread(() => actor.Tell(late));
        Assert.True(late.Refused.IsSet); // at once, on the telling thread
    }

    private async Task<IActorRef> SpawnAsync(Action<object> handler)
    {
        var parent = _system.ActorOf(Props.Create(() => new Parent()));
        var actor = await parent.Ask<IActorRef>(handler, VmFixture.Patience);
        await StartVcpuThread(() => WaitUntilIdle(actor)).WaitAsync(TimeSpan.FromMinutes(1));
        return actor;
    }

    /// <summary>A new actor is made on the pool, and messages told meanwhile are handled there: waits until that is over.</summary>
    private static void WaitUntilIdle(IActorRef actor)
    {
        using var late = new CancellationTokenSource(VmFixture.Patience);
        for (var inline = false; !inline;)
        {
            Assert.False(late.IsCancellationRequested, "a new actor's mailbox never became idle");
            var knock = new Knock();
            actor.Tell(knock);
            Assert.True(knock.Handled.Wait(VmFixture.Patience));
            inline = knock.HandledOn == Environment.CurrentManagedThreadId;
        }
    }

    private static void OnVcpuThread(Action body, CallerRunsContext? context = null) => StartVcpuThread(body, context).WaitAsync(TimeSpan.FromMinutes(1)).GetAwaiter().GetResult();

    private static Task StartVcpuThread(Action body, CallerRunsContext? context = null)
    {
        var done = new TaskCompletionSource();
        new Thread(() =>
        {
            try { (context ?? new CallerRunsContext(static () => false)).Bind(body); done.SetResult(); }
            catch (Exception failure) { done.SetException(failure); }
        }) { IsBackground = true }.Start();
        return done.Task;
    }

    private sealed class Exit : ISyncExit
    {
        public int Sender { get; init; } = -1;
        public int Number { get; init; }
        public int HandledOn { get; set; }
        public ManualResetEventSlim Handled { get; } = new();
        public ManualResetEventSlim Refused { get; } = new();

        public void Undeliverable() => Refused.Set();
    }

    /// <summary>Asks where the actor's mailbox runs; its handler does not see it.</summary>
    private sealed class Knock : ISyncExit
    {
        public int HandledOn { get; set; }
        public ManualResetEventSlim Handled { get; } = new();

        public void Undeliverable() { }
    }

    /// <summary>Devices are children: a top-level actor's first messages would wait in a cell that is not started.</summary>
    private sealed class Parent : UntypedActor
    {
        protected override void OnReceive(object message)
        {
            if (message is not Action<object> handler) return;
            var props = Props.Create(() => new Child(handler));
            Sender.Tell(Context.ActorOf(props.WithDispatcher(ActorSettings.CallerRunsDispatcher).WithMailbox(ActorSettings.ExitMailbox)));
        }
    }

    private sealed class Child(Action<object> handler) : UntypedActor
    {
        protected override void OnReceive(object message)
        {
            if (message is Knock knock)
            {
                knock.HandledOn = Environment.CurrentManagedThreadId;
                knock.Handled.Set();
                return;
            }

            handler(message);
            if (message is not Exit exit) return;
            exit.HandledOn = Environment.CurrentManagedThreadId;
            exit.Handled.Set();
        }
    }
}
