using System.Runtime.CompilerServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Segment registers and descriptor tables (SDM Vol. 3 ch. 3 and 5).</summary>
internal sealed unsafe partial class SoftCpu
{
    internal const int SegEs = 0, SegCs = 1, SegSs = 2, SegDs = 3, SegFs = 4, SegGs = 5;

    private const ushort FlatCode64 = 0xA09B, FlatCode32 = 0xC09B, FlatData = 0xC093;

    internal bool ProtectedMode => (_s->Cr0 & Cr0Bits.Pe) != 0;

    /// <summary>EFER.LMA: 64-bit or compatibility mode.</summary>
    internal bool LongMode => (_s->Efer & EferBits.Lma) != 0;

    /// <summary>64-bit mode proper.</summary>
    internal bool Mode64 => _s->Mode == CodeMode.Bits64;

    internal static bool IsCanonical(ulong address) => (ulong)((long)address >> 47) + 1 <= 1;

    internal static ref Segment SegmentOf(CpuState* s, int number) => ref Unsafe.AsRef<Segment>(&s->Es + number);

    /// <summary>Sets a fault with an error code in the state; the caller returns false after it. The op is added where the instruction gives up.</summary>
    private bool RaiseFault(int vector, uint errorCode)
    {
        var s = _s;
        s->Abort = Abort.Exception;
        s->AbortOp = null;
        s->ExceptionVector = vector;
        s->HasErrorCode = 1;
        s->ExceptionErrorCode = errorCode;
        return false;
    }

    /// <summary>As <see cref="RaiseFault(int, uint)"/> for an exception that has no error code (#UD, #BR, #DB).</summary>
    internal bool RaiseFault(int vector)
    {
        RaiseFault(vector, 0);
        _s->HasErrorCode = 0;
        return false;
    }

    /// <summary>A fault whose error code names a selector: table bit and index, with bit 0 EXT (SDM Vol. 3 §6.13).</summary>
    private bool SelectorFault(int vector, ushort selector, uint external = 0) => RaiseFault(vector, (selector & 0xFFFCu) | external);

    /// <summary>Address of a selector's descriptor; false (nothing raised) outside its table or in an unusable LDT.</summary>
    private bool TryDescriptorAddress(ushort selector, int size, out ulong address)
    {
        var s = _s;
        var offset = selector & 0xFFF8u;
        var inLdt = (selector & 4) != 0;
        address = (inLdt ? s->LdtrBase : s->GdtBase) + offset;
        if (!LongMode) address = (uint)address;
        var limit = inLdt ? s->Ldtr.Limit : s->GdtLimit;
        return (!inLdt || s->Ldtr.Present) && offset + (uint)size - 1 <= limit;
    }

    /// <summary>Reads a selector's descriptor; outside the table raises <paramref name="vector"/> with the selector.</summary>
    private bool ReadDescriptor(ushort selector, int vector, uint external, out Descriptor descriptor)
    {
        descriptor = default;
        if (!TryDescriptorAddress(selector, 8, out var address)) return SelectorFault(vector, selector, external);
        if (!ReadSystem64(address, out var raw)) return false;
        descriptor = new Descriptor(raw);
        return true;
    }

    /// <summary>Sets the accessed bit in memory where it is clear (SDM Vol. 3 §3.4.5.1).</summary>
    private bool MarkAccessed(ushort selector, ref Descriptor descriptor)
    {
        if (descriptor.IsAccessed) return true;
        descriptor = new Descriptor(descriptor.Raw | 1UL << 40);
        return !TryDescriptorAddress(selector, 8, out var address) || SystemWrite(address + 5, 1, (byte)(descriptor.Raw >> 40));
    }

    /// <summary>A supervisor load of 8 bytes that finds most of its pages in the TLB.</summary>
    private bool ReadSystem64(ulong linear, out ulong value)
    {
        var s = _s;
        var entry = Mem.Entry(s->TlbRead, linear);
        if (s->Cpl != 3 && Mem.Hit(entry, linear, 8))
        {
            // SAFETY: at CPL 0 to 2 the current TLB is the supervisor's; the tag proves that the page is mapped RAM.
            value = *(ulong*)(linear + entry->Addend);
            return true;
        }
        return SystemRead(linear, 8, out value);
    }

