using Akka.Actor;

namespace ActorVmm.Actors.Dispatch;

/// <summary>
/// A message that a vCPU's thread carries to its receiver itself: told on a thread with a <see cref="CallerRunsContext"/>, the receiver's
/// mailbox runs on that thread before <c>Tell</c> returns, if nobody else is running it.
/// </summary>
/// <remarks>
/// It must not touch the receive timeout (a timer per exit) and is never serialized, hence the two marker interfaces.
/// </remarks>
public interface ISyncExit : INotInfluenceReceiveTimeout, INoSerializationVerificationNeeded
{
    /// <summary>
    /// The receiver is gone and will never see this message (stopped, or the dispatcher refused it). Any thread; may be called although an
    /// answer was given.
    /// </summary>
    void Undeliverable();
}
