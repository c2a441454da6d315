using System.Globalization;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Faults;
using ActorVmm.Host.Fleet;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.OpenApi;

namespace ActorVmm.Host.Api;

/// <summary>The paths of the API. Each is a few lines over the fleet; what can go wrong is thrown and takes its shape further
/// out.</summary>
internal sealed class VmEndpoints(HostState state, TimeProvider time)
{
    // More than a host with a VM with a device that does not answer takes (actorvmm.inspect-deadline).
    private static readonly TimeSpan s_treeDeadline = TimeSpan.FromSeconds(20);
    private readonly long _began = time.GetTimestamp();

    private VmFleet Fleet => state.Fleet;

    public void Map(IEndpointRouteBuilder routes)
    {
        // Over TCP any call may lack its token.
        IEndpointRouteBuilder api = routes.MapGroup("")
            .WithMetadata(new ProducesResponseTypeMetadata(401, typeof(ErrorView), ["application/json"]));
        api.MapGet("/", static () => Results.Content(ApiPage.Html, "text/html; charset=utf-8")).ExcludeFromDescription();
        api.MapGet("/host", Host).WithSummary("The host: version, uptime, limits.").Produces<HostView>();
        api.MapPost("/host/reload", ReloadAsync).WithSummary("Reads the description again: what is new starts, what is gone stops.")
            .Produces<ReloadReport>().Produces<ErrorView>(400).Produces<ErrorView>(409);

        api.MapGet("/vms", List).WithSummary("All VMs.").Produces<IReadOnlyList<VmView>>();
        api.MapPost("/vms", CreateAsync).WithSummary("Adds a VM; ?start=true starts it too, ?directory=PATH is where relative paths begin.")
            .AddOpenApiOperationTransformer((operation, _, _) => Body(operation, "application/json",
                "A VM's description: name, and the keys of config/full.conf; restart, stop, on-reset."))
           .Produces<VmView>(201)
            .Produces<ErrorView>(400).Produces<ErrorView>(409).Produces<ErrorView>(413);
        api.MapGet("/vms/{name}", (string name) => View(name)).WithSummary("One VM.").Produces<VmView>().Produces<ErrorView>(404);
        api.MapDelete("/vms/{name}", (string name, bool? force) => RemoveAsync(name, force ?? false))
            .WithSummary("Forgets a VM; ?force=true kills it first.").Produces(204)
            .Produces<ErrorView>(400).Produces<ErrorView>(404).Produces<ErrorView>(409);
        Command(api, "start", "Starts a VM, and answers when its guest runs.", Fleet.StartAsync);
        EndingCommand(api, "stop", "Asks the guest to end, and cuts its power at the deadline: ?deadline=10s.", Fleet.StopAsync);
        Command(api, "kill", "Power loss.", Fleet.KillAsync);
        EndingCommand(api, "restart", "Stops and starts; ?deadline=10s as for stop.", Fleet.RestartAsync);
        Command(api, "pause", "Stops vCPUs and clock.", Fleet.PauseAsync);
        Command(api, "resume", "Lets a paused VM go on.", Fleet.ResumeAsync);
        api.MapPost("/vms/{name}/pulse", async (string name) => Results.Json(
                new PulseView((await Fleet.PulseAsync(name).ConfigureAwait(false)).TotalMilliseconds), ApiJson.Default.PulseView))
            .WithSummary("Pauses, saves, resets, restores and resumes a VM in place.").Produces<PulseView>()
            .Produces<ErrorView>(404).Produces<ErrorView>(409).Produces<ErrorView>(502);
        api.MapPost("/vms/{name}/link/{device}", (string name, string device, string? state) => LinkAsync(name, device, state))
            .WithSummary("The cable of a network interface: ?state=up puts it in, ?state=down pulls it.").Produces<LinkView>()
            .Produces<ErrorView>(400).Produces<ErrorView>(404).Produces<ErrorView>(409).Produces<ErrorView>(502);

        api.MapPost("/vms/{name}/faults", InjectAsync)
            .WithSummary("One more fault: the body is a rule of the faults section in HOCON or JSON.")
            .AddOpenApiOperationTransformer((operation, _, _) => Body(operation, "text/plain", "A rule: see config/faults.conf.")).Produces(204).Produces<ErrorView>(400)
            .Produces<ErrorView>(404).Produces<ErrorView>(409).Produces<ErrorView>(413);
        api.MapDelete("/vms/{name}/faults", (string name) =>
            {
                Fleet.Heal(name);
                return Results.NoContent();
            })
            .WithSummary("Ends all faults of a VM.").Produces(204).Produces<ErrorView>(404).Produces<ErrorView>(409);

        api.MapGet("/vms/{name}/logs", LogsAsync).WithSummary("The console from its first byte; ?follow=true goes on; ?tail=N gives the last N bytes, ?lines=N the last N lines.")
            .Produces(200, contentType: "application/octet-stream").Produces<ErrorView>(400).Produces<ErrorView>(404);
        api.MapGet("/vms/{name}/console", ConsoleAsync).WithSummary("The console as a WebSocket; ?replay=N begins with the last N bytes.")
            .Produces(101).Produces<ErrorView>(400).Produces<ErrorView>(404);
        api.MapGet("/tree", TreeAsync).WithSummary("The actor tree with what each unit says about itself.").Produces<NodeView>();
        api.MapGet("/inspect",
            (string path) => InspectAsync(path)).WithSummary("One actor and what is below it: ?path=/user/host/VM/devices/serial0.")
            .Produces<NodeView>().Produces<ErrorView>(400).Produces<ErrorView>(404).Produces<ErrorView>(502);
        api.MapGet("/events",
            EventsAsync).WithSummary("What happened: server-sent events with ?follow=true, else an array; ?after=N skips, ?vm=NAME picks.")
            .Produces<IReadOnlyList<FleetEvent>>(200, "application/json", "text/event-stream").Produces<ErrorView>(400);
    }

