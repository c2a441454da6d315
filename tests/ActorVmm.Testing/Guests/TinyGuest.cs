using ActorVmm.Hypervisor;
using ActorVmm.Memory;
using Iced.Intel;

namespace ActorVmm.Testing.Guests;

/// <summary>
/// A machine with a few pages of assembled code: 64-bit ring 0, the first 4 GiB mapped one to one in 2 MiB pages, an IDT whose 32
/// exception gates report what happened. See <see cref="GuestLayout"/> for the places and <see cref="GuestCode"/> for the macros.
/// </summary>
public sealed partial class TinyGuest : IDisposable
{
    private readonly bool _owned = true;
    private readonly HashSet<ulong> _tables = [];
    private ulong _nextTable = GuestLayout.PageTablePool;
    private ulong _nextHandler = GuestLayout.Handlers;

    public TinyGuest(IHypervisor hypervisor, int vcpus = 1, ulong memorySize = GuestLayout.MemorySize)
    {
        Memory = GuestMemory.Create(memorySize);
        try
        {
            Machine = hypervisor.CreateMachine(new MachineOptions(Memory, vcpus));
        }
        catch
        {
            Memory.Dispose();
            throw;
        }
        WriteDescriptors();
        WriteIdentityMap();
        WriteFaultHandler();
    }

    /// <summary>Puts the pages into somebody else's machine, of at least <see cref="GuestLayout.MemorySize"/>; it stays theirs.</summary>
    public TinyGuest(IMachine machine)
    {
        ArgumentNullException.ThrowIfNull(machine);
        _owned = false;
        Memory = machine.Memory;
        Machine = machine;
        WriteDescriptors();
        WriteIdentityMap();
        WriteFaultHandler();
    }

    public GuestMemory Memory { get; }

    public IMachine Machine { get; }

    /// <summary>What an IN or a load from outside RAM gets; all ones unless set.</summary>
    public Func<GuestAccess, ulong> Answer { get; set; } = static _ => ulong.MaxValue;

    /// <summary>What the guest's <see cref="GuestCode.Act"/> does, by number.</summary>
    public Dictionary<byte, Action> Actions { get; } = [];

    /// <summary>Assembles <paramref name="write"/> to physical <paramref name="at"/>, to be run at linear <paramref name="origin"/> (the
    /// same unless given).</summary>
    public ulong Place(ulong at, Action<Assembler> write, int bitness = 64, ulong? origin = null)
    {
        var code = Assemble(write, bitness, origin ?? at);
        if (!Memory.TryWrite(new GuestAddress(at),
            code)) throw new InvalidOperationException($"no RAM for {code.Length} bytes at 0x{at:x}");
        return at;
    }

    /// <summary>The machine code of <paramref name="write"/> for address <paramref name="origin"/>.</summary>
    public static byte[] Assemble(Action<Assembler> write, int bitness, ulong origin)
    {
        var assembler = new Assembler(bitness);
        write(assembler);
        using var stream = new MemoryStream();
        if (!assembler.TryAssemble(new StreamCodeWriter(stream), origin, out var error, out _)) throw new InvalidOperationException(error);
        return stream.ToArray();
    }

    /// <summary>The main program of vCPU 0, 64-bit ring 0.</summary>
    public TinyGuest Code(Action<Assembler> write)
    {
        Place(GuestLayout.Code, write);
        return this;
    }

    /// <summary>Code for an interrupt or exception gate, entered in ring 0. <paramref name="write"/> ends with IRETQ itself.</summary>
    public TinyGuest Handler(byte vector, Action<Assembler> write, int ist = 0, int dpl = 0, bool trap = false)
    {
        var at = _nextHandler;
        _nextHandler += 0x200;
        Place(at, write);
        SetGate(vector, at, ist, dpl, trap);
        return this;
    }

