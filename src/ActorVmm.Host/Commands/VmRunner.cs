using System.Globalization;
using ActorVmm.Actors;
using ActorVmm.Boot;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Firecracker;
using ActorVmm.Host.Logging;
using ActorVmm.Host.Terminal;
using ActorVmm.Hypervisor;
using ActorVmm.Hypervisor.Kvm;
using Akka.Configuration;
using Serilog;

namespace ActorVmm.Host.Commands;

/// <summary>
/// Runs one VM on this process's terminal: raw mode, signals, console in and out, log, closing line, exit code. The order of the end is
/// what matters: the guest's output is out, the terminal is back, and only then the closing line is written.
/// </summary>
internal sealed class VmRunner(HostServices services, ConsoleDescriptors descriptors)
{
    private const string Help =
        "Ctrl-A X  leave (power off)\r\nCtrl-A A  send Ctrl-A to the guest (also Ctrl-A Ctrl-A)\r\nCtrl-A H  this help\r\n";

    // A VM that does not stop in this time is left behind: the user wants the prompt back.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    // As often as Firecracker writes its metrics.
    private static readonly TimeSpan s_flush = TimeSpan.FromSeconds(60);

    private readonly TextWriter _errors = descriptors.Errors;

    /// <param name="description">What to run.</param>
    /// <param name="verbose">Debug log on stderr.</param>
    /// <param name="greeting">Hold input back until the guest has printed this; null to let it flow at once.</param>
    /// <param name="observer">Hears when the guest runs, or why it does not.</param>
    /// <param name="serialOut">A file that takes the guest's serial output instead of standard output.</param>
    public async Task<int> RunAsync(
        VmDescription description, bool verbose, string? greeting = null, IRunObserver? observer = null, string? serialOut = null)
    {
        Config settings;
        LoggingSettings logging;
        try
        {
            settings = OperatorSettings.Load();
            logging = LoggingSettings.From(settings);
        }
        catch (ConfigurationException wrong)
        {
            return Fail(ExitCodes.BadDescription, wrong.Message);
        }
        var interactive = Libc.IsTerminal(descriptors.Input);
        using var log = HostLog.Create(logging, verbose, description.Log, rawTerminal: interactive);
        using var serial = serialOut is null ? null : File.OpenHandle(serialOut, FileMode.Append, FileAccess.Write, FileShare.ReadWrite);
        var output = new ConsoleOutput(serial is null ? descriptors.Output : (int)serial.DangerousGetHandle());
        using var metrics = new FirecrackerMetrics(TimeProvider.System);
        if (description.MetricsPath is { } metricsPath && metrics.Open(metricsPath) is { } fault)
            return Fail(ExitCodes.BadDescription, $"metrics.metrics_path = {metricsPath}: {fault}");
        using var flushing = description.MetricsPath is null ? null : new Timer(_ => metrics.Flush(), null, s_flush, s_flush);
        // Virtual time: the script is all there before the first instruction, so that its arrival does not depend on the host.
        byte[]? script = null;
        if (!interactive && description.Clock == ClockMode.Virtual && (script = InputPump.ReadScript(descriptors.Input)) is null)
            return Fail(ExitCodes.BadArguments,
                string.Create(CultureInfo.InvariantCulture, $"the script is longer than {InputPump.LongestScript} bytes"));
        var input = new ConsoleQueue(Math.Max(ConsoleQueue.Capacity, (script?.Length ?? 0) + 1), held: greeting is not null);
        if (greeting is not null)
            output.OnMarker(System.Text.Encoding.ASCII.GetBytes(greeting), input.Release);
        if (script is not null)
            input.Feed(script);

        using var run = new Run(description, interactive ? TerminalMode.Enter(descriptors.Input) : null, descriptors);
        output.OnClosed(run.Stop);
        try
        {
            var hypervisor = services.Hypervisors.Select(description.Hypervisor, out var reason);
            log.Information("Hypervisor {Hypervisor}: {Reason}", hypervisor.Name, reason);
            if (services.Hypervisors.DoubtAbout(description.Hypervisor) is { } doubt)
                log.Warning("{Hypervisor} was asked for, but its probe says: {Verdict}", hypervisor.Name, doubt.Verdict);
            if (!description.Cpu.IsEmpty)
            {
                if (hypervisor is not ICpuTemplateHypervisor able)
                {
                    run.RestoreTerminal();
                    return Fail(ExitCodes.BadDescription,
                        $"cpu-config: changes the CPU that KVM shows, and '{hypervisor.Name}' cannot ({reason}); allowed is {{}} or null, "
                        + "or run it with --hypervisor kvm");
                }
                hypervisor = able.With(description.Cpu);
            }
            log.Information("Starting {Vm} on {Hypervisor}: {Vcpus} vCPU, {MemoryMib} MiB, clock {Clock}, kernel {Kernel}",
                description.Name, hypervisor.Name, description.Vcpus, description.MemoryMib, description.Clock, description.Kernel.Path);
            log.Debug("Command line of {Vm}: {CommandLine}", description.Name, description.Kernel.CommandLine);
            var host = services.VmHosts.Create(settings, log, verbose);
            try
            {
                var handle = await host.StartAsync(description.ToSpec(), hypervisor, new VmConsole(output, input));
                run.Started(handle);
                observer?.Started(handle);
                metrics.Readings = () => handle.Readings;
                if (script is null)
                    StartPump(interactive, input, run);
                var outcome = await run.CompletionAsync(Patience);
                return Finish(run, outcome, log);
            }
            finally
            {
                input.Close();
                await DisposeAsync(host, log);
            }
        }
        catch (BootException malformed)
        {
            run.RestoreTerminal();
            observer?.Failed(malformed);
            return Fail(ExitCodes.BadDescription, malformed.Message);
        }
        catch (Exception failure)
        {
            run.RestoreTerminal();
            observer?.Failed(failure);
            log.Debug(failure, "The VM could not be started");
            return Fail(run.SignalStatus ?? ExitCodes.Failure, failure.Message);
        }
    }

