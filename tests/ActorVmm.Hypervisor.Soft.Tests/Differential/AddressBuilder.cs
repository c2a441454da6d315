using Iced.Intel;

namespace ActorVmm.Hypervisor.Soft.Tests.Differential;

/// <summary>Finds an addressing form (base, index, scale, RIP-relative, 32-bit, segment prefix) that reaches a wanted address.</summary>
internal readonly struct AddressBuilder(Rng rng, KnownRegisters known)
{
    // The bases of these are zero or ignored in 64-bit mode. FS is left to the host's thread pointer.
    private static readonly Register[] Segments = [Register.ES, Register.CS, Register.SS, Register.DS, Register.GS];

    public bool TryBuild(ref Instruction i, ulong target)
    {
        if (rng.OneIn(16)) i.SegmentPrefix = rng.Pick(Segments);
        switch (rng.Below(12))
        {
            case 0:
                i.MemoryBase = Register.RIP;
                i.MemoryDisplSize = 8;
                i.MemoryDisplacement64 = target;
                return true;
            case 1:
                i.MemoryDisplSize = 4;
                i.MemoryDisplacement64 = target;
                return true;
            case 2:
                return TryRegisters(ref i, target, Register.EAX);
            default:
                return TryRegisters(ref i, target, Register.RAX);
        }
    }

    /// <summary>Any address at all (LEA, which never touches it).</summary>
    public bool BuildAnything(ref Instruction i)
    {
        var first = rng.OneIn(4) ? Register.EAX : Register.RAX;
        if (!rng.OneIn(5)) i.MemoryBase = first + rng.Below(16);
        if (rng.OneIn(2) && rng.Below(16) is var index && index != 4)
        {
            i.MemoryIndex = first + index;
            i.MemoryIndexScale = 1 << rng.Below(4);
        }
        SetDisplacement(ref i, (int)Values.Integer(rng), first == Register.RAX);
        return true;
    }

    private bool TryRegisters(ref Instruction i, ulong target, Register first)
    {
        var wide = first == Register.RAX;
        var index = rng.OneIn(2) ? rng.Below(16) : -1;
        var scale = rng.Below(4);
        if (index == 4 || (index >= 0 && known.Value(index) is null)) index = -1;
        var indexed = index < 0 ? 0 : known.Value(index)!.Value << scale;
        var start = rng.Below(16);
        for (var n = 0; n < 16; n++)
        {
            var register = (start + n) & 15;
            if (known.Value(register) is not { } value) continue;
            var displacement = (long)(target - value - indexed);
            if (!wide) displacement = (int)displacement;
            if (displacement is < int.MinValue or > int.MaxValue) continue;
            i.MemoryBase = first + register;
            if (index >= 0)
            {
                i.MemoryIndex = first + index;
                i.MemoryIndexScale = 1 << scale;
            }
            SetDisplacement(ref i, (int)displacement, wide);
            return true;
        }
        return false;
    }

    private static void SetDisplacement(ref Instruction i, int displacement, bool wide)
    {
        i.MemoryDisplacement64 = wide ? (ulong)displacement : (uint)displacement;
        i.MemoryDisplSize = displacement is >= sbyte.MinValue and <= sbyte.MaxValue ? 1 : wide ? 8 : 4;
    }
}