    /// <summary>A gate of the IDT (SDM Vol. 3 §6.14.1). A present gate unless <paramref name="present"/> is false.</summary>
    public void SetGate(byte vector, ulong target, int ist = 0, int dpl = 0, bool trap = false, ushort selector = GuestLayout.KernelCode,
        bool present = true)
    {
        var at = GuestLayout.Idt + ((ulong)vector * 16);
        var type = (trap ? 0xFu : 0xEu) | ((uint)dpl << 5) | (present ? 0x80u : 0);
        Write(at, (target & 0xFFFF) | ((ulong)selector << 16) | ((ulong)(uint)ist << 32) | ((ulong)type << 40) | ((target >> 16 & 0xFFFF) << 48));
        Write(at + 8, target >> 32);
    }

    /// <summary>Writes a little-endian value to RAM.</summary>
    public void Write<T>(ulong at, T value) where T : unmanaged
    {
        if (!Memory.TryWrite(new GuestAddress(at), value)) throw new InvalidOperationException($"no RAM at 0x{at:x}");
    }

    /// <summary>Reads a little-endian value from RAM.</summary>
    public T Read<T>(ulong at) where T : unmanaged =>
        Memory.TryRead(new GuestAddress(at), out T value) ? value : throw new InvalidOperationException($"no RAM at 0x{at:x}");

    /// <summary>Sets vCPU 0 up for 64-bit ring 0 at <paramref name="rip"/>. <paramref name="change"/> has the last word.</summary>
    public TinyGuest Start64(ulong rip = GuestLayout.Code, Func<VcpuState, VcpuState>? change = null)
    {
        var vcpu = Machine.Vcpus[0];
        var state = vcpu.GetState();
        state = state with
        {
            General = new GeneralRegisters { Rip = rip, Rsp = GuestLayout.KernelStack },
            Special = state.Special with
            {
                Cs = CodeSegment(GuestLayout.KernelCode, bitness: 64),
                Ds = Data(), Es = Data(), Fs = Data(), Gs = Data(), Ss = Data(),
                Tr = new SegmentState(GuestLayout.TaskState, GuestLayout.Tss, TssLimit, 0xB, true, 0, true, false, false, false),
                Gdt = new TableRegister(GuestLayout.Gdt, GuestLayout.GdtLimit),
                Idt = new TableRegister(GuestLayout.Idt, 0xFFF),
                Cr0 = 0x8001_0031, // PG, WP, NE, ET, PE
                Cr3 = GuestLayout.Pml4,
                Cr4 = 0x620, // PAE, OSFXSR, OSXMMEXCPT
                Efer = 0xD01, // NXE, LMA, LME, SCE
            },
            Activity = VcpuActivity.Running,
        };
        vcpu.SetState(change?.Invoke(state) ?? state);
        return this;
    }

    /// <summary>Sets vCPU 0 up for flat 32-bit protected mode without paging, as PVH asks (Xen's x86-hvm-start ABI).</summary>
    public TinyGuest Start32(ulong rip = GuestLayout.Code)
    {
        var vcpu = Machine.Vcpus[0];
        var state = vcpu.GetState();
        var data = Data() with { Limit = 0xFFFF_FFFF };
        vcpu.SetState(state with
        {
            General = new GeneralRegisters { Rip = rip, Rsp = GuestLayout.KernelStack },
            Special = state.Special with
            {
                Cs = CodeSegment(GuestLayout.KernelCode32, bitness: 32),
                Ds = data, Es = data, Fs = data, Gs = data, Ss = data,
                Tr = new SegmentState(0, 0, 0x67, 0xB, true, 0, true, false, false, false),
                Gdt = new TableRegister(GuestLayout.Gdt, GuestLayout.GdtLimit),
                Idt = new TableRegister(0, 0),
                Cr0 = 0x11,
                Cr3 = 0,
                Cr4 = 0,
                Efer = 0,
            },
            Activity = VcpuActivity.Running,
        });
        return this;
    }

    private static SegmentState Data() => new(GuestLayout.KernelData, 0, 0xFFFF_FFFF, 3, true, 0, false, false, true, true);

    private static SegmentState CodeSegment(ushort selector, int bitness) =>
        new(selector, 0, 0xFFFF_FFFF, 0xB, true, 0, false, bitness == 64, bitness == 32, true);

    public void Dispose()
    {
        if (!_owned) return;
        Machine.Dispose();
        Memory.Dispose();
    }
}
