using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text;
using System.Text.Json;
using ActorVmm.Host.Api;
using ActorVmm.Host.Client;
using ActorVmm.Host.Fleet;

namespace ActorVmm.Host.Commands;

/// <summary>The commands about many VMs: the daemon, and the clients of its API.</summary>
internal sealed class HostCommands(HostServices services, ConsoleDescriptors descriptors, TextWriter output, Option<bool> verbose)
{
    private readonly Option<string?> _socket = SocketOption();

    private readonly Option<bool> _json = new("--json") { Description = "For machines: what the API says." };

    /// <summary>All of them.</summary>
    public IEnumerable<Command> All() =>
    [
        HostDaemonCommand(), Ps(), Create(),
        Many("start", "Starts VMs, and returns when their guests run.", "start"),
        Stop(), Many("kill", "Cuts the power of VMs.", "kill"), Restart(),
        Many("pause", "Stops vCPUs and clock of VMs.", "pause"), Many("resume", "Lets paused VMs go on.", "resume"),
        Rm(), Logs(), ConsoleCommand(), Top(), Tree(), Inspect(), Events(), Pulse(), Link(), Inject(), Reload(),
    ];

    private Command HostDaemonCommand()
    {
        var config = new Option<string?>("--config", "-c") { Description = "The description of host and VMs (HOCON; *.json: JSON).",
            HelpName = "FILE" };
        var port = new Option<int?>("--tcp-port") { Description = "The API on 127.0.0.1 too; needs --token-file.", HelpName = "N" };
        Require(port, static value => value is >= 0 and <= 65535, "0 to 65535; 0 takes any that is free");
        var token = new Option<string?>("--token-file") { Description = "First line: the bearer token for TCP.", HelpName = "FILE" };
        var check = new Option<bool>("--check") { Description = "Only validates the description." };
        var command = new Command("host", "Runs many VMs under one supervisor, as a daemon with an API.") { config, port, token, check,
            _socket };
        Examples.Of(command, "actorvmm host --config config/fleet.conf", "actorvmm host -c config/fleet.conf --check",
            "actorvmm host --socket /run/vms.sock --tcp-port 8080 --token-file /etc/actorvmm/token");
        command.SetAction((parsed, _) =>
        {
            var file = parsed.GetValue(config);
            if (parsed.GetValue(check)) return Task.FromResult(Check(file));
            return new HostDaemon(services, descriptors).RunAsync(new HostOptions(file, parsed.GetValue(_socket), parsed.GetValue(port),
                parsed.GetValue(token), parsed.GetValue(verbose)));
        });
        return command;
    }

    private int Check(string? file)
    {
        if (file is null)
        {
            descriptors.Errors.WriteLine("actorvmm: --check needs --config FILE");
            return ExitCodes.BadArguments;
        }

        try
        {
            var description = FleetReader.ReadFile(file);
            descriptors.Errors.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{file}: valid: {description.Vms.Count} VMs, {description.Vms.Sum(vm => (long)vm.Vm.MemoryMib)} MiB"));
            return ExitCodes.Success;
        }
        catch (Descriptions.DescriptionException wrong)
        {
            descriptors.Errors.WriteLine(wrong.Message);
            return ExitCodes.BadDescription;
        }
    }

