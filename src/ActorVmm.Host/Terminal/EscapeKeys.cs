namespace ActorVmm.Host.Terminal;

/// <summary>What a key sequence asks of us rather than of the guest.</summary>
internal enum EscapeRequest
{
    None,

    /// <summary>Ctrl-A X.</summary>
    Leave,

    /// <summary>Ctrl-A H.</summary>
    Help,
}

/// <summary>
/// Takes our own key sequences out of what is typed: Ctrl-A X leaves, Ctrl-A H helps, Ctrl-A Ctrl-A or Ctrl-A A is one Ctrl-A for the
/// guest. Ctrl-A with any other key goes to the guest as both keys: nothing typed is lost.
/// </summary>
internal sealed class EscapeKeys
{
    public const byte Prefix = 0x01;
    private bool _prefixed;

    /// <summary>Handles typed bytes up to the first request.</summary>
    /// <param name="typed">What was read.</param>
    /// <param name="guest">Room for at least twice as many bytes.</param>
    /// <param name="used">How many typed bytes were handled; call again with the rest.</param>
    /// <param name="count">How many bytes for the guest are in <paramref name="guest"/>.</param>
    public EscapeRequest Filter(ReadOnlySpan<byte> typed, Span<byte> guest, out int used, out int count)
    {
        count = 0;
        for (used = 0; used < typed.Length;)
        {
            var key = typed[used++];
            if (!_prefixed)
            {
                if (key == Prefix)
                    _prefixed = true;
                else
                    guest[count++] = key;
                continue;
            }
            _prefixed = false;
            switch (key)
            {
                case (byte)'x' or (byte)'X':
                    return EscapeRequest.Leave;
                case (byte)'h' or (byte)'H':
                    return EscapeRequest.Help;
                case Prefix or (byte)'a' or (byte)'A':
                    guest[count++] = Prefix;
                    break;
                default:
                    guest[count++] = Prefix;
                    guest[count++] = key;
                    break;
            }
        }
        return EscapeRequest.None;
    }
}
