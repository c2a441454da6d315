using System.Diagnostics;
using ActorVmm.Actors;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Logging;
using ActorVmm.Hypervisor;
using Akka.Actor;
using Akka.Configuration;
using Akka.Event;
using Serilog;
using Serilog.Core;
using Serilog.Events;
using LogEvent = Serilog.Events.LogEvent;

namespace ActorVmm.Host.Tests.Logging;

public sealed class LoggingTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    [Fact]
    public void The_shipped_file_says_what_the_defaults_are() =>
        Assert.Equal(LoggingSettings.Default, LoggingSettings.From(OperatorSettings.Load(Path.Combine(Repository.Root, "akka.hocon"))));

    [Fact]
    public void Every_key_of_the_shipped_section_is_read()
    {
        var changed = LoggingSettings.From(ConfigurationFactory.ParseString(
            "actorvmm.logging { console-level = off, file = a.json, file-level = error, file-size-limit-mib = 1, retained-files = 2 }"));
        Assert.Equal(new LoggingSettings(null, "a.json", LogEventLevel.Error, 1, 2), changed);

        var shipped = OperatorSettings.Load(Path.Combine(Repository.Root, "akka.hocon")).GetConfig("actorvmm.logging").Root.GetObject().Items.Keys;
        Assert.Equal(["console-level", "file", "file-level", "file-size-limit-mib", "retained-files"], shipped.Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData("console-level = loud", "console-level = loud: allowed is verbose"), InlineData("retained-files = 0", "from 1 to 1000")]
    [InlineData("file-size-limit-mib = big", "from 1 to 65536")]
    public void A_bad_value_is_named_with_what_is_allowed(string line, string expected)
    {
        var wrong = Assert.Throws<ConfigurationException>(() => LoggingSettings.From(ConfigurationFactory.ParseString($"actorvmm.logging {{ {line} }}")));
        Assert.Contains(expected, wrong.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_settings_file_that_is_missing_or_no_HOCON_is_named()
    {
        Assert.Contains("cannot be read", Assert.Throws<ConfigurationException>(() => OperatorSettings.Load(Path.Combine(_here.Path, "none"))).Message, StringComparison.Ordinal);
        var bad = _here.Write("bad.hocon", "a = \"\\q\"");
        Assert.Contains("is not HOCON", Assert.Throws<ConfigurationException>(() => OperatorSettings.Load(bad)).Message, StringComparison.Ordinal);
    }

    private sealed class CollectingSink : ILogEventSink
    {
        private readonly List<LogEvent> _events = [];
        public TaskCompletionSource<LogEvent> Wanted { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public void Emit(LogEvent logEvent)
        {
            lock (_events)
                _events.Add(logEvent);
            if (logEvent.RenderMessage().Contains("the disk is full", StringComparison.Ordinal))
                Wanted.TrySetResult(logEvent);
        }
    }

    private sealed class Complainer : ReceiveActor
    {
        public Complainer() => Receive<string>(text => Context.GetLogger().Warning(text));
    }

    private sealed class NamedParent : ReceiveActor
    {
        public NamedParent(string[] names) => Receive<string>(text =>
        {
            var rest = names.Skip(1).ToArray();
            var child = names.Length == 0 ? Context.ActorOf(Props.Create<Complainer>(), "blk0") : Context.ActorOf(Props.Create(() => new NamedParent(rest)), names[0]);
            child.Tell(text);
        });
    }

    private sealed class NoVms(ActorSystem system) : IVmHost
    {
        public Task<IVmHandle> StartAsync(VmSpec spec, IHypervisor hypervisor, VmConsole console, IExitHandler? exitHandler = null)
        {
            system.ActorOf(Props.Create(() => new NamedParent(new[] { "web", "devices" })), "host").Tell("the disk is full");
            return Task.FromException<IVmHandle>(new HypervisorException("none"));
        }

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }

    [Fact]
    public async Task Akkas_log_reaches_Serilog_with_the_VM_and_the_actor_path()
    {
        var sink = new CollectingSink();
        await using var log = new LoggerConfiguration().MinimumLevel.Verbose().Enrich.With<ActorPathEnricher>().WriteTo.Sink(sink).CreateLogger();
        await using var host = new AkkaVmHostFactory((system, _) => new NoVms(system)).Create(ConfigurationFactory.ParseString("akka.loglevel = INFO"), log, verbose: false);
        await Assert.ThrowsAsync<HypervisorException>(() => host.StartAsync(new VmSpec { Name = "x", Kernel = new KernelSpec { Path = "k" } },
            new FakeHypervisor("soft"), new VmConsole(null!, null!)));

        var heard = await sink.Wanted.Task.WaitAsync(TimeSpan.FromSeconds(90));
        Assert.Equal(LogEventLevel.Warning, heard.Level);
        Assert.Equal("\"web\"", heard.Properties["Vm"].ToString());
        Assert.Equal("\"/user/host/web/devices/blk0 \"", heard.Properties["ActorPath"].ToString());
    }

    [Fact]
    public async Task Akka_writes_nothing_to_standard_output_even_where_it_logs_everything()
    {
        var start = new ProcessStartInfo("dotnet", [typeof(LoggingTests).Assembly.Location, "akka"]) { RedirectStandardOutput = true };
        using var program = Process.Start(start)!;
        Assert.Equal("", await program.StandardOutput.ReadToEndAsync());
        await program.WaitForExitAsync();
        Assert.Equal(0, program.ExitCode);
    }

    [Fact]
    public void The_file_for_machines_is_compact_JSON_and_the_descriptions_file_is_for_people()
    {
        var json = Path.Combine(_here.Path, "log.json");
        var text = Path.Combine(_here.Path, "vm.log");
        var settings = LoggingSettings.Default with { ConsoleLevel = null, File = json };
        using (var log = HostLog.Create(settings, verbose: false, new LogDescription(text, "warning", ShowLevel: true), rawTerminal: false))
        {
            log.ForContext("Vm", "web").Debug("quiet {Number}", 7);
            log.ForContext("Vm", "web").Error("loud");
            log.ForContext("ActorPath", "akka://actorvmm/deadLetters").Warning("lost");
        }
        var lines = File.ReadAllLines(json);
        Assert.Equal(3, lines.Length);
        using var first = System.Text.Json.JsonDocument.Parse(lines[0]);
        Assert.Equal(("quiet {Number}", 7, "web"), (first.RootElement.GetProperty("@mt").GetString(), first.RootElement.GetProperty("Number").GetInt32(), first.RootElement.GetProperty("Vm").GetString()));
        Assert.Collection(File.ReadAllLines(text),
            line => Assert.EndsWith("[web:Error] loud", line, StringComparison.Ordinal),
            line => Assert.EndsWith("akka://actorvmm/deadLetters lost", line, StringComparison.Ordinal));
    }
}
