namespace ActorVmm.Host.Guests;

/// <summary>The guest could not be fetched or built; the message says why and what to do.</summary>
public sealed class GuestException : Exception
{
    public GuestException(string message) : base(message) { }
    public GuestException(string message, Exception inner) : base(message, inner) { }
    public GuestException() { }
}
