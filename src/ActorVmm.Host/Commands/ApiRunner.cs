using ActorVmm.Host.Descriptions;
using ActorVmm.Host.Firecracker;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Commands;

/// <summary>The socket that <c>run</c> was asked for.</summary>
/// <param name="Path">Where.</param>
/// <param name="Id">What the microVM is called.</param>
/// <param name="MaxPayload">The longest body, in bytes.</param>
internal sealed record ApiOptions(string Path, string Id, int MaxPayload);

/// <summary><c>run --api-sock</c>: one VM on this terminal, and a Firecracker-compatible socket to configure, start, pause and resume
/// it.</summary>
internal sealed class ApiRunner(HostServices services, ConsoleDescriptors descriptors)
{
    /// <summary>Waits to be configured. A start that fails is answered on the socket, and the next one may be right.</summary>
    public async Task<int> RunAsync(ApiOptions api, ClockMode? clock, string? hypervisor, bool verbose)
    {
        if (Open(api, described: null) is not { } session) return ExitCodes.Failure;
        await using var _ = session;
        while (true)
        {
            var (description, signal) = await session.NextAsync();
            if (description is null) return 128 + signal;
            description = description with { Clock = clock ?? description.Clock, Hypervisor = hypervisor ?? description.Hypervisor };
            var status = await new VmRunner(services, descriptors).RunAsync(description, verbose, observer: session,
                serialOut: session.SerialOutPath);
            session.Failed(new InvalidOperationException("the microVM could not be started; standard error says why"));
            if (session.HasRun) return status;
        }
    }

    /// <summary>Runs what a file has described, with the socket beside it.</summary>
    public async Task<int> RunAsync(ApiOptions api, VmDescription description, bool verbose)
    {
        if (Open(api, description) is not { } session) return ExitCodes.Failure;
        await using var _ = session;
        return await new VmRunner(services, descriptors).RunAsync(description, verbose, observer: session);
    }

    private ApiSession? Open(ApiOptions api, VmDescription? described)
    {
        try
        {
            return new ApiSession(api.Path, api.Id, described?.ToSpec(), api.MaxPayload);
        }
        catch (IOException cannot)
        {
            descriptors.Errors.WriteLine($"actorvmm: {cannot.Message}");
            return null;
        }
    }
}
