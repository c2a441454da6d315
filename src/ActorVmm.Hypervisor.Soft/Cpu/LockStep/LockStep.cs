using System.Globalization;
using System.Text;
using Iced.Intel;
using Decoder = Iced.Intel.Decoder;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// A debug mode: every block of machine code is run by tier 0 first, taken back, run again as machine code, and both results are compared:
/// registers, flags, memory, exception or exit, instruction count. The first difference stops the machine. Blocks in which tier 0 reached
/// something that cannot be taken back (a chip, translated code) count with tier 0's result.
/// </summary>
internal sealed unsafe class LockStep(SoftMachine machine) : IDisposable
{
    private readonly WriteJournal _journal = new();
    private readonly StateImage _before = new(), _interpreted = new(), _compiled = new();
    private readonly TlbEntry*[] _writable = new TlbEntry*[512];
    private int _writableCount;
    private bool _recording;
    private VcpuExitKind _exit;
    private (ulong Address, int Size, ulong Data) _access;

    /// <summary>Blocks that were compared, and those that could not be.</summary>
    public ulong Compared { get; private set; }

    public ulong NotCompared { get; private set; }

    /// <summary>Instructions of the compared blocks.</summary>
    public ulong Instructions { get; private set; }

    /// <summary>Something happened that cannot be taken back.</summary>
    public bool ReachedOutside { get; private set; }

    public void NoteOutside() => ReachedOutside = true;

    /// <summary>A write TLB entry was made: its page may change from now on.</summary>
    public void NoteWritable(TlbEntry* entry, byte* host)
    {
        if (_writableCount == _writable.Length)
        {
            var tag = entry->Tag;
            DropWritable();
            entry->Tag = tag;
        }
        _writable[_writableCount++] = entry;
        NoteWrite(host);
    }

    /// <summary>A page is about to be written past the TLB.</summary>
    public void NoteWrite(byte* host)
    {
        if (_recording && !_journal.TryNote(host)) ReachedOutside = true;
    }

    /// <summary>A page walk has set bits in a table entry.</summary>
    public void NoteWalk(byte* entry, ulong bits)
    {
        if (_recording) _journal.Keep(entry, bits);
    }

    /// <summary>Empties the write TLBs, so that the first write to each page is seen.</summary>
    public void DropWritable()
    {
        for (var i = 0; i < _writableCount; i++) _writable[i]->Tag = TlbEntry.Invalid;
        _writableCount = 0;
    }

    public void Begin(CpuState* s)
    {
        DropWritable();
        _journal.Clear();
        (_recording, ReachedOutside) = (true, false);
        _before.CopyFrom(s);
    }

    /// <summary>Tier 0 is through. True where its work is taken back and compiled code shall do the same.</summary>
    public bool TryTakeBack(CpuState* s, VcpuExitKind exit, VcpuExit description)
    {
        if (ReachedOutside)
        {
            _recording = false;
            NotCompared++;
            return false;
        }
        _interpreted.Take(s);
        (_exit, _access) = (exit, (description.Address, description.Size, description.Data));
        _journal.TakeBack();
        _before.CopyTo(s);
        Compared++;
        // Compiled code mostly finds the TLB as tier 0 left it, so that it uses its own way to memory; and now and then it does not.
        if (Compared % 4 == 0) DropWritable();
        return true;
    }

    /// <summary>Compiled code is through; null where both agree, else what is different.</summary>
    public string? Compare(CpuState* s, VcpuExitKind exit, VcpuExit description, Block* block)
    {
        _recording = false;
        Instructions += (ulong)block->Count;
        _compiled.Take(s);
        var differences = new List<string>();
        if (ReachedOutside) differences.Add("compiled code alone reached a chip or translated code");
        if (!_interpreted.Equals(_compiled)) differences.AddRange(_interpreted.Differences(_compiled));
        if (exit != _exit || (exit != VcpuExitKind.None && _access != (description.Address, description.Size, description.Data)))
            differences.Add(string.Create(CultureInfo.InvariantCulture, $"exit {_exit} {_access} and {exit} {description}"));
        var host = _journal.FindDifference(out var first, out var second);
        if (host != null)
            differences.Add(string.Create(CultureInfo.InvariantCulture, $"memory at guest physical 0x{machine.Ram.PhysicalAt(host):x}: {first:x2} and {second:x2}"));
        return differences.Count == 0 ? null : Describe(block, differences);
    }

    private string Describe(Block* block, List<string> differences)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"tier 0 and compiled code differ in the block of {block->Count} instructions at guest physical ")
            .Append(CultureInfo.InvariantCulture, $"0x{block->Physical:x} (block {Compared}): ").AppendJoin("; ", differences);
        // SAFETY: the block lives, so its code is in RAM unchanged and within one page.
        var code = new ReadOnlySpan<byte>(machine.Ram.Host(block->Physical), block->Length).ToArray();
        var decoder = Decoder.Create(64, code);
        decoder.IP = block->Physical;
        var formatter = new NasmFormatter();
        var line = new StringOutput();
        for (var n = 0; n < block->Count; n++)
        {
            var instruction = decoder.Decode();
            formatter.Format(instruction, line);
            text.Append(CultureInfo.InvariantCulture, $"\n  {instruction.IP:x}  {line.ToStringAndReset()}");
        }
        return text.ToString();
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"lock-step: {Compared} blocks with {Instructions} instructions compared, {NotCompared} not");

    public void Dispose()
    {
        _journal.Dispose();
        _before.Dispose();
        _interpreted.Dispose();
        _compiled.Dispose();
    }
}