    private void Command(IEndpointRouteBuilder api, string verb, string summary, Func<string, Task<VmStatus>> command) =>
        Describe(api.MapPost($"/vms/{{name}}/{verb}", (string name) => AnswerAsync(name, command(name))), summary);

    /// <summary>One that waits for the guest to end, and how long is the caller's choice.</summary>
    private void EndingCommand(IEndpointRouteBuilder api, string verb, string summary, Func<string, TimeSpan?, Task<VmStatus>> command) =>
        Describe(api.MapPost($"/vms/{{name}}/{verb}",
            (string name, string? deadline) => AnswerAsync(name, command(name, DeadlineOf(deadline)))), summary);

    private static void Describe(RouteHandlerBuilder command, string summary) => command.WithSummary(summary).Produces<VmView>()
        .Produces<ErrorView>(400).Produces<ErrorView>(404).Produces<ErrorView>(409).Produces<ErrorView>(502);

    private async Task<IResult> AnswerAsync(string name, Task<VmStatus> command)
    {
        await command.ConfigureAwait(false);
        return Fleet.Find(name) is { } vm ? Results.Json(VmView.Of(vm, time), ApiJson.Default.VmView) : Results.NoContent();
    }

    private async Task<IResult> LinkAsync(string name, string device, string? word)
    {
        if (word is not ("up" or "down")) throw new BadHttpRequestException($"state = {word}: allowed are up and down");
        await Fleet.SetLinkAsync(name, device, up: word is "up").ConfigureAwait(false);
        return Results.Json(new LinkView(name, device, word), ApiJson.Default.LinkView);
    }