    private void CommitSegment(int number, ushort selector, Descriptor descriptor)
    {
        SegmentOf(_s, number) = descriptor.ToSegment(selector);
        _s->SegBase[number] = descriptor.Base;
    }

    /// <summary>A null selector: unusable, and for FS and GS a zero base.</summary>
    private void CommitNull(int number, ushort selector)
    {
        SegmentOf(_s, number) = new Segment { Selector = selector };
        _s->SegBase[number] = 0;
    }

    /// <summary>Code segment and privilege level together; the caller calls <see cref="UpdateMode"/>.</summary>
    private void CommitCode(ushort selector, Descriptor descriptor, int cpl)
    {
        CommitSegment(SegCs, (ushort)(selector & 0xFFFC | cpl), descriptor);
        _s->Cpl = cpl;
    }

    private void CommitFlat(int number, ushort selector, ushort attributes, int dpl)
    {
        SegmentOf(_s, number) = new Segment { Selector = selector, Limit = uint.MaxValue, Attributes = (ushort)(attributes | dpl << 5) };
        _s->SegBase[number] = 0;
    }

    /// <summary>Selector and base only, the way real mode loads a segment: limit and attributes stay ("unreal mode" rests on that).</summary>
    private void CommitReal(int number, ushort selector)
    {
        SegmentOf(_s, number).Selector = selector;
        SegmentOf(_s, number).Attributes |= 0x80;
        _s->SegBase[number] = (ulong)selector << 4;
    }

    /// <summary>MOV, POP and LxS to ES, SS, DS, FS or GS. False: a fault is raised and nothing has changed.</summary>
    internal bool LoadDataSegment(int number, ushort selector)
    {
        if (!ProtectedMode)
        {
            CommitReal(number, selector);
            return true;
        }
        if (number == SegSs) return LoadStackSegment(selector);
        if ((selector & 0xFFFC) == 0)
        {
            CommitNull(number, selector);
            return true;
        }
        if (!ReadDescriptor(selector, Vector.Gp, 0, out var descriptor)) return false;
        if (!descriptor.IsCodeOrData || !descriptor.IsReadable) return SelectorFault(Vector.Gp, selector);
        if (!descriptor.IsConforming && descriptor.Dpl < Math.Max(selector & 3, _s->Cpl)) return SelectorFault(Vector.Gp, selector);
        if (!descriptor.Present) return SelectorFault(Vector.Np, selector);
        if (!MarkAccessed(selector, ref descriptor)) return false;
        CommitSegment(number, selector, descriptor);
        return true;
    }

    private bool LoadStackSegment(ushort selector)
    {
        if ((selector & 0xFFFC) == 0)
        {
            // 64-bit code below ring 3 may run on a null SS whose RPL is its CPL.
            if (!Mode64 || _s->Cpl == 3 || (selector & 3) != _s->Cpl) return RaiseFault(Vector.Gp, 0);
            CommitNullStack(selector);
            return true;
        }
        if (!CheckStackSegment(selector, _s->Cpl, Vector.Gp, 0, out var descriptor)) return false;
        CommitSegment(SegSs, selector, descriptor);
        return true;
    }

    private void CommitNullStack(ushort selector)
    {
        CommitNull(SegSs, selector);
        _s->Ss.Attributes = (ushort)((selector & 3) << 5);
    }

    /// <summary>
    /// Checks a stack segment for privilege <paramref name="cpl"/>: RPL and DPL equal to it, writable data, present (#SS), and marks it
    /// accessed. What is not right about the selector raises <paramref name="vector"/> (#GP, or #TS when it comes from a TSS).
    /// </summary>
    private bool CheckStackSegment(ushort selector, int cpl, int vector, uint external, out Descriptor descriptor)
    {
        if (!ReadDescriptor(selector, vector, external, out descriptor)) return false;
        if ((selector & 3) != cpl || descriptor.Dpl != cpl || !descriptor.IsWritableData) return SelectorFault(vector, selector, external);
        if (!descriptor.Present) return SelectorFault(Vector.Ss, selector, external);
        return MarkAccessed(selector, ref descriptor);
    }

