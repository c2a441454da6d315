using ActorVmm.Devices;

namespace ActorVmm.Actors;

/// <summary>
/// The outside of a VM's serial console. Output goes to a sink on the thread that runs the device; input is offered by whoever reads the
/// terminal or script, as fast as the guest takes it.
/// </summary>
/// <param name="Output">Takes the guest's bytes.</param>
/// <param name="Input">Where the guest's input comes from.</param>
public sealed record VmConsole(IByteSink Output, IConsoleInput Input);

/// <summary>
/// A pull source of console input: the serial port takes what fits, and asks again when it has room (nothing is ever dropped).
/// </summary>
public interface IConsoleInput
{
    /// <summary>Copies up to <paramref name="into"/>.Length bytes; 0 where nothing is waiting now. Any thread, never blocks.</summary>
    int Take(Span<byte> into);

    /// <summary>
    /// Sets what to call (from any thread) when bytes become available after <see cref="Take"/> gave fewer than asked for.
    /// </summary>
    void OnAvailable(Action available);
}