    // Said in the document only: a body is taken whatever its type is called, as curl and others leave that open.
    private static Task Body(OpenApiOperation operation, string type, string what)
    {
        operation.RequestBody = new OpenApiRequestBody
        {
            Required = true, Description = what, Content = new Dictionary<string, OpenApiMediaType>(StringComparer.Ordinal)
            {
                [type] = new() { Schema = new OpenApiSchema { Type = type == "text/plain" ? JsonSchemaType.String : JsonSchemaType.Object } },
            },
        };
        return Task.CompletedTask;
    }

    private static TimeSpan? DeadlineOf(string? text)
    {
        if (text is null) return null;
        return FleetReader.TryDuration(text, out var deadline)
            ? deadline
            : throw new BadHttpRequestException($"deadline = {text}: allowed is a time such as 500ms, 5s or 2m, up to 24h");
    }

    private IResult Host()
    {
        var vms = Fleet.All;
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        return Results.Json(new HostView(ApiPage.Version, Environment.ProcessId, Math.Round(time.GetElapsedTime(_began).TotalSeconds, 3),
            vms.Count, vms.Count(vm => vm.Status.State == VmState.Running), vms.Sum(vm => (long)vm.Status.MemoryMib), Fleet.Limits.MaxVms,
            Fleet.Limits.MaxMemoryMib, Math.Round(process.WorkingSet64 / 1048576.0, 1)), ApiJson.Default.HostView);
    }

    private async Task<IResult> ReloadAsync()
    {
        if (state.Reload is not { } reload)
            throw new FleetException(FleetFault.Conflict, "this host was started without a description: there is nothing to read again");
        return Results.Json(await reload().ConfigureAwait(false), ApiJson.Default.ReloadReport);
    }

    private IResult List() => Results.Json<IReadOnlyList<VmView>>([.. Fleet.All.Select(vm => VmView.Of(vm, time))],
        ApiJson.Default.IReadOnlyListVmView);

    private IResult View(string name) => Results.Json(VmView.Of(Fleet.Get(name), time), ApiJson.Default.VmView);

    private async Task<IResult> CreateAsync(HttpRequest request, bool? start, string? directory)
    {
        using var body = new MemoryStream();
        await request.Body.CopyToAsync(body, request.HttpContext.RequestAborted).ConfigureAwait(false);
        if (body.Length == 0) throw new BadHttpRequestException("the body is a VM's description in JSON: {\"name\":\"a\",\"kernel\":{\"path\":\"...\"}}");
        if (directory is not null && (!Path.IsPathFullyQualified(directory) || directory.Contains('\0', StringComparison.Ordinal)))
            throw new BadHttpRequestException("directory: allowed is an absolute path");
        var vm = FleetReader.ReadVm(body.GetBuffer().AsSpan(0, (int)body.Length), directory ?? Environment.CurrentDirectory);
        await state.DefineAsync(vm, replace: false).ConfigureAwait(false);
        if (start == true) await Fleet.StartAsync(vm.Name).ConfigureAwait(false);
        request.HttpContext.Response.Headers.Location = $"/vms/{vm.Name}";
        return Results.Json(VmView.Of(Fleet.Get(vm.Name), time), ApiJson.Default.VmView, statusCode: 201);
    }

    private async Task<IResult> InjectAsync(HttpRequest request, string name)
    {
        using var reader = new StreamReader(request.Body);
        var rule = FaultSection.ParseRule(await reader.ReadToEndAsync(request.HttpContext.RequestAborted).ConfigureAwait(false), "the body");
        await Fleet.InjectAsync(name, rule).ConfigureAwait(false);
        return Results.NoContent();
    }

    private async Task<IResult> RemoveAsync(string name, bool force)
    {
        await Fleet.RemoveAsync(name, force).ConfigureAwait(false);
        return Results.NoContent();
    }

