using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>A message-signalled interrupt under a GSI, so that an eventfd can raise it.</summary>
/// <param name="Gsi">24 or more.</param>
/// <param name="Address">Where the device would write (SDM Vol. 3 §11.11.1).</param>
/// <param name="Data">What it would write.</param>
public readonly record struct KvmMessageRoute(int Gsi, ulong Address, uint Data);

/// <summary>The GSI routing table (KVM_SET_GSI_ROUTING replaces it whole).</summary>
internal static class KvmRouting
{
    private const int IoApicPins = 24, PicPins = 16;

    public static void Set(KvmFile vm, ReadOnlySpan<KvmMessageRoute> messages)
    {
        var entries = new List<KvmIrqRoutingEntry>(PicPins + IoApicPins + messages.Length);
        for (uint pin = 0; pin < PicPins; pin++)
            entries.Add(new KvmIrqRoutingEntry { Gsi = pin, Type = KvmIrqRoutingEntry.IrqChip, Word0 = pin < 8 ? 0u : 1u,
                Word1 = pin % 8 });
        for (uint pin = 0; pin < IoApicPins; pin++)
            entries.Add(new KvmIrqRoutingEntry { Gsi = pin, Type = KvmIrqRoutingEntry.IrqChip, Word0 = 2, Word1 = pin });
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
}
