using ActorVmm.Host.Commands;

namespace ActorVmm.Host;

internal static class Program
{
    private static Task<int> Main(string[] arguments) =>
        new CommandLineInterface(Composition.Services(), ConsoleDescriptors.OfProcess()).InvokeAsync(arguments);
}
