namespace ActorVmm.Devices.Virtio.Queue;

/// <summary>
/// The places between which a request's fate changes, in the order in which it passes them. A device that fails at any of them is restarted
/// without losing, repeating or doubling an answer.
/// </summary>
public enum CrashPoint
{
    /// <summary>A fresh instance is about to hand out a request again that the failed one had begun.</summary>
    Resubmitting,

    /// <summary>The chain was read and is sound; nobody knows of it.</summary>
    ChainWalked,

    /// <summary>The ledger has an entry, which does not count before the next step.</summary>
    RequestMarked,

    /// <summary>The request is in flight.</summary>
    RequestTaken,

    /// <summary>The device has done what was asked; the ledger does not know.</summary>
    RequestDone,

    /// <summary>The answer is written down, and does not count before the next step.</summary>
    AnswerMarked,

    /// <summary>The answer is final; the guest does not see it yet.</summary>
    AnswerRecorded,

    /// <summary>Used elements are in guest RAM, behind the used index.</summary>
    ElementsWritten,

    /// <summary>The used index is in guest RAM: the driver may see the answers. The ledger does not know.</summary>
    IndexPublished,

    /// <summary>The ledger knows what was published; nobody has thought of an interrupt.</summary>
    PublicationRecorded,

    /// <summary>The interrupt status register is set; no checkpoint holds it.</summary>
    InterruptDecided,
}

/// <summary>Looks on at each <see cref="CrashPoint"/>; throws there to make a device fail.</summary>
public interface ICrashHook
{
    /// <summary>Queue <paramref name="queue"/> has come to <paramref name="point"/> with the request at <paramref name="head"/>.</summary>
    void Reached(CrashPoint point, int queue, ushort head);
}