    /// <summary>After a return to an outer level: data segments that the new level must not reach become null (SDM Vol. 2A IRET, RET).</summary>
    private void DropInnerSegments()
    {
        DropIfInner(SegEs);
        DropIfInner(SegDs);
        DropIfInner(SegFs);
        DropIfInner(SegGs);
    }

    private void DropIfInner(int number)
    {
        ref var segment = ref SegmentOf(_s, number);
        var conforming = (segment.Type & 0xC) == 0xC;
        if (!segment.Present || conforming || segment.Dpl >= _s->Cpl) return;
        segment.Selector = 0;
        segment.Attributes = 0;
    }

    /// <summary>LLDT (SDM Vol. 2A).</summary>
    internal bool LoadLdt(ushort selector)
    {
        var s = _s;
        if ((selector & 0xFFFC) == 0)
        {
            s->Ldtr = new Segment { Selector = selector };
            return true;
        }
        if (!ReadSystemDescriptor(selector, out var descriptor, out var high)) return false;
        if (descriptor.Type != SystemType.Ldt) return SelectorFault(Vector.Gp, selector);
        if (!descriptor.Present) return SelectorFault(Vector.Np, selector);
        s->Ldtr = descriptor.ToSegment(selector);
        s->LdtrBase = descriptor.Base | high << 32;
        return true;
    }

    /// <summary>LTR (SDM Vol. 2A): loads the task register and marks the TSS busy.</summary>
    internal bool LoadTaskRegister(ushort selector)
    {
        var s = _s;
        if ((selector & 0xFFFC) == 0) return RaiseFault(Vector.Gp, 0);
        if (!ReadSystemDescriptor(selector, out var descriptor, out var high)) return false;
        if (descriptor.Type != SystemType.Tss32 && (LongMode || descriptor.Type != SystemType.Tss16)) return SelectorFault(Vector.Gp, selector);
        if (!descriptor.Present) return SelectorFault(Vector.Np, selector);
        descriptor = new Descriptor(descriptor.Raw | 1UL << 41);
        TryDescriptorAddress(selector, 8, out var address);
        if (!SystemWrite(address + 5, 1, (byte)(descriptor.Raw >> 40))) return false;
        s->Tr = descriptor.ToSegment(selector);
        s->TrBase = descriptor.Base | high << 32;
        return true;
    }

    /// <summary>A system descriptor of the GDT; 16 bytes in long mode, whose upper half must not look like a code or data segment.</summary>
    private bool ReadSystemDescriptor(ushort selector, out Descriptor descriptor, out ulong high)
    {
        (descriptor, high) = (default, 0);
        if ((selector & 4) != 0 || !TryDescriptorAddress(selector, LongMode ? 16 : 8, out var address)) return SelectorFault(Vector.Gp, selector);
        if (!ReadSystem64(address, out var raw)) return false;
        descriptor = new Descriptor(raw);
        if (descriptor.IsCodeOrData) return SelectorFault(Vector.Gp, selector);
        if (!LongMode) return true;
        if (!ReadSystem64(address + 8, out var upper)) return false;
        if ((upper >> 40 & 0x1F) != 0) return SelectorFault(Vector.Gp, selector);
        high = (uint)upper;
        return true;
    }

    /// <summary>
    /// The descriptor behind a selector for LAR, LSL, VERR and VERW, which answer with ZF instead of a fault. False with
    /// <see cref="CpuState.Abort"/> clear: no such descriptor; with it set: the table itself faulted.
    /// </summary>
    internal bool TryInspectDescriptor(ushort selector, out Descriptor descriptor)
    {
        descriptor = default;
        if ((selector & 0xFFFC) == 0 || !TryDescriptorAddress(selector, 8, out var address)) return false;
        if (!ReadSystem64(address, out var raw)) return false;
        descriptor = new Descriptor(raw);
        return true;
    }

    /// <summary>Whether CPL and RPL let LAR, LSL, VERR and VERW look at a descriptor.</summary>
    internal bool MayInspect(ushort selector, Descriptor descriptor) =>
        descriptor.IsConforming || descriptor.Dpl >= Math.Max(_s->Cpl, selector & 3);
}