    private void StartPump(bool interactive, ConsoleQueue input, Run run)
    {
        var pump = new InputPump(descriptors.Input, input, interactive ? new EscapeKeys() : null);
        pump.Lost = run.Stop;
        pump.Requested = request =>
        {
            if (request == EscapeRequest.Leave)
                run.Stop();
            else
                _errors.Write("\r\n" + Help);
        };
        pump.Start();
    }

    private int Finish(Run run, VmOutcome? outcome, ILogger log)
    {
        run.RestoreTerminal();
        if (outcome is null)
        {
            _errors.WriteLine("stopped: failed: the VM did not stop in time and was left behind");
            return run.SignalStatus ?? ExitCodes.Failure;
        }
        log.Information("{Vm} stopped: {Reason} {Detail}; {RetiredInstructions} instructions retired",
            run.Name, outcome.Reason, outcome.Detail, outcome.RetiredInstructions);
        _errors.WriteLine($"stopped: {outcome.Text}");
        return run.SignalStatus ?? outcome.ExitCode;
    }

    private static async Task DisposeAsync(IVmHost host, ILogger log)
    {
        try
        {
            await host.DisposeAsync().AsTask().WaitAsync(Patience);
        }
        catch (Exception late)
        {
            log.Warning(late, "The actor system did not end in order");
        }
    }

    private int Fail(int code, string message)
    {
        _errors.WriteLine($"actorvmm: {message}");
        return code;
    }

    /// <summary>One run's terminal, signals and VM.</summary>
    private sealed class Run : IDisposable
    {
        private readonly TerminalMode? _terminal;
        private readonly SignalGuard _signals;
        private readonly TaskCompletionSource _stopping = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly ConsoleDescriptors _descriptors;
        private IVmHandle? _vm;

        public Run(VmDescription description, TerminalMode? terminal, ConsoleDescriptors descriptors)
        {
            (Name, _terminal, _descriptors) = (description.Name, terminal, descriptors);
            _signals = new SignalGuard(terminal, OnSignal, descriptors.Exit);
        }

        public string Name { get; }
        public int? SignalStatus => _signals.ExitStatus;

        public void Started(IVmHandle vm)
        {
            Volatile.Write(ref _vm, vm);
            if (_stopping.Task.IsCompleted)
                vm.Stop(); // asked for while it was being built
        }

        /// <summary>Asks the VM to stop. Any thread.</summary>
        public void Stop()
        {
            _stopping.TrySetResult();
            Volatile.Read(ref _vm)?.Stop();
        }

        private void OnSignal()
        {
            if (Volatile.Read(ref _vm) is null)
            {
                // Nothing runs yet, and building may take a while: end now.
                _terminal?.Dispose();
                _descriptors.Errors.WriteLine("stopped: requested");
                _descriptors.Exit(_signals.ExitStatus ?? ExitCodes.Failure);
            }
            Stop();
        }

        /// <summary>How the VM ended; null where it was asked to and did not in time.</summary>
        public async Task<VmOutcome?> CompletionAsync(TimeSpan patience)
        {
            var completion = _vm!.Completion;
            if (await Task.WhenAny(completion, _stopping.Task) == completion)
                return await completion;
            try
            {
                return await completion.WaitAsync(patience);
            }
            catch (TimeoutException)
            {
                return null;
            }
        }

        public void RestoreTerminal() => _terminal?.Dispose();

        public void Dispose() => _signals.Dispose();
    }
}

/// <summary>The process's own descriptors; tests pass others.</summary>
/// <param name="Input">0, or what stands for it.</param>
/// <param name="Output">1, or what stands for it.</param>
/// <param name="Errors">stderr.</param>
/// <param name="Exit">Ends the process at once.</param>
internal sealed record ConsoleDescriptors(int Input, int Output, TextWriter Errors, Action<int> Exit)
{
    public static ConsoleDescriptors OfProcess()
    {
        // At its first use .NET's console switches the terminal to application cursor keys and leaves it so (terminfo: smkx). It learns how
        // from TERM; nothing else here needs that.
        Environment.SetEnvironmentVariable("TERM", null);
        return new(0, 1, Console.Error, Environment.Exit);
    }
}
