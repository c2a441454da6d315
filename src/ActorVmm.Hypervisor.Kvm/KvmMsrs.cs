using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>The model-specific registers that are set at start and that make up a saved state.</summary>
internal sealed class KvmMsrs
{
    public const uint TimeStampCounter = 0x10;
    public const uint FeatureControl = 0x3A;
    public const uint SysenterCs = 0x174, SysenterEsp = 0x175, SysenterEip = 0x176;
    public const uint McgCtl = 0x17B;
    public const uint MiscEnable = 0x1A0;
    public const uint TscDeadline = 0x6E0;
    public const uint Star = 0xC0000081, Lstar = 0xC0000082, Cstar = 0xC0000083, SyscallMask = 0xC0000084, KernelGsBase = 0xC0000102;

    private uint[] _saved;

    private KvmMsrs(uint[] saved) => _saved = saved;

    /// <summary>The registers that KVM names for saving (kvm/api.rst §4.3), without the two that no guest here may have.</summary>
    public static KvmMsrs Of(KvmSystem system) =>
        new([.. system.MsrIndexList().Where(index => index is not (FeatureControl or McgCtl))]);

    /// <summary>The values at start (guest-abi sheet 3.4): system call registers zero, fast strings on.</summary>
    public static IReadOnlyList<MsrValue> Boot { get; } =
    [
        new(SysenterCs, 0), new(SysenterEsp, 0), new(SysenterEip, 0), new(Star, 0), new(Cstar, 0), new(KernelGsBase, 0), new(SyscallMask,
            0),
        new(Lstar, 0), new(TimeStampCounter, 0), new(MiscEnable, 1),
    ];

    /// <summary>Finds out on a live vCPU which of the named registers this host really gives, once per machine.</summary>
    public void KeepReadable(KvmFile vcpu) => _saved = [.. Read(vcpu, _saved, skipRefused: true).Select(msr => msr.Index)];

    /// <summary>All saved registers.</summary>
    public IReadOnlyList<MsrValue> Get(KvmFile vcpu) => Read(vcpu, _saved, skipRefused: false);

    /// <summary>The time stamp counter and, where there is one, its deadline.</summary>
    public IReadOnlyList<MsrValue> GetTime(KvmFile vcpu) =>
        Read(vcpu, [.. _saved.Where(index => index is TimeStampCounter or TscDeadline)], skipRefused: false);

    /// <summary>
    /// Sets registers in their order, the TSC deadline last: it is compared with the TSC. All must be taken (KVM_SET_MSRS reports how many
    /// were); a refused one that already has the wanted value is no loss (read-only registers of the host's version).
    /// </summary>
    public void Set(KvmFile vcpu, IReadOnlyList<MsrValue> values)
    {
        var ordered = values.Where(v => v.Index != TscDeadline).Concat(values.Where(v => v.Index == TscDeadline)).ToArray();
        for (var done = 0; done < ordered.Length;)
        {
            done += Transfer(vcpu, KvmApi.KVM_SET_MSRS, nameof(KvmApi.KVM_SET_MSRS), ordered.AsSpan(done));
            if (done == ordered.Length) return;
            var refused = ordered[done];
            var current = new MsrValue[] { new(refused.Index, 0) };
            if (Transfer(vcpu, KvmApi.KVM_GET_MSRS, nameof(KvmApi.KVM_GET_MSRS), current) != 1 || current[0].Value != refused.Value)
                throw new HypervisorException(
                    $"KVM_SET_MSRS refused MSR 0x{refused.Index:x} = 0x{refused.Value:x}: the state comes from another kind of processor");
            done++;
        }
    }

    private static MsrValue[] Read(KvmFile vcpu, uint[] indices, bool skipRefused)
    {
        var values = Array.ConvertAll(indices, index => new MsrValue(index, 0));
        var kept = new List<MsrValue>(values.Length);
        for (var done = 0; done < values.Length;)
        {
            var got = Transfer(vcpu, KvmApi.KVM_GET_MSRS, nameof(KvmApi.KVM_GET_MSRS), values.AsSpan(done));
            kept.AddRange(values.AsSpan(done, got));
            done += got;
            if (done == values.Length) break;
            if (!skipRefused) throw new HypervisorException($"KVM_GET_MSRS refused MSR 0x{values[done].Index:x}");
            done++;
        }
        return [.. kept];
    }

    /// <summary>One ioctl with all of <paramref name="values"/>; how many the kernel processed before one it refused.</summary>
    private static int Transfer(KvmFile vcpu, uint request, string name, Span<MsrValue> values)
    {
        var size = Unsafe.SizeOf<KvmMsrEntry>();
        var buffer = new byte[8 + (values.Length * size)];
        MemoryMarshal.Write(buffer, (uint)values.Length);
        var entries = MemoryMarshal.Cast<byte, KvmMsrEntry>(buffer.AsSpan(8));
        for (var i = 0; i < values.Length; i++) entries[i] = new KvmMsrEntry { Index = values[i].Index, Data = values[i].Value };
        var done = vcpu.Call(request, buffer, name);
        for (var i = 0; i < values.Length; i++) values[i] = new MsrValue(entries[i].Index, entries[i].Data);
        return done;
    }
}
