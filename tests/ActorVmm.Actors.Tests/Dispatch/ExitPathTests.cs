using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Dispatch;

public sealed class ExitPathTests
{
    [Fact]
    public void An_exit_through_bus_and_device_allocates_nothing()
    {
        using var rig = new ExitRig();
        long reads = -1, writes = -1;
        rig.AsVcpu(() =>
        {
            for (var i = 0; i < 50_000; i++) { rig.ReadThroughBus(); rig.PrintThroughBus((byte)i); } // warm-up: JIT and the mailbox's segments
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < 100_000; i++) rig.ReadThroughBus();
            reads = GC.GetAllocatedBytesForCurrentThread() - before;
            before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < 100_000; i++) rig.PrintThroughBus((byte)i);
            writes = GC.GetAllocatedBytesForCurrentThread() - before;
        });

        Assert.Equal(0, reads);
        Assert.Equal(0, writes);
    }
}
