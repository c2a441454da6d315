using ActorVmm.Host.Tests.Terminal;

namespace ActorVmm.Host.Tests;

internal static class Entry
{
    // dotnet test never comes here.
    private static Task<int> Main(string[] arguments) => TerminalProgram.RunAsync(arguments);
}
