using System.Collections.Concurrent;
using Akka.Actor;
using Akka.Configuration;
using Akka.Dispatch;
using Akka.Dispatch.MessageQueues;

namespace ActorVmm.Actors.Dispatch;

/// <summary>A mailbox whose queued exits are answered when its actor stops, instead of becoming dead letters that a vCPU waits for.</summary>
public sealed class ExitMailbox : MailboxType, IProducesMessageQueue<ExitMailbox.ExitQueue>
{
    public ExitMailbox(Akka.Actor.Settings settings, Config config) : base(settings, config) { }

    /// <inheritdoc/>
    public override IMessageQueue Create(IActorRef owner, ActorSystem system) => new ExitQueue();

    /// <summary>The unbounded queue with the other clean-up. Each vCPU has at most one exit in it, so exits cannot pile up.</summary>
    public sealed class ExitQueue : IMessageQueue, IUnboundedMessageQueueSemantics
    {
        private readonly ConcurrentQueue<Envelope> _queue = new();

        /// <inheritdoc/>
        public bool HasMessages => !_queue.IsEmpty;

        /// <inheritdoc/>
        public int Count => _queue.Count;

        /// <inheritdoc/>
        public void Enqueue(IActorRef receiver, Envelope envelope) => _queue.Enqueue(envelope);

        /// <inheritdoc/>
        public bool TryDequeue(out Envelope envelope) => _queue.TryDequeue(out envelope);

        /// <inheritdoc/>
        public void CleanUp(IActorRef owner, IMessageQueue deadletters)
        {
            while (_queue.TryDequeue(out var envelope))
            {
                if (envelope.Message is ISyncExit exit) exit.Undeliverable();
                else deadletters.Enqueue(owner, envelope);
            }
        }
    }
}