    private async Task LogsAsync(HttpContext http, string name, bool? follow, long? tail, long? lines)
    {
        var vm = Fleet.Get(name);
        var hub = state.Console(name);
        if (tail is not null && lines is not null) throw new BadHttpRequestException("tail and lines: give one of them");
        if (tail < 0 || lines < 0) throw new BadHttpRequestException("tail and lines: allowed is 0 or more");
        var from = tail is { } bytes ? Math.Max(0, hub.Total - bytes) : lines is { } count ? hub.LastLines(count) : 0;
        http.Response.ContentType = "application/octet-stream";
        using var ends = EndsWith(http, vm);
        try
        {
            await hub.FollowAsync(from, async piece =>
            {
                await http.Response.Body.WriteAsync(piece, ends.Token).ConfigureAwait(false);
                if (follow == true) await http.Response.Body.FlushAsync(ends.Token).ConfigureAwait(false);
            }, follow ?? false, ends.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) { /* the reader has gone, or the VM */ }
    }

    private async Task ConsoleAsync(HttpContext http, string name, long? replay)
    {
        var vm = Fleet.Get(name);
        if (!http.WebSockets.IsWebSocketRequest)
            throw new BadHttpRequestException("the console is a WebSocket: use actorvmm console, or any WebSocket client");
        using var socket = await http.WebSockets.AcceptWebSocketAsync().ConfigureAwait(false);
        using var ends = EndsWith(http, vm);
        await new ConsoleSession(state.Console(name), vm, socket).RunAsync(replay ?? long.MaxValue, ends.Token).ConfigureAwait(false);
    }

    private async Task<IResult> TreeAsync() => Results.Json(
        NodeView.Of(await Fleet.InspectAllAsync(s_treeDeadline).ConfigureAwait(false), ""), ApiJson.Default.NodeView);

    /// <summary>An actor by its path; <c>/user/host/</c> at the start may be left out.</summary>
    private async Task<IResult> InspectAsync(string path)
    {
        var parts = path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        if (parts is ["user", "host", _, ..]) parts = parts[2..];
        else if (parts is not ["user", ..]
            && path.StartsWith('/')) throw new FleetException(FleetFault.NotFound, $"{path}: actors are below /user");
        if (parts.Length == 0) throw new BadHttpRequestException("path: the name of a VM, or an actor's path such as /user/host/VM/devices/serial0");
        var whole = string.Equals(parts[0], "user", StringComparison.Ordinal);
        var node = whole ? await Fleet.InspectAllAsync(s_treeDeadline).ConfigureAwait(false)
            : await Fleet.InspectAsync(parts[0]).ConfigureAwait(false);
        var parent = whole ? "" : "/user/host";
        foreach (var part in parts.Skip(1))
        {
            var children = node.Children ?? [];
            if (children.Count == 0 && !whole && Fleet.Get(parts[0]).Status.State is VmState.Stopped or VmState.Failed)
                throw new FleetException(FleetFault.NotFound,
                    $"{parts[0]} is {VmFleet.Word(Fleet.Get(parts[0]).Status.State)}, so it has no {part}");
            parent += "/" + node.Name;
            if (node.IsUnresolved) throw new FleetException(FleetFault.Failed, $"{parent} did not answer in time; ask again for its {part}");
            node = children.FirstOrDefault(child => string.Equals(child.Name, part, StringComparison.Ordinal))
                ?? throw new FleetException(FleetFault.NotFound,
                    $"there is no {part} below {parent}; there is {string.Join(", ", children.Select(child => child.Name))}");
        }

        return Results.Json(NodeView.Of(node, parent), ApiJson.Default.NodeView);
    }

    private async Task EventsAsync(HttpContext http, bool? follow, long? after, string? vm)
    {
        var last = http.Request.Headers["Last-Event-ID"].ToString();
        var from = long.TryParse(last, NumberStyles.None, CultureInfo.InvariantCulture, out var seen) ? seen : after ?? 0;
        await EventStream.WriteAsync(http, Fleet.Journal, from, vm, follow ?? false).ConfigureAwait(false);
    }

    /// <summary>Ends when the request does, or when its VM is removed.</summary>
    private static CancellationTokenSource EndsWith(HttpContext http, ManagedVm vm) =>
        CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, vm.Gone);
}
