using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>A message-signalled interrupt under a GSI, so that an eventfd can raise it.</summary>
/// <param name="Gsi">24 or more.</param>
/// <param name="Address">Where the device would write (SDM Vol. 3 §11.11.1).</param>
/// <param name="Data">What it would write.</param>
public readonly record struct KvmMessageRoute(int Gsi, ulong Address, uint Data);

/// <summary>
/// The GSI routing table (KVM_SET_GSI_ROUTING replaces it whole; kvm/api.rst §4.52). A line reaches the 8259 input and the IOAPIC pin of its
/// own number, as in the kernel's default table, with one exception that every PC has and the MADT and MP table tell: the 8254 (line 0)
/// arrives at IOAPIC pin 2, and line 2 is the cascade of the 8259s, which is no interrupt.
/// </summary>
internal static class KvmRouting
{
    private const uint IoApicPins = 24, PicPins = 16, Timer = 0, Cascade = 2, TimerPin = 2;
    private const uint MasterPic = 0, SlavePic = 1, IoApic = 2;

    /// <summary>The entries of the chips' inputs, lines in order.</summary>
    public static IEnumerable<KvmIrqRoutingEntry> Lines()
    {
        for (uint line = 0; line < IoApicPins; line++)
        {
            if (line == Cascade) continue;
            if (line < PicPins) yield return Input(line, line < 8 ? MasterPic : SlavePic, line % 8);
            yield return Input(line, IoApic, line == Timer ? TimerPin : line);
        }
    }

    public static void Set(KvmFile vm, ReadOnlySpan<KvmMessageRoute> messages)
    {
        List<KvmIrqRoutingEntry> entries = [.. Lines()];
        foreach (var message in messages)
        {
            entries.Add(new KvmIrqRoutingEntry
            {
                Gsi = (uint)message.Gsi, Type = KvmIrqRoutingEntry.Msi,
                Word0 = (uint)message.Address, Word1 = (uint)(message.Address >> 32), Word2 = message.Data,
            });
        }
        var table = new byte[8 + (entries.Count * Unsafe.SizeOf<KvmIrqRoutingEntry>())];
        MemoryMarshal.Write(table, (uint)entries.Count);
        MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(entries)).CopyTo(table.AsSpan(8));
        vm.Call(KvmApi.KVM_SET_GSI_ROUTING, table, nameof(KvmApi.KVM_SET_GSI_ROUTING));
    }

    private static KvmIrqRoutingEntry Input(uint line, uint chip, uint pin) =>
        new() { Gsi = line, Type = KvmIrqRoutingEntry.IrqChip, Word0 = chip, Word1 = pin };
}
