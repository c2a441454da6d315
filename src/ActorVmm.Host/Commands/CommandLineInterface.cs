using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using ActorVmm.Backends.UserNet;
using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Firecracker;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Commands;

/// <summary>The program's commands and options. A wrong command line ends with 153 and says what is wrong on stderr.</summary>
internal sealed class CommandLineInterface
{
    private readonly HostServices _services;
    private readonly ConsoleDescriptors _descriptors;
    private readonly Option<bool> _verbose = new("--verbose") { Description = "Debug log on stderr.", Recursive = true };

    private readonly TextWriter _output;

    /// <param name="services">What the commands are built on.</param>
    /// <param name="descriptors">The process's own, or what stands for them.</param>
    /// <param name="output">Where answers are printed; null for standard output.</param>
    public CommandLineInterface(HostServices services, ConsoleDescriptors descriptors, TextWriter? output = null) =>
        (_services, _descriptors, _output) = (services, descriptors, output ?? Console.Out);

    public async Task<int> InvokeAsync(IReadOnlyList<string> arguments)
    {
        var root = new RootCommand("A virtual machine monitor in which every vCPU, device, the bus and the event loop is an actor.")
        {
            _verbose, Demo(), Run(), Check(), Doctor(),
        };
        // The commands about one VM start without those about many.
        if (arguments is not ["run" or "demo" or "check" or "doctor", ..])
        {
            foreach (var command in new HostCommands(_services, _descriptors, _output, _verbose).All()) root.Add(command);
            root.Add(ExperimentCommands.Of(_descriptors));
            root.Add(Completion.Command(root));
        }

        Examples.Install(root);
        // '@' begins no file of arguments here: it may begin a value.
        var parsed = root.Parse(arguments, new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (parsed.Errors.Count > 0)
        {
            foreach (var error in parsed.Errors)
                await _descriptors.Errors.WriteLineAsync($"actorvmm: {error.Message}");
            // From the outermost on: "experiment run" is another command than "run".
            var command = "";
            for (SymbolResult? at = parsed.CommandResult; at is CommandResult { Command: var one } && one != root; at = at.Parent)
                command = $"{one.Name} {command}";
            await _descriptors.Errors.WriteLineAsync($"See: actorvmm {command}--help");
            return ExitCodes.BadArguments;
        }
        return await parsed.InvokeAsync(new InvocationConfiguration
        {
            Output = _output, Error = _descriptors.Errors, EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null,
        });
    }

    private Command Demo()
    {
        var clock = ClockOption();
        var hypervisor = HypervisorOption();
        var vcpus = NumberOption("--vcpus", "Number of vCPUs.", 1, VmLimits.MaxVcpus, standard: 1);
        var memory = NumberOption("--memory", "Guest memory in MiB.", 1, VmLimits.MaxMemoryMib, standard: 256);
        var kernel = new Option<string?>("--kernel") { Description = "A kernel of your own instead of Debian's.", HelpName = "FILE" };
        var initrd = new Option<string?>("--initrd") { Description = "An initramfs of your own.", HelpName = "FILE" };
        var cmdline = new Option<string?>("--cmdline") { Description = "The whole kernel command line.", HelpName = "TEXT" };
        var refresh = new Option<bool>("--refresh") { Description = "Fetch Debian's current packages even where others are cached." };
        var disk = new Option<string?>("--disk")
        {
            Description = "Runs the system on a disk: Debian's, built on first use, or an ext4 image of your own.", HelpName = "FILE",
            Arity = ArgumentArity.ZeroOrOne,
        };
        foreach (var file in (ReadOnlySpan<Option<string?>>)[kernel, initrd, disk])
        {
            file.Validators.Add(result =>
            {
                if (result.GetValueOrDefault<string?>() is { } path && !File.Exists(path))
                    result.AddError($"{file.Name} {path}: no such file");
            });
        }
        cmdline.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string?>() is { } line && DescriptionChecks.CommandLineFault(line) is { } fault)
                result.AddError($"--cmdline: {fault}");
        });
        var net = new Option<string?>("--net")
        {
            Description = "A network interface: on a network in this process that needs no privilege, or on a tap.",
            HelpName = "tap=NAME", Arity = ArgumentArity.ZeroOrOne,
        };
        var forward = new Option<string[]>("--forward")
        {
            Description = "With --net: a port of the host that leads into the guest, such as tcp:8080-80. May be repeated.",
            HelpName = "tcp|udp:[ADDRESS:]PORT-PORT",
        };
        net.Validators.Add(result =>
        {
            if (NetFlag.Fault(result.GetValueOrDefault<string?>()) is { } fault) result.AddError(fault);
        });
        forward.Validators.Add(result =>
        {
            foreach (var text in result.GetValueOrDefault<string[]>() ?? [])
                if (PortForward.Parse(text, out var fault) is null) result.AddError($"--forward {text}: {fault}");
            if (result.GetResult(net) is null || result.GetValue(net) is { Length: > 0 })
                result.AddError("--forward: ports lead into a network in this process; give --net without a tap too");
        });
        var crash = new Option<bool>("--crash") { Description = "Crash block, network and serial actors while a guest checks what it writes." };
        var crashes = new Option<int?>("--crashes") { Description = "With --crash: end after N crashes, with exit code 0 only if the guest saw no error.", HelpName = "N" };
        crashes.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && int.TryParse(result.Tokens[0].Value, CultureInfo.InvariantCulture, out var value) && value < 1)
                result.AddError($"--crashes {result.Tokens[0].Value}: allowed is 1 or more");
        });
        var command = Examples
            .Of(new Command("demo", "Boots Debian's kernel to a shell; fetches what is missing into the user's cache on first use.")
        {
            vcpus, memory, clock, hypervisor, kernel, initrd, cmdline, disk, net, forward, refresh, crash, crashes,
        }, "actorvmm demo", "actorvmm demo --vcpus 2 --memory 512", "actorvmm demo --disk --net", "actorvmm demo --crash --crashes 20");
        command.Validators.Add(result =>
        {
            if (result.GetValue(crashes) is not null && !result.GetValue(crash)) result.AddError("--crashes needs --crash");
        });
        command.SetAction((parsed, cancel) => parsed.GetValue(crash)
            ? new CrashDemo(_services, _output, _descriptors.Errors).RunAsync(
                parsed.GetValue(hypervisor)!, parsed.GetValue(crashes), parsed.GetValue(vcpus), cancel)
            : new DemoCommand(_services, _descriptors).RunAsync(new DemoOptions(
            parsed.GetValue(hypervisor)!, ClockOf(parsed.GetValue(clock)) ?? ClockMode.Host, parsed.GetValue(vcpus),
            parsed.GetValue(memory), parsed.GetValue(kernel), parsed.GetValue(initrd), parsed.GetValue(cmdline),
            parsed.GetValue(refresh), parsed.GetValue(_verbose))
        {
            Disk = parsed.GetResult(disk) is null ? null : parsed.GetValue(disk) ?? "",
            Net = parsed.GetResult(net) is null ? null : NetFlag.Backend(parsed.GetValue(net), parsed.GetValue(forward) ?? []),
        }));
        return command;
    }

    private Command Run()
    {
        var file = new Argument<string?>("FILE")
        {
            Description = "A description: HOCON, or a Firecracker configuration (*.json).", Arity = ArgumentArity.ZeroOrOne,
        };
        RefuseOptions(file);
        var clock = ClockOption();
        var hypervisor = HypervisorOption(standard: null);
        var set = SetOption();
        var kernel = TextOption("--kernel", "path=FILE[,cmdline=TEXT][,kernel_load_addr=N]");
        var memory = TextOption("--memory", "size_mib=N");
        var vcpu = TextOption("--vcpu", "num=N");
        var block = TextOption("--block", "path=FILE");
        var net = TextOption("--net", "tap=NAME");
        var apiSocket = new Option<string?>("--api-sock")
        {
            Description = "A Firecracker-compatible socket; without FILE the VM is configured and started over it.", HelpName = "PATH",
        };
        var id = new Option<string>("--id")
        {
            Description = "With --api-sock: what the microVM is called.", HelpName = "NAME",
                DefaultValueFactory = _ => "anonymous-instance",
        };
        id.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string>() is not { } name || !DescriptionChecks.IsName(name))
                result.AddError("--id: allowed are 1 to 64 letters, digits, '-' and '_'");
        });
        var payload = NumberOption("--http-api-max-payload-size", "With --api-sock: the longest body in bytes.", 1, 1 << 30,
            FirecrackerApi.MaxPayload);
        var command = Examples.Of(new Command("run", "Runs what a description file says, or what the flags say.")
        {
            file, set, clock, hypervisor, kernel, memory, vcpu, block, net, apiSocket, id, payload,
        }, "actorvmm run config/minimal.conf --set vcpus.count=2", "actorvmm run config/firecracker.json",
            "actorvmm run --api-sock /tmp/firecracker.socket");
        command.SetAction((parsed, _) =>
        {
            var flags = new RunFlags
            {
                Kernel = parsed.GetValue(kernel), Memory = parsed.GetValue(memory), Vcpu = parsed.GetValue(vcpu),
                Block = parsed.GetValue(block), Net = parsed.GetValue(net),
            };
            var api = parsed.GetValue(apiSocket) is { } path ? new ApiOptions(path, parsed.GetValue(id)!, parsed.GetValue(payload)) : null;
            var isDescribed = parsed.GetValue(file) is not null
                || ((Option[])[set, kernel, memory, vcpu, block, net]).Any(option => parsed.GetResult(option) is { Implicit: false });
            if (api is not null && !isDescribed)
                return new ApiRunner(_services, _descriptors).RunAsync(api, ClockOf(parsed.GetValue(clock)), parsed.GetValue(hypervisor),
                    parsed.GetValue(_verbose));
            return RunAsync(parsed.GetValue(file), parsed.GetValue(set) ?? [], flags,
                ClockOf(parsed.GetValue(clock)), parsed.GetValue(hypervisor), api, parsed.GetValue(_verbose));
        });
        return command;
    }

    private Command Check()
    {
        var file = new Argument<string>("FILE") { Description = "A description: HOCON, or a Firecracker configuration (*.json)." };
        RefuseOptions(file);
        var set = SetOption();
        var command = Examples.Of(new Command("check", "Validates a description without starting anything.") { file, set },
            "actorvmm check config/full.conf");
        command.SetAction((parsed, _) => Task.FromResult(CheckFile(parsed.GetValue(file)!, parsed.GetValue(set) ?? [])));
        return command;
    }

    private Command Doctor()
    {
        var json = new Option<bool>("--json") { Description = "For machines." };
        var command = Examples.Of(new Command("doctor", "Says what works on this host, and what to do about what does not.") { json },
            "actorvmm doctor");
        command.SetAction((parsed, _) => Task.FromResult(new DoctorCommand(_services, Console.Out).Run(parsed.GetValue(json))));
        return command;
    }

    private async Task<int> RunAsync(
        string? file, IReadOnlyList<string> overrides, RunFlags flags, ClockMode? clock, string? hypervisor, ApiOptions? api, bool verbose)
    {
        VmDescription description;
        try
        {
            var described = file is null ? null : DescriptionReader.ReadFile(file, overrides);
            description = flags.Apply(described, Environment.CurrentDirectory, file is null ? overrides : null);
        }
        catch (DescriptionException wrong)
        {
            return Report(wrong);
        }
        catch (OptionException wrong)
        {
            await _descriptors.Errors.WriteLineAsync($"actorvmm: {wrong.Message}");
            return ExitCodes.BadArguments;
        }
        description = description with { Clock = clock ?? description.Clock, Hypervisor = hypervisor ?? description.Hypervisor };
        return api is null
            ? await new VmRunner(_services, _descriptors).RunAsync(description, verbose)
            : await new ApiRunner(_services, _descriptors).RunAsync(api, description, verbose);
    }

    private int CheckFile(string file, IReadOnlyList<string> overrides)
    {
        try
        {
            var vm = DescriptionReader.ReadFile(file, overrides);
            _descriptors.Errors.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{file}: valid: {vm.Vcpus} vCPU, {vm.MemoryMib} MiB, kernel {vm.Kernel.Path}"));
            return ExitCodes.Success;
        }
        catch (DescriptionException wrong)
        {
            return Report(wrong);
        }
    }

    private int Report(DescriptionException wrong)
    {
        foreach (var error in wrong.Errors)
            _descriptors.Errors.WriteLine(error);
        return ExitCodes.BadDescription;
    }

    // A mistyped option would be taken for the file. A file whose name begins so is written ./-name.
    private static void RefuseOptions(Argument argument) => argument.Validators.Add(result =>
    {
        if (result.Tokens is [{ Value: ['-', _, ..] word }])
            result.AddError($"Unrecognized option '{word}'.");
    });

    private static ClockMode? ClockOf(string? word) => word switch { "virtual" => ClockMode.Virtual, "host" => ClockMode.Host, _ => null };

    private static Option<string?> ClockOption()
    {
        var option = new Option<string?>("--clock")
        {
            Description = "Guest time: the host's, or virtual (retired instructions; runs repeat).", HelpName = "host|virtual",
        };
        option.AcceptOnlyFromAmong("host", "virtual");
        return option;
    }

    private static Option<string?> HypervisorOption(string? standard = HypervisorCatalog.Auto)
    {
        var option = new Option<string?>("--hypervisor")
        {
            Description = "What runs the guest.", HelpName = "kvm|soft|auto", DefaultValueFactory = _ => standard,
        };
        option.AcceptOnlyFromAmong("kvm", "soft", HypervisorCatalog.Auto);
        return option;
    }

    private static Option<int> NumberOption(string name, string description, int least, int most, int standard)
    {
        var option = new Option<int>(name) { Description = description, DefaultValueFactory = _ => standard, HelpName = "N" };
        option.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1
                && int.TryParse(result.Tokens[0].Value, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var value)
                && (value < least || value > most))
                result.AddError(string.Create(CultureInfo.InvariantCulture, $"{name} {value}: allowed is {least} to {most}"));
        });
        return option;
    }

    private static Option<string?> TextOption(string name, string grammar) => new(name) { Description = grammar, HelpName = "..." };

    private static Option<string[]> SetOption()
    {
        var option = new Option<string[]>("--set")
        {
            Description = "Overrides one key of the description; may be repeated.", HelpName = "key=value",
        };
        option.Validators.Add(result =>
        {
            foreach (var token in result.Tokens)
            {
                if (!Override.TrySplit(token.Value, out _, out _))
                    result.AddError($"--set {token.Value}: write key=value with a dotted key, e.g. --set vcpus.count=2");
            }
        });
        return option;
    }
}
