namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>Both tiers, block by block, see <see cref="LockStep"/>.</summary>
internal sealed unsafe partial class SoftCpu
{
    private readonly LockStep? _lockStep;

    /// <summary>The mode's figures, or null where it is off.</summary>
    public LockStep? LockStep => _lockStep;

    /// <summary>What the guest does here cannot be taken back.</summary>
    public void NoteOutside() => _lockStep?.NoteOutside();

    /// <summary>Runs one block, by both tiers where it is compiled; its budget is taken already.</summary>
    private void ExecuteBothTiers(Block* block)
    {
        var s = _s;
        var entry = Block.Ops(block);
        var check = _lockStep!;
        if (block->Interpreted == null && _tier != null && block->Mode == CodeMode.Bits64 && block->SecondPage == ulong.MaxValue && entry->Imm <= 1)
        {
            // It would be compiled while it runs; it is compiled before, so that it is compared from its first time on.
            if (!_blocks.TryKeepInterpreted(block))
            {
                _clearCode = true;
                s->Budget += block->Count;
                return;
            }
            CompileBlock(block);
        }
        Volatile.Write(ref s->Attention, long.MinValue); // the end of the block must not go on to the next
        if (block->Code == null)
        {
            entry->Fn(s, entry);
            return;
        }
        var (nmiMasked, checksAlignment) = (NmiMasked, _checksAlignment);
        check.Begin(s);
        var interpreted = Block.Ops(block->Interpreted);
        interpreted->Fn(s, interpreted);
        var exit = s->Abort == Abort.Exit ? _exitKind : VcpuExitKind.None;
        if (!check.TryTakeBack(s, exit, Exit)) return;
        (NmiMasked, _checksAlignment, _logWanted, _inSize) = (nmiMasked, checksAlignment, false, 0);
        Volatile.Write(ref s->Attention, long.MinValue);
        entry->Fn(s, entry);
        exit = s->Abort == Abort.Exit ? _exitKind : VcpuExitKind.None;
        if (check.Compare(s, exit, Exit, block) is not { } difference) return;
        Exit.Detail = $"vCPU {Id}: {difference}";
        _exitKind = VcpuExitKind.Failed;
        s->Abort = Abort.Exit;
    }
}
