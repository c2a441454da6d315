using Akka.Event;

namespace ActorVmm.Actors;

/// <summary>
/// Stands in for Akka's logger on standard output, which belongs to the guest's console: whatever <c>akka.stdout-loglevel</c> says, Akka
/// attaches that one at <c>akka.loglevel</c> while a system shuts down.
/// </summary>
public sealed class SilentLogger : MinimalLogger
{
    /// <summary>The setting that puts it there.</summary>
    public const string Hocon = "akka.stdout-logger-class = \"ActorVmm.Actors.SilentLogger, ActorVmm.Actors\"";

    /// <inheritdoc/>
    protected override void Log(object message) { /* The program's own log has heard what matters. */ }
}
