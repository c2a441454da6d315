using Akka.Configuration;
using ActorVmm.Actors.Host.Vm;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests;

/// <summary>A host with scripted guests, and the words that the tests' stories are told in.</summary>
internal sealed class VmFixture : IAsyncDisposable
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    public VmFixture(string hocon = "", NoKernel? loader = null)
    {
        Loader = loader ?? new NoKernel();
        Host = VmHost.Create(ConfigurationFactory.ParseString("akka.loglevel = " + (Environment.GetEnvironmentVariable("ACTORVMM_TEST_LOG") is { } level ? $"{level}\nakka.stdout-loglevel = {level}\n" : "OFF\n") + hocon), Loader);
    }

    public VmHost Host { get; }
    public NoKernel Loader { get; }
    public ScriptedConsole Console { get; } = new();

    public static VmSpec Spec(string name = "vm", int vcpus = 1) =>
        new() { Name = name, Kernel = new KernelSpec { Path = "none" }, MemoryMib = 1, Vcpus = vcpus };

    public Task<IVmHandle> StartAsync(ScriptedHypervisor hypervisor, VmSpec? spec = null, IExitHandler? handler = null, params DeviceFactory[] devices) =>
        Host.StartAsync(spec ?? Spec(vcpus: 1), hypervisor, Console.Console, handler, devices).WaitAsync(Patience);

    /// <summary>Starts, and waits for the end.</summary>
    public async Task<VmOutcome> RunAsync(ScriptedHypervisor hypervisor, VmSpec? spec = null, IExitHandler? handler = null, params DeviceFactory[] devices)
    {
        var vm = await StartAsync(hypervisor, spec, handler, devices);
        return await vm.Completion.WaitAsync(Patience);
    }

    /// <summary>Waits until <paramref name="condition"/> holds.</summary>
    public static async Task EventuallyAsync(Func<bool> condition, string what)
    {
        using var late = new CancellationTokenSource(Patience);
        while (!condition())
        {
            if (late.IsCancellationRequested) Assert.Fail($"not within {Patience}: {what}");
            await Task.Delay(1, CancellationToken.None);
        }
    }

    public async ValueTask DisposeAsync() => await Host.DisposeAsync().AsTask().WaitAsync(Patience);
}
