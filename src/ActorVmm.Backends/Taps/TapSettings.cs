using System.Text;

namespace ActorVmm.Backends.Taps;

/// <summary>Which tap interface, and how.</summary>
/// <param name="Name">1 to 15 bytes, without <c>/</c> and blanks, as Linux names interfaces.</param>
/// <param name="Pairs">Pairs of queues, 1 to <see cref="MaxPairs"/>.</param>
public sealed record TapSettings(string Name, int Pairs = 1)
{
    /// <summary>What Linux allows for one interface is more; a virtio-net device of 16 pairs has 33 queues.</summary>
    public const int MaxPairs = 16;

    /// <summary>Why <paramref name="name"/> cannot be the name of an interface; null where it can.</summary>
    public static string? NameFault(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (Encoding.UTF8.GetByteCount(name) is 0 or > 15) return "allowed is the name of an interface: 1 to 15 bytes";
        if (name is "." or ".." || name.Any(static c => c is '/' or ':' or '%' || c <= ' ' || char.IsControl(c)))
            return "allowed is the name of an interface: no '/', ':', '%', blanks or control characters";
        return null;
    }
}

/// <summary>A tap interface cannot be had; the message names it and says why.</summary>
public sealed class TapException : Exception
{
    public TapException(string message) : base(message) { }
    public TapException(string message, Exception inner) : base(message, inner) { }
    public TapException() { }
}
