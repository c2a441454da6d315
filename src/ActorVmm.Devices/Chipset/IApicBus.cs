namespace ActorVmm.Devices.Chipset;

/// <summary>What kind of message an interrupt is (SDM Vol. 3 §11.5.1, Figure 11-8; 82093AA §3.2.4).</summary>
public enum ApicDeliveryMode : byte
{
    Fixed = 0,
    LowestPriority = 1,
    Smi = 2,
    Nmi = 4,
    Init = 5,
    Startup = 6,

    /// <summary>The vector comes from the 8259 pair.</summary>
    ExtInt = 7,
}

/// <summary>The bus between local APICs and the I/O APIC. Any thread; see <see cref="ApicBus"/> for the locking rule.</summary>
public interface IApicBus
{
    /// <summary>Sends an interrupt message.</summary>
    /// <param name="destination">APIC ID or logical set; <see cref="uint.MaxValue"/> means everybody.</param>
    /// <param name="logical">The destination is a logical set (LDR/DFR) rather than an ID.</param>
    /// <param name="mode">Delivery mode.</param>
    /// <param name="vector">Vector, or the page number of a start-up message.</param>
    /// <param name="level">Level-triggered: its EOI is broadcast to the I/O APIC.</param>
    /// <returns>Whether any local APIC took it.</returns>
    bool Deliver(uint destination, bool logical, ApicDeliveryMode mode, byte vector, bool level);

    /// <summary>Sends to every local APIC, except <paramref name="except"/> where it is given (the ICR's shorthands).</summary>
    void DeliverToAll(LocalApic? except, ApicDeliveryMode mode, byte vector);

    /// <summary>A local APIC finished a level-triggered interrupt (SDM Vol. 3 §11.8.5).</summary>
    void EndOfInterrupt(byte vector);
}

/// <summary>The processor core behind a local APIC. Called from any thread; must only note the request and wake the core.</summary>
public interface IApicCore
{
    /// <summary>An interrupt may have become deliverable: ask <see cref="LocalApic.PendingVector"/> before the next instruction.</summary>
    void InterruptRequested();

    void NmiRequested();

    /// <summary>INIT arrived. The core resets itself and calls <see cref="LocalApic.InitReset"/> on its own thread.</summary>
    void InitRequested();

    /// <summary>SIPI arrived: start at <paramref name="vector"/> × 4096 if the core waits for it, else ignore.</summary>
    void StartupRequested(byte vector);

    void SmiRequested();
}