    private Command Ps()
    {
        var names = new Option<bool>("--names") { Description = "Only the names, one per line." };
        var command = Client("ps", "Lists VMs: state, uptime, restarts, CPU, memory, last cause.", [names], async (host, parsed, cancel) =>
        {
            if (parsed.GetValue(_json)) { await PrintAsync(await host.TextAsync(HttpMethod.Get, "/vms",
                cancel: cancel).ConfigureAwait(false)).ConfigureAwait(false); return; }
            var vms = await host.CallAsync(HttpMethod.Get, "/vms", ApiJson.Default.IReadOnlyListVmView,
                cancel: cancel).ConfigureAwait(false);
            await output.WriteAsync(parsed.GetValue(names) ? string.Concat(vms.Select(vm => vm.Name + "\n")) : Output.Vms(vms))
                .ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm ps", "actorvmm ps --json");
    }

    private Command Create()
    {
        var file = new Argument<string>("FILE") { Description = "A VM's description in JSON; - reads standard input." };
        var start = new Option<bool>("--start") { Description = "Starts it too." };
        var command = Client("create", "Adds a VM to a running host.", [file, start], async (host, parsed, cancel) =>
        {
            var path = parsed.GetValue(file)!;
            byte[] bytes;
            try
            {
                bytes = path == "-" ? Encoding.UTF8.GetBytes(await Console.In.ReadToEndAsync(cancel).ConfigureAwait(false))
                    : await File.ReadAllBytesAsync(path, cancel).ConfigureAwait(false);
            }
            catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
            {
                throw new HostClientException(ExitCodes.BadDescription, $"{path} cannot be read: {cannot.Message}", cannot);
            }

            using var body = new ByteArrayContent(bytes);
            await ShowAsync(parsed, await host.CallAsync(HttpMethod.Post, $"/vms?start={(parsed.GetValue(start) ? "true" : "false")}&directory="
                + Uri.EscapeDataString(path == "-" ? Environment.CurrentDirectory : Path.GetDirectoryName(Path.GetFullPath(path))!),
                ApiJson.Default.VmView, body, cancel).ConfigureAwait(false), "created").ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm create vm.json --start");
    }

    private Command Many(string verb, string what, string path, params Option[] options)
    {
        var names = Named(new Argument<string[]>("VM") { Description = "Names of VMs.", Arity = ArgumentArity.OneOrMore });
        var command = Client(verb, what, [names, .. options], (host, parsed, cancel) =>
            EachAsync(host, parsed, parsed.GetValue(names)!, HttpMethod.Post,
                name => $"/vms/{Uri.EscapeDataString(name)}/{path}{Query(parsed)}", verb, cancel));
        return Examples.Of(command, $"actorvmm {verb} web-0 web-1");
    }

    private readonly Option<string?> _deadline = new("--deadline", "-t")
    {
        Description = "How long the guest has before its power is cut, e.g. 10s; 0s cuts at once.", HelpName = "TIME",
    };

    private string Query(ParseResult parsed) =>
        parsed.CommandResult.Command.Options.Contains(_deadline)
            && parsed.GetValue(_deadline) is { } time ? $"?deadline={Uri.EscapeDataString(time)}" : "";

    private Command Stop() =>
        Examples.Of(Many("stop", "Asks guests to end in order (power button, Ctrl-Alt-Del), then cuts their power.", "stop", _deadline),
        "actorvmm stop web-0", "actorvmm stop web-0 web-1 --deadline 30s");

    private Command Restart() =>
        Examples.Of(Many("restart", "Stops and starts VMs; a changed description takes effect.", "restart", _deadline),
        "actorvmm restart web-0");

    private Command Rm()
    {
        var names = Named(new Argument<string[]>("VM") { Description = "Names of VMs.", Arity = ArgumentArity.OneOrMore });
        var force = new Option<bool>("--force", "-f") { Description = "Kills VMs that run." };
        var command = Client("rm", "Removes VMs.", [names, force],
            (host, parsed, cancel) => EachAsync(host, parsed, parsed.GetValue(names)!,
            HttpMethod.Delete, name => $"/vms/{Uri.EscapeDataString(name)}?force={(parsed.GetValue(force) ? "true" : "false")}", "rm",
                cancel));
        return Examples.Of(command, "actorvmm rm web-0", "actorvmm rm --force web-0");
    }

    private Command Logs()
    {
        var name = VmArgument();
        var follow = new Option<bool>("--follow", "-f") { Description = "Goes on until Ctrl-C." };
        var tail = new Option<long?>("--tail", "-n") { Description = "Only the last N lines.", HelpName = "N" };
        Require(tail, static value => value is >= 0, "0 or more");
        var command = Client("logs", "Prints what a VM's console has printed, from its first byte.", [name, follow, tail],
            async (host, parsed, cancel) =>
        {
            var query = $"?follow={(parsed.GetValue(follow) ? "true" : "false")}"
                + (parsed.GetValue(tail) is { } bytes ? string.Create(CultureInfo.InvariantCulture, $"&lines={bytes}") : "");
            if (parsed.GetValue(_json))
            {
                // One string per line of the console, so that it can be followed as well.
                var lines = new LineSplitter();
                Task PrintLineAsync(string line) => PrintAsync(JsonSerializer.Serialize(line, ApiJson.Default.String));
                await host.StreamAsync($"/vms/{Escape(parsed, name)}/logs{query}", async piece =>
                {
                    foreach (var line in lines.Take(piece.Span)) await PrintLineAsync(line).ConfigureAwait(false);
                    await output.FlushAsync(cancel).ConfigureAwait(false);
                }, cancel).ConfigureAwait(false);
                if (lines.Rest is { Length: > 0 } rest) await PrintLineAsync(rest).ConfigureAwait(false);
                return;
            }

            await host.StreamAsync($"/vms/{Escape(parsed, name)}/logs{query}", WriteOutAsync, cancel).ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm logs web-0", "actorvmm logs -f web-0", "actorvmm logs --tail 20 web-0");
    }

    private Command ConsoleCommand()
    {
        var name = VmArgument();
        var replay = new Option<long?>("--replay") { Description = "Begins with the last N bytes (default: all that is kept).",
            HelpName = "N" };
        Require(replay, static value => value is >= 0, "0 or more");
        var command = Client("console", "Attaches to a VM's console; Ctrl-A X detaches, and the VM runs on.", [name, replay],
            (host, parsed, cancel) =>
            new ConsoleClient(descriptors).RunAsync(host, parsed.GetValue(name)!, parsed.GetValue(replay), parsed.GetValue(_json), cancel));
        return Examples.Of(command, "actorvmm console web-0", "echo uname -r | actorvmm console --replay 0 web-0",
            "echo uname -r | actorvmm console --json --replay 0 web-0");
    }

    private Command Top()
    {
        var count = new Option<int>("--iterations", "-n") { Description = "How many times; 0 goes on until Ctrl-C.", HelpName = "N" };
        var period = new Option<double>("--period", "-d") { Description = "Seconds between them.", HelpName = "SECONDS",
            DefaultValueFactory = _ => 1 };
        Require(count, static value => value >= 0, "0 or more");
        Require(period, static value => value is > 0 and <= 3600, "more than 0 and up to 3600 seconds");
        var command = Client("top", "Shows what VMs do, live: CPU, exits per second, memory, restarts.", [count, period],
            (host, parsed, cancel) =>
            new TopView(output, isLive: Terminal.Libc.IsTerminal(descriptors.Output)).RunAsync(host, parsed.GetValue(count),
                TimeSpan.FromSeconds(Math.Max(parsed.GetValue(period), 0.05)), parsed.GetValue(_json), cancel));
        return Examples.Of(command, "actorvmm top", "actorvmm top -n 1 --json");
    }

    private Command Tree()
    {
        var command = Client("tree", "Prints the live supervision tree: states, restarts, failures, mailbox depths.", [],
            async (host, parsed, cancel) =>
        {
            if (parsed.GetValue(_json)) { await PrintAsync(await host.TextAsync(HttpMethod.Get, "/tree",
                cancel: cancel).ConfigureAwait(false)).ConfigureAwait(false); return; }
            await output.WriteAsync(Output
                .Tree(await host.CallAsync(HttpMethod.Get, "/tree", ApiJson.Default.NodeView, cancel: cancel).ConfigureAwait(false)))
                    .ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm tree");
    }

    private Command Inspect()
    {
        var path = new Argument<string>("PATH") { Description = "An actor's path; /user/host/ at its start may be left out." };
        var command = Client("inspect", "Prints the state and the registers of an actor and of what is below it.", [path],
            async (host, parsed, cancel) =>
        {
            var query = $"/inspect?path={Uri.EscapeDataString(parsed.GetValue(path)!)}";
            if (parsed.GetValue(_json)) { await PrintAsync(await host.TextAsync(HttpMethod.Get, query,
                cancel: cancel).ConfigureAwait(false)).ConfigureAwait(false); return; }
            await output.WriteAsync(Output
                .Inspect(await host.CallAsync(HttpMethod.Get, query, ApiJson.Default.NodeView, cancel: cancel).ConfigureAwait(false)))
                    .ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm inspect web-0/vcpus/0", "actorvmm inspect /user/host/web-0/devices/serial0");
    }

    private Command Events()
    {
        var follow = new Option<bool>("--follow", "-f") { Description = "Goes on until Ctrl-C." };
        var vm = new Option<string?>("--vm") { Description = "Only of this VM.", HelpName = "VM" };
        var command = Client("events", "Prints what has happened: starts, ends, restarts of VMs and devices.", [follow, vm],
            async (host, parsed, cancel) =>
        {
            var query = $"/events?follow={(parsed.GetValue(follow) ? "true" : "false")}"
                + (parsed.GetValue(vm) is { } name ? $"&vm={Uri.EscapeDataString(name)}" : "");
            var printer = new EventPrinter(output, parsed.GetValue(_json));
            if (parsed.GetValue(follow)) await host.StreamAsync(query, printer.TakeAsync, cancel).ConfigureAwait(false);
            else await printer.PrintAllAsync(await host.TextAsync(HttpMethod.Get, query, cancel: cancel).ConfigureAwait(false))
                .ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm events", "actorvmm events -f --vm web-0");
    }

    private Command Pulse()
    {
        var name = VmArgument();
        var command = Client("pulse", "Pauses, saves, resets, restores and resumes a VM in place, and prints how long it stood still.",
            [name], async (host, parsed, cancel) =>
        {
            var pulse = await host.CallAsync(HttpMethod.Post, $"/vms/{Escape(parsed, name)}/pulse", ApiJson.Default.PulseView,
                cancel: cancel).ConfigureAwait(false);
            if (parsed.GetValue(_json)) await PrintAsync(JsonSerializer.Serialize(pulse, ApiJson.Default.PulseView)).ConfigureAwait(false);
            else await output.WriteLineAsync(string.Create(CultureInfo.InvariantCulture,
                $"{parsed.GetValue(name)}: stood still for {pulse.PauseMilliseconds:F3} ms")).ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm pulse web-0");
    }

    private Command Link()
    {
        var name = VmArgument();
        var device = new Argument<string>("DEVICE") { Description = "A network interface: net0, net1, ..." };
        var state = new Argument<string>("STATE") { Description = "up or down." };
        state.AcceptOnlyFromAmong("up", "down");
        var command = Client("link", "Pulls the cable of a VM's network interface, or puts it in.", [name, device, state],
            async (host, parsed, cancel) =>
        {
            var path = $"/vms/{Escape(parsed, name)}/link/{Escape(parsed, device)}?state={Escape(parsed, state)}";
            var link = await host.CallAsync(HttpMethod.Post, path, ApiJson.Default.LinkView, cancel: cancel).ConfigureAwait(false);
            if (parsed.GetValue(_json)) await PrintAsync(JsonSerializer.Serialize(link, ApiJson.Default.LinkView)).ConfigureAwait(false);
            else await output.WriteLineAsync($"{link.Vm}: {link.Device} {link.State}").ConfigureAwait(false);
        });
        return Examples.Of(command, "actorvmm link web-0 net0 down", "actorvmm link web-0 net0 up");
    }

    private Command Inject()
    {
        var name = VmArgument();
        var rule = new Argument<string?>("RULE")
        {
            Description = "A rule of the faults section, for example 'kind = actor-crash, device = blk0, every = 100'.", Arity = ArgumentArity.ZeroOrOne,
        };
        var heal = new Option<bool>("--heal") { Description = "End all faults of the VM instead." };
        var command = Client("inject", "Makes something go wrong in a VM that runs; config/faults.conf shows every rule.", [name, rule, heal],
            async (host, parsed, cancel) =>
            {
                var path = $"/vms/{Escape(parsed, name)}/faults";
                if (parsed.GetValue(heal)) await host.TextAsync(HttpMethod.Delete, path, cancel: cancel).ConfigureAwait(false);
                else await host.TextAsync(HttpMethod.Post, path, new StringContent(parsed.GetValue(rule)!), cancel).ConfigureAwait(false);
                if (parsed.GetValue(_json))
                    await PrintAsync(JsonSerializer.Serialize(
                        new InjectView(parsed.GetValue(name)!, parsed.GetValue(rule), parsed.GetValue(heal)),
                        ApiJson.Default.InjectView)).ConfigureAwait(false);
            });
        command.Validators.Add(result =>
        {
            if (result.GetValue(heal) == (result.GetValue(rule) is not null)) result.AddError("give a rule, or --heal");
        });
        return Examples.Of(command, "actorvmm inject web-0 'kind = block-latency, device = blk0, delay = 50ms, for = 10s'", "actorvmm inject web-0 --heal");
    }

    private Command Reload()
    {
        var command = Client("reload", "Makes the host read its description again (as SIGHUP does), and prints what changed.", [],
            async (host, parsed, cancel) =>
        {
            var report = await host.CallAsync(HttpMethod.Post, "/host/reload", ApiJson.Default.ReloadReport,
                cancel: cancel).ConfigureAwait(false);
            if (parsed.GetValue(_json)) { await PrintAsync(JsonSerializer.Serialize(report, ApiJson.Default.ReloadReport))
                .ConfigureAwait(false); return; }
            foreach (var added in report.Added) await output.WriteLineAsync($"added    {added}").ConfigureAwait(false);
            foreach (var removed in report.Removed) await output.WriteLineAsync($"removed  {removed}").ConfigureAwait(false);
            foreach (var (changed, needs) in report.Changed)
                await output.WriteLineAsync($"changed  {changed}{(needs ? ": takes effect with actorvmm restart " + changed : "")}")
                    .ConfigureAwait(false);
            if (report.Host.Count > 0)
                await output.WriteLineAsync($"changed  host: {string.Join(", ", report.Host)}: takes effect when the host is started again")
                    .ConfigureAwait(false);
            foreach (var failure in report.Failures) await output.WriteLineAsync($"failed   {failure}").ConfigureAwait(false);
            if (report.Failures.Count > 0) throw new HostClientException("not all of the description could be carried out");
        });
        return Examples.Of(command, "actorvmm reload");
    }

    // ---- What they share.

    private static Option<string?> SocketOption()
    {
        var option = new Option<string?>("--socket", "-s")
        {
            Description = $"The host's socket (default: {HostClient.Variable}, or the user's own).", HelpName = "PATH", Recursive = true,
        };
        option.Validators.Add(static result =>
        {
            if (result.Tokens is not [{ Value: { } path }]) return;
            if (path.Length == 0 || path.Contains('\0', StringComparison.Ordinal)) result.AddError("--socket: allowed is a path");
            else if (Path.GetFullPath(path) is var full && !SocketFile.IsShortEnough(full))
                result.AddError($"--socket {path}: {SocketFile.TooLong(full)}");
        });
        return option;
    }

    /// <summary>Refuses what can be read but makes no sense; what cannot be read is refused by the parser.</summary>
    private static void Require<T>(Option<T> option, Predicate<T?> isAllowed, string allowed) => option.Validators.Add(result =>
    {
        if (result.Tokens is [{ Value: { } text }] && Read(result, option, out var value) && !isAllowed(value))
            result.AddError($"{option.Name} {text}: allowed is {allowed}");
    });

    private static bool Read<T>(OptionResult result, Option<T> option, out T? value)
    {
        try
        {
            value = result.GetValue(option);
            return true;
        }
        catch (InvalidOperationException)
        {
            value = default;
            return false;
        }
    }

    private static Argument<string> VmArgument() => Named(new Argument<string>("VM") { Description = "Name of a VM." });

    /// <summary>What cannot be a name would make another path of the API.</summary>
    private static T Named<T>(T argument) where T : Argument
    {
        argument.Validators.Add(static result =>
        {
            foreach (var token in result.Tokens)
                if (!Descriptions.DescriptionChecks.IsName(token.Value))
                    result.AddError($"'{token.Value}' is no VM's name: allowed are 1 to 64 letters, digits, '-' and '_'");
        });
        return argument;
    }

    private static string Escape(ParseResult parsed, Argument<string> name) => Uri.EscapeDataString(parsed.GetValue(name)!);

    private Command Client(string verb, string what, IEnumerable<Symbol> parts,
        Func<HostClient, ParseResult, CancellationToken, Task> run)
    {
        var command = new Command(verb, what) { _socket, _json };
        foreach (var part in parts)
        {
            if (part is Argument argument) command.Add(argument);
            else if (part is Option option) command.Add(option);
        }

        command.SetAction(async (parsed, cancel) =>
        {
            using var host = new HostClient(parsed.GetValue(_socket));
            try
            {
                await run(host, parsed, cancel).ConfigureAwait(false);
                return ExitCodes.Success;
            }
            catch (HostClientException refused)
            {
                await descriptors.Errors.WriteLineAsync($"actorvmm: {refused.Message}").ConfigureAwait(false);
                return refused.ExitCode;
            }
            catch (Exception gone) when (gone is IOException or HttpRequestException)
            {
                await descriptors.Errors.WriteLineAsync($"actorvmm: the host has gone: {gone.Message}").ConfigureAwait(false);
                return ExitCodes.Failure;
            }
            catch (OperationCanceledException)
            {
                return 130; // Ctrl-C
            }
        });
        return command;
    }

    private async Task EachAsync(HostClient host, ParseResult parsed, string[] names, HttpMethod method, Func<string, string> path,
        string verb, CancellationToken cancel)
    {
        // All at once: ten VMs stop in the time of the slowest. What fails is said for each, and the others go on.
        var failures = 0;
        var calls = names.Select(async name =>
        {
            try
            {
                return (name, text: await host.TextAsync(method, path(name), cancel: cancel).ConfigureAwait(false),
                    failure: (HostClientException?)null);
            }
            catch (HostClientException refused)
            {
                return (name, text: "", failure: refused);
            }
        }).ToArray();
        foreach (var call in calls)
        {
            var (name, text, failure) = await call.ConfigureAwait(false);
            if (failure is not null)
            {
                failures++;
                if (names.Length == 1) throw failure;
                await descriptors.Errors.WriteLineAsync($"actorvmm: {failure.Message}").ConfigureAwait(false);
            }
            else if (text.Length > 0 && parsed.GetValue(_json))
            {
                await PrintAsync(text).ConfigureAwait(false);
            }
            else if (text.Length > 0)
            {
                await output.WriteLineAsync($"{name}: {JsonSerializer.Deserialize(text, ApiJson.Default.VmView)!.State}")
                    .ConfigureAwait(false);
            }
            else
            {
                await output.WriteLineAsync(parsed.GetValue(_json) ? JsonSerializer.Serialize(name,
                    ApiJson.Default.String) : $"{name}: removed").ConfigureAwait(false);
            }
        }

        if (failures > 0) throw new HostClientException($"{verb}: {failures} of {names.Length} did not work");
    }

    private async Task ShowAsync(ParseResult parsed, VmView vm, string what)
    {
        if (parsed.GetValue(_json)) await PrintAsync(JsonSerializer.Serialize(vm, ApiJson.Default.VmView)).ConfigureAwait(false);
        else await output.WriteLineAsync($"{vm.Name}: {what}, {vm.State}").ConfigureAwait(false);
    }

    private Task PrintAsync(string text) => output.WriteLineAsync(text.TrimEnd());

    private Task WriteOutAsync(ReadOnlyMemory<byte> bytes)
    {
        if (!Terminal.Libc.WriteAll(descriptors.Output,
            bytes.Span)) throw new OperationCanceledException("nobody reads the output any more");
        return Task.CompletedTask;
    }
}
