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

    /// <summary>
    /// An unbounded queue for one reader, with a place of its own for the message that meets an empty queue: an exit, nearly always. That
    /// one costs one interlocked instruction instead of two. Each vCPU has at most one exit in here, so exits cannot pile up.
    /// </summary>
    /// <remarks>
    /// Every sender keeps its order: a message takes the place only where nothing is queued behind it, and the reader looks at the place
    /// again after it has seen the queue's head and before it takes it. If the head's sender had filled the place before, that look sees it.
    /// </remarks>
    public sealed class ExitQueue : IMessageQueue, IUnboundedMessageQueueSemantics
    {
        private const int Empty = 0;
        private const int Filling = 1;
        private const int Full = 2;

        private readonly ConcurrentQueue<Envelope> _behind = new();
        private int _place;

        // Not an Envelope: its two words are written one by one, and read as one they would have to wait for the store buffer.
        private object? _message;
        private IActorRef? _sender;

        /// <inheritdoc/>
        public bool HasMessages => Volatile.Read(ref _place) == Full || !_behind.IsEmpty;

        /// <inheritdoc/>
        public int Count => _behind.Count + (Volatile.Read(ref _place) == Full ? 1 : 0);

        /// <inheritdoc/>
        public void Enqueue(IActorRef receiver, Envelope envelope)
        {
            if (_behind.IsEmpty && Interlocked.CompareExchange(ref _place, Filling, Empty) == Empty)
            {
                _message = envelope.Message;
                _sender = envelope.Sender;
                Volatile.Write(ref _place, Full);
            }
            else
            {
                _behind.Enqueue(envelope);
            }
        }

        /// <inheritdoc/>
        public bool TryDequeue(out Envelope envelope)
        {
            if (Volatile.Read(ref _place) != Full)
            {
                if (_behind.IsEmpty) { envelope = default; return false; }
                if (Volatile.Read(ref _place) != Full) return _behind.TryDequeue(out envelope);
            }

            envelope = new Envelope(_message!, _sender!);
            _message = null;
            _sender = null;
            Volatile.Write(ref _place, Empty);
            return true;
        }

        /// <inheritdoc/>
        public void CleanUp(IActorRef owner, IMessageQueue deadletters)
        {
            while (TryDequeue(out var envelope))
            {
                if (envelope.Message is ISyncExit exit) exit.Undeliverable();
                else deadletters.Enqueue(owner, envelope);
            }
        }
    }
}
