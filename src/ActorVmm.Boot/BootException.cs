namespace ActorVmm.Boot;

/// <summary>
/// Something that was to be booted does not hold together. Carries where, what and which value, so that a person can mend it without a
/// debugger. The only exception that malformed images, initrds and command lines cause.
/// </summary>
public sealed class BootException : Exception
{
    public BootException(string file, string field, string value, string advice)
        : base($"{file}: {field} is {value}: {advice}") => (File, Field, Value, Advice) = (file, field, value, advice);

    public BootException(string file, string field, string value, string advice, Exception inner)
        : base($"{file}: {field} is {value}: {advice}", inner) => (File, Field, Value, Advice) = (file, field, value, advice);

    public BootException() : this("boot", "request", "invalid", "see the log") { }
    public BootException(string message) : this("boot", "request", "invalid", message) { }
    public BootException(string message, Exception inner) : this("boot", "request", "invalid", message, inner) { }

    /// <summary>The file, or the part of the request (<c>command line</c>, <c>guest memory</c>).</summary>
    public string File { get; }

    /// <summary>The field by its name in the format's specification, e.g. <c>e_phoff</c>, <c>setup_sects</c>.</summary>
    public string Field { get; }

    /// <summary>The value found, as text; addresses and sizes in hex.</summary>
    public string Value { get; }

    /// <summary>What is wrong with it, and what would be right.</summary>
    public string Advice { get; }

    internal static BootException Hex(string file, string field, ulong value, string advice) => new(file, field, $"0x{value:x}", advice);
}
