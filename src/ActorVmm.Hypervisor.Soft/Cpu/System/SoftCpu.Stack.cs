namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Stacks that are used before they are committed: interrupt frames, far calls and returns.</summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>A stack pointer on its way; nothing reaches the registers until the whole transfer has been checked.</summary>
    private struct PendingStack
    {
        public ulong Pointer;

        /// <summary>Bits of the pointer that move: 64, 32 or 16.</summary>
        public ulong Mask;
        public ulong Base;
        public Segment Segment;

        /// <summary>64-bit mode: no base, no limit.</summary>
        public bool Flat;

        /// <summary>Error code of a #SS on this stack.</summary>
        public uint ErrorCode;

        /// <summary>Accesses count as the user's (the code that owns this stack runs at CPL 3).</summary>
        public bool User;
    }

    /// <summary>The stack in use.</summary>
    private PendingStack CurrentStack(uint errorCode = 0) => new()
    {
        Pointer = _s->Regs[4],
        Mask = Mode64 ? ulong.MaxValue : _s->Ss.Big ? uint.MaxValue : 0xFFFF,
        Base = Mode64 ? 0 : _s->SegBase[SegSs],
        Segment = _s->Ss,
        Flat = Mode64,
        ErrorCode = errorCode,
        User = _s->Cpl == 3,
    };

    /// <summary>Stack of a 64-bit handler.</summary>
    private static PendingStack FlatStack(ulong pointer, uint errorCode) =>
        new() { Pointer = pointer, Mask = ulong.MaxValue, Flat = true, ErrorCode = errorCode };

    /// <summary>Stack named by a descriptor in the legacy modes.</summary>
    private static PendingStack StackOf(ushort selector, Descriptor descriptor, ulong pointer, uint errorCode) => new()
    {
        Pointer = pointer,
        Mask = descriptor.Big ? uint.MaxValue : 0xFFFF,
        Base = descriptor.Base,
        Segment = descriptor.ToSegment(selector),
        ErrorCode = errorCode,
    };

    /// <summary>Linear address of an offset from the stack's top; raises #SS outside the limit or where it is not canonical.</summary>
    private bool StackAddress(ref PendingStack stack, ulong pointer, int size, out ulong linear)
    {
        linear = pointer;
        if (stack.Flat) return IsCanonical(pointer) || RaiseFault(Vector.Ss, stack.ErrorCode);
        var offset = (uint)(pointer & stack.Mask);
        linear = (uint)(stack.Base + offset);
        return InSegment(stack.Segment, offset, size) || RaiseFault(Vector.Ss, stack.ErrorCode);
    }

    /// <summary>Limit check of the legacy modes, expand-down segments included (SDM Vol. 3 §5.3).</summary>
    internal static bool InSegment(Segment segment, uint offset, int size)
    {
        var last = (ulong)offset + (uint)size - 1;
        return (segment.Type & 0xC) == 4
            ? offset > segment.Limit && last <= (segment.Big ? uint.MaxValue : 0xFFFFu)
            : last <= segment.Limit;
    }

    private bool Push(Op* op, ref PendingStack stack, ulong value, int size)
    {
        var pointer = (stack.Pointer - (uint)size) & stack.Mask | stack.Pointer & ~stack.Mask;
        if (!StackAddress(ref stack, pointer, size, out var linear)) return false;
        if (stack.User)
        {
            // The user's own stack: its pages must be the user's and writable.
            if (!ProbeWrite(op, linear, size)) return false;
        }
        else if (size == 8 && _s->Cpl != 3)
        {
            var host = Mem.TryPointer<ulong>(_s, linear);
            if (host != null)
            {
                // SAFETY: at CPL 0 to 2 the current write TLB is the supervisor's, and its tag proved the page.
                *host = value;
                stack.Pointer = pointer;
                return true;
            }
        }
        if (!SystemWrite(linear, size, size == 8 ? value : value & ((1UL << size * 8) - 1))) return false;
        stack.Pointer = pointer;
        return true;
    }

    /// <summary>Pops at the current privilege.</summary>
    private bool Pop(Op* op, ref PendingStack stack, int size, out ulong value)
    {
        value = 0;
        if (!StackAddress(ref stack, stack.Pointer, size, out var linear)) return false;
        value = size switch
        {
            2 => Mem.Read<ushort>(_s, op, linear),
            4 => Mem.Read<uint>(_s, op, linear),
            _ => Mem.Read<ulong>(_s, op, linear),
        };
        if (_s->Abort != Abort.None) return false;
        stack.Pointer = (stack.Pointer + (uint)size) & stack.Mask | stack.Pointer & ~stack.Mask;
        return true;
    }

    /// <summary>Takes over the pointer the way the stack's width says.</summary>
    private void CommitStackPointer(in PendingStack stack) =>
        _s->Regs[4] = stack.Mask == 0xFFFF ? _s->Regs[4] & ~0xFFFFUL | stack.Pointer & 0xFFFF : stack.Pointer & stack.Mask;

    /// <summary>PUSH of a value at the current privilege. False: a fault is raised and nothing has changed.</summary>
    internal bool PushValue(Op* op, ulong value, int size)
    {
        var stack = CurrentStack();
        if (!Push(op, ref stack, value, size)) return false;
        CommitStackPointer(stack);
        return true;
    }

    /// <summary>POP to a segment register; after POP SS interrupts wait for one instruction.</summary>
    internal bool PopSegment(Op* op, int number, int size)
    {
        var stack = CurrentStack();
        if (!Pop(op, ref stack, size, out var value) || !LoadDataSegment(number, (ushort)value)) return false;
        CommitStackPointer(stack);
        if (number == SegSs) _s->InterruptShadow = 1;
        return true;
    }
}
