using System.Collections.Concurrent;
using ActorVmm.Hypervisor.Soft.Cpu.Compiler;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>The run loop: time, interrupts, translation, and what handlers came back with.</summary>
internal sealed unsafe partial class SoftCpu
{
    /// <summary>Instructions between looks at the host's clock.</summary>
    private const long HostSegment = 20_000;

    /// <summary>The longest grant under virtual time.</summary>
    private const long VirtualSlice = 1_000_000;

    /// <summary>Requests that a sleeping CPU gathers before it is woken to serve them.</summary>
    private const int MaxQuietRequests = 256;

    private readonly BlockCache _blocks;
    private readonly ConcurrentQueue<CodeRequest> _requests = new();
    private readonly ManualResetEventSlim _wake = new(initialState: false, spinCount: 0);
    private int _kicked;
    private int _interruptRequested;
    private int _initRequested;
    private int _startupVector = -1;
    private int _inGuest;
    private bool _alone;
    private bool _haltReported;

    /// <summary>What another thread asks of this CPU's block cache and write TLB.</summary>
    private readonly record struct CodeRequest(ulong Physical, int Size, SoftCpu? FlushFor);

    public VcpuExit Exit { get; } = new();

    // --- requests from other threads: note, then get the loop's attention ---

    public void Kick()
    {
        Volatile.Write(ref _kicked, 1);
        Attend();
    }

    public void RequestInterrupt()
    {
        Volatile.Write(ref _interruptRequested, 1);
        Attend();
    }

    public void RequestNmi()
    {
        RaiseNmi();
        Attend();
    }

    public void RequestInit()
    {
        Volatile.Write(ref _initRequested, 1);
        Attend();
    }

    public void RequestStartup(byte vector)
    {
        Volatile.Write(ref _startupVector, vector);
        Attend();
    }

    /// <summary>Makes the loop look at everything anew: deadlines changed.</summary>
    public void Attend()
    {
        Interlocked.Exchange(ref _s->Attention, long.MinValue);
        _wake.Set();
        if (_turns is { } turns && !turns.Holds(this)) turns.WakeHolder();
    }

    /// <summary>
    /// Makes the loop look before its next instruction. A CPU that sleeps in HLT is not woken for that, which would cost the sender more than
    /// all of its own part, until much has come together.
    /// </summary>
    private void AttendBeforeNext()
    {
        if (_turns != null)
        {
            Attend();
            return;
        }
        Interlocked.Exchange(ref _s->Attention, long.MinValue);
        if (Volatile.Read(ref _inGuest) == 0 && _requests.Count >= MaxQuietRequests) _wake.Set();
    }

    /// <summary>Asks to drop the blocks of a written range.</summary>
    public void PostInvalidate(ulong physical, int size)
    {
        _requests.Enqueue(new CodeRequest(physical, size, null));
        AttendBeforeNext();
    }

    /// <summary>Asks to drop write-TLB entries of a page that <paramref name="holder"/> translates code from.</summary>
    public void PostFlushWrites(ulong page, SoftCpu holder)
    {
        // A CPU outside the guest serves this before its next instruction; one inside may still write through the old entry until then,
        // so the holder drops what it has translated of the page once that is over.
        _requests.Enqueue(new CodeRequest(page, 0, null));
        AttendBeforeNext();
        if (Volatile.Read(ref _inGuest) == 0) return;
        _requests.Enqueue(new CodeRequest(page, 0, holder));
        AttendBeforeNext(); // again: the first request may have been served already
    }

    // --- the loop ---

    /// <summary>Runs the guest until an exit.</summary>
    public VcpuExitKind Run()
    {
        var s = _s;
        AnswerPending();
        try
        {
            for (; ; )
            {
                if (_turns != null && !AwaitTurn(_turns)) return Report(VcpuExitKind.Kicked);
                Volatile.Write(ref _inGuest, 1);
                Interlocked.MemoryBarrier();
                if (s->Attention != 0 && TakeRequests()) return Report(VcpuExitKind.Kicked);
                if (Activity != VcpuActivity.Running)
                {
                    var halted = Idle();
                    if (halted != VcpuExitKind.None) return Report(halted);
                    continue;
                }
                if (_turns != null && _turns.IsOver(this)) continue;
                if (AdvanceTime()) return Report(VcpuExitKind.Alarm);
                if (s->InterruptShadow == 0 && TakeInterrupt())
                {
                    if (s->Abort == Abort.Shutdown) return Report(VcpuExitKind.Shutdown);
                    continue;
                }
                Execute();
                if (s->Abort == Abort.None) continue;
                var exit = Settle();
                if (exit != VcpuExitKind.None) return Report(exit);
            }
        }
        finally
        {
            Volatile.Write(ref _inGuest, 0);
        }
    }

    private VcpuExitKind Report(VcpuExitKind kind)
    {
        Exit.Kind = kind;
        return kind;
    }

    /// <summary>Serves what other threads asked for; true where a kick ends the run.</summary>
    private bool TakeRequests()
    {
        var s = _s;
        Interlocked.Exchange(ref s->Attention, 0);
        while (_requests.TryDequeue(out var request))
        {
            if (request.Size > 0) _blocks.Invalidate(request.Physical, request.Size, null);
            else if (request.FlushFor is { } holder) holder.PostInvalidate(request.Physical & ~0xFFFUL, 0x1000);
            else FlushWrites(request.Physical & ~0xFFFUL);
        }
        if (Interlocked.Exchange(ref _interruptRequested, 0) != 0) s->InterruptWaiting = 1;
        if (NmiPending) s->InterruptWaiting = 1;
        if (Interlocked.Exchange(ref _initRequested, 0) != 0) TakeInit();
        var startup = Interlocked.Exchange(ref _startupVector, -1);
        if (startup >= 0 && Activity == VcpuActivity.WaitForInit) StartUp((byte)startup);
        return Interlocked.Exchange(ref _kicked, 0) != 0;
    }

    private void TakeInit()
    {
        Init();
        _machine.Apics[Id].InitReset();
        Activity = Id == 0 ? VcpuActivity.Running : VcpuActivity.WaitForInit;
    }

    /// <summary>Power-on state of the core and of this loop.</summary>
    public void PowerOn()
    {
        Reset();
        _blocks.Clear();
        ForgetLog();
        (_inSize, _kicked, _interruptRequested, _initRequested, _startupVector) = (0, 0, 0, 0, -1);
        _s->InterruptWaiting = 0;
        _s->Granted = _s->Budget = 0;
        _haltReported = false;
        Activity = Id == 0 ? VcpuActivity.Running : VcpuActivity.WaitForInit;
    }

    /// <summary>Lets due timers act and grants instructions until the next deadline; true where the owner's alarm is due.</summary>
    private bool AdvanceTime()
    {
        var clock = _machine.Clock;
        var s = _s;
        if (clock.Mode == ClockMode.Host && s->Budget > 0 && s->Attention == 0 && !_timeStale) return false;
        _timeStale = false;
        if (_tier != null) GiveWayToCollector();
        var now = clock.NanosecondsAt(Elapsed);
        var deadline = AdvanceTimers(now);
        if (Id == 0 && clock.TakeAlarm(now)) return true;
        if (_turns != null) deadline = Math.Max(now + 1, Math.Min(deadline, _turns.HaltedDeadline(this)));
        var grant = clock.Mode == ClockMode.Host
            ? HostSegment
            : (long)Math.Clamp((deadline - now) / clock.NanosecondsPerInstruction, 1, (ulong)VirtualSlice);
        if (_turns != null) grant = Math.Min(grant, (long)(TurnEnd - Retired));
        s->Granted += grant - s->Budget;
        s->Budget = grant;
        return false;
    }

    private bool _timeStale = true;

    /// <summary>Advances this CPU's timer and, on CPU 0, the shared chips; gives the next deadline (never before now + 1).</summary>
    private ulong AdvanceTimers(ulong now)
    {
        var apic = _machine.Apics[Id];
        if (apic.Deadline is { } due && due <= now) apic.Advance(now);
        var deadline = apic.Deadline ?? ulong.MaxValue;
        if (Id == 0) deadline = Math.Min(deadline, _machine.AdvanceChips(now));
        if (Volatile.Read(ref _interruptRequested) != 0 && Interlocked.Exchange(ref _interruptRequested, 0) != 0) _s->InterruptWaiting = 1;
        return Math.Max(deadline, now + 1);
    }

    /// <summary>Waits in HLT or for SIPI. Gives an exit to report, or None where the loop shall look again.</summary>
    private VcpuExitKind Idle()
    {
        var s = _s;
        var clock = _machine.Clock;
        var now = clock.NanosecondsAt(Elapsed);
        var deadline = AdvanceTimers(now);
        if (Id == 0)
        {
            if (clock.TakeAlarm(now)) return VcpuExitKind.Alarm;
            deadline = Math.Min(deadline, Math.Max(clock.Alarm, now + 1));
        }
        if (Activity == VcpuActivity.Halted)
        {
            if (WakesFromHalt())
            {
                Activity = VcpuActivity.Running;
                return VcpuExitKind.None;
            }
            if ((s->SystemFlags & Flags.If) == 0 && !_haltReported)
            {
                _haltReported = true;
                return VcpuExitKind.Halted;
            }
        }
        Volatile.Write(ref _inGuest, 0);
        if (_turns != null && PassOn(_turns, ref deadline)) return VcpuExitKind.None;
        if (clock.Mode == ClockMode.Virtual && deadline != ulong.MaxValue)
        {
            // Nothing happens until the deadline: virtual time jumps there.
            clock.SkipTo(deadline, Elapsed);
            return VcpuExitKind.None;
        }
        if (s->Attention != 0) return VcpuExitKind.None;
        var milliseconds = deadline == ulong.MaxValue ? Timeout.Infinite : (int)Math.Min((deadline - now) / 1_000_000, 1000);
        if (milliseconds == 0) Thread.Yield();
        else _wake.Wait(ReleaseIfIdle(milliseconds));
        _wake.Reset();
        return VcpuExitKind.None;
    }

    private readonly IdleWatch _idle = new(TimeProvider.System);

    /// <summary>
    /// Gives the memory of translated code back where the guest has idled for long and there is enough of it: what an idle guest still runs
    /// is translated again, and is small.
    /// </summary>
    /// <returns>Milliseconds to wait at most: as asked, or less where it must be looked at again.</returns>
    private int ReleaseIfIdle(int milliseconds)
    {
        if (_blocks.UsedBytes + (_tier?.UsedBytes ?? 0) < ReleaseFrom) return milliseconds;
        if (_idle.HasIdled(Retired)) _blocks.Release();
        else if (milliseconds < 0) return _idle.MillisecondsLeft;
        return milliseconds;
    }

    /// <summary>Translated code and its machine code that an idle vCPU keeps.</summary>
    private const ulong ReleaseFrom = 1 << 20;

    private bool WakesFromHalt()
    {
        if (NmiPending && !NmiMasked) return true;
        return (_s->SystemFlags & Flags.If) != 0 && _s->InterruptWaiting != 0 && HasInterrupt();
    }

    private bool HasInterrupt()
    {
        var apic = _machine.Apics[Id];
        return apic.PendingVector is not null || ExternalPending(apic);
    }

    private bool ExternalPending(Devices.Chipset.LocalApic apic) =>
        (apic.ExtIntPending || (Id == 0 && apic.AcceptsExtInt)) && _machine.PicRequests;

    /// <summary>Delivers an NMI or interrupt that may be taken now; true where one was.</summary>
    private bool TakeInterrupt()
    {
        var s = _s;
        if (s->InterruptWaiting == 0) return false;
        if (TryTakeNmi())
        {
            DeliverInterrupt(Vector.Nmi, InterruptKind.Nmi);
            return true;
        }
        if ((s->SystemFlags & Flags.If) == 0) return false;
        var apic = _machine.Apics[Id];
        if (apic.PendingVector is not null)
        {
            DeliverInterrupt(apic.Acknowledge(), InterruptKind.External);
            return true;
        }
        if (ExternalPending(apic))
        {
            apic.AcknowledgeExtInt();
            DeliverInterrupt(_machine.AcknowledgePic(), InterruptKind.External);
            return true;
        }
        s->InterruptWaiting = NmiPending ? 1 : 0;
        return false;
    }

    /// <summary>Runs blocks from RIP until a handler comes back.</summary>
    private void Execute()
    {
        var s = _s;
        var trap = (s->SystemFlags & Flags.Tf) != 0;
        var alone = _alone || trap || s->InterruptShadow != 0 || _logCount > 0;
        _alone = false;
        if (_clearCode)
        {
            _clearCode = false;
            _blocks.Clear();
        }
        var block = alone ? Scratch(1) : Lookup();
        if (block == null) return; // fetch fault, or nothing to execute there
        var once = alone;
        if (block->Count > s->Budget)
        {
            // The deadline falls into the block: run exactly the instructions that are left.
            block = Scratch((int)Math.Max(1, Math.Min(s->Budget, BlockBuilder.MaxInstructions)));
            if (block == null) return;
            once = true;
        }
        s->InterruptShadow = 0;
        s->Budget -= block->Count;
        // Its end must not chain to the next block: what is kept for this instruction (access log, TF) would pass on to others.
        if (alone) Volatile.Write(ref s->Attention, long.MinValue);
        if (_lockStep != null && !once)
        {
            ExecuteBothTiers(block);
            return;
        }
        var op = Block.Ops(block);
        op->Fn(s, op);
        if (s->Abort != Abort.None) return;
        if (_logCount > 0) ForgetLog();
        if (!trap) return;
        s->Dr[6] |= 0x4000;
        Flow.Raise(s, null, Vector.Db);
    }

    /// <summary>Puts RIP and the instruction count right after an abort and acts on it; None where the guest goes on.</summary>
    private VcpuExitKind Settle()
    {
        var s = _s;
        var abort = s->Abort;
        s->Abort = Abort.None;
        if (s->AbortOp != null)
        {
            s->Rip += s->AbortOp->IpOffset;
            s->Budget += s->AbortOp->Left;
            s->AbortOp = null;
        }
        switch (abort)
        {
            case Abort.Exception:
                ForgetLog();
                s->Abort = Abort.Exception;
                DeliverException();
                if (s->Abort != Abort.Shutdown) return VcpuExitKind.None;
                s->Abort = Abort.None;
                return VcpuExitKind.Shutdown;
            case Abort.Exit:
                return _exitKind;
            case Abort.Restart:
                _alone = true;
                return VcpuExitKind.None;
            case Abort.Halt:
                Activity = VcpuActivity.Halted;
                _haltReported = false;
                ForgetLog();
                return VcpuExitKind.None;
            case Abort.Shutdown:
                return VcpuExitKind.Shutdown;
            default:
                return VcpuExitKind.None;
        }
    }

    // --- finding and making blocks ---

    /// <summary>Physical address of RIP; false with the fault in the state.</summary>
    private bool Fetch(ulong linear, out ulong physical)
    {
        var s = _s;
        var entry = Mem.Entry(s->TlbCode, linear);
        if (entry->Tag != (linear & ~0xFFFUL))
        {
            if (!Walk(linear, Access.Execute, IsUser, out var translation))
            {
                physical = 0;
                return false;
            }
            Fill(IsUser, Access.Execute, linear, translation.Physical - linear, translation);
        }
        physical = linear + entry->Addend;
        return true;
    }

    private bool LinearRip(out ulong linear)
    {
        var s = _s;
        linear = s->Rip;
        if (s->Mode == CodeMode.Bits64) return true;
        linear = (uint)(s->Rip + s->SegBase[1]);
        if (s->Rip <= s->Cs.Limit) return true;
        return Fault(Vector.Gp, 0);
    }

    private Block* Lookup()
    {
        var s = _s;
        if (!LinearRip(out var linear) || !Fetch(linear, out var physical)) return null;
        for (var block = s->BlockHash[BlockCache.Hash(physical, s->Mode)]; block != null; block = block->HashNext)
        {
            if (block->Physical != physical || block->Mode != s->Mode) continue;
            if (block->SecondPage == ulong.MaxValue) return block;
            if (!Fetch((linear & ~0xFFFUL) + 0x1000, out var second)) return null;
            if (block->SecondPage == second) return block;
        }
        return Translate(linear, physical, BlockBuilder.MaxInstructions, scratch: false);
    }

    /// <summary>A block of at most <paramref name="limit"/> instructions at RIP that serves once.</summary>
    private Block* Scratch(int limit) =>
        LinearRip(out var linear) && Fetch(linear, out var physical) ? Translate(linear, physical, limit, scratch: true) : null;

    private Block* Translate(ulong linear, ulong physical, int limit, bool scratch)
    {
        var s = _s;
        var host = _machine.Ram.Host(physical);
        if (host == null)
        {
            FailFetch(physical);
            return null;
        }
        var room = (int)Math.Min(0x1000 - (physical & 0xFFF), BlockBuilder.MaxInstructions * 15);
        // SAFETY: room does not pass the end of the page, and pages of RAM are mapped whole.
        var length = _translator.Translate(new ReadOnlySpan<byte>(host, room), s->Rip, s->Mode, limit, counts: !scratch);
        var secondPage = ulong.MaxValue;
        if (length == 0)
        {
            // The first instruction goes on in the next page.
            if (!Fetch((linear & ~0xFFFUL) + 0x1000, out secondPage)) return null;
            var next = _machine.Ram.Host(secondPage);
            if (next == null)
            {
                FailFetch(secondPage);
                return null;
            }
            Span<byte> both = stackalloc byte[room + 16];
            new ReadOnlySpan<byte>(host, room).CopyTo(both);
            new ReadOnlySpan<byte>(next, 16).CopyTo(both[room..]);
            length = _translator.Translate(both, s->Rip, s->Mode, 1);
        }
        if (scratch) return _blocks.Scratch(_translator.Builder, physical, length);
        var block = _blocks.Add(_translator.Builder, physical, secondPage, length, out var firstOfPage);
        if (!firstOfPage) return block;
        _machine.CodeAdded(this, physical & ~0xFFFUL);
        if (secondPage != ulong.MaxValue) _machine.CodeAdded(this, secondPage & ~0xFFFUL);
        return block;
    }

    /// <summary>Compiles the block that is being entered.</summary>
    public void CompileBlock(Block* block)
    {
        // SAFETY: the block lives, so its code is in RAM unchanged, and (but for one that is refused) within one page.
        var code = block->SecondPage == ulong.MaxValue ? new ReadOnlySpan<byte>(_machine.Ram.Host(block->Physical), block->Length) : [];
        if (_tier!.IsFull) _clearCode = true;
        var started = _machine.Host.GetTimestamp();
        _tier.Compile(block, code, _s->Rip);
        _longestCompile = Math.Max(_longestCompile, _machine.Host.GetTimestamp() - started);
    }

    /// <summary>Patches a jump of compiled code.</summary>
    public void Connect(Link* link, Block* block) => _tier!.Connect(link, block);

    private void GiveWayToCollector()
    {
        var started = _machine.Host.GetTimestamp();
        ExecutableMemory.GiveWayToCollector();
        _longestCollection = Math.Max(_longestCollection, _machine.Host.GetTimestamp() - started);
    }

    // In ticks of the host's clock. A thread that the host runs later is counted as if it had been busy: these are upper bounds.
    private long _longestCompile, _longestCollection;

    /// <summary>The longest times that this vCPU stood still to compile a block, and to let a garbage collection through.</summary>
    public (TimeSpan Compile, TimeSpan Collection) LongestPauses =>
        (_machine.Host.GetElapsedTime(0, _longestCompile), _machine.Host.GetElapsedTime(0, _longestCollection));

    private string Pauses => string.Create(System.Globalization.CultureInfo.InvariantCulture,
        $"longest pauses: compiling {LongestPauses.Compile.TotalMilliseconds:F2} ms, collector {LongestPauses.Collection.TotalMilliseconds:F2} ms; ");

    private readonly CompiledTier? _tier;
    private bool _clearCode;

    private void FailFetch(ulong physical)
    {
        Exit.Detail = $"vCPU {Id} fetches instructions from guest physical 0x{physical:x}, where there is no RAM (RIP 0x{_s->Rip:x})";
        _exitKind = VcpuExitKind.Failed;
        _s->Abort = Abort.Exit;
        _s->AbortOp = null;
    }

    /// <summary>A deadline was set from outside: look at the time before going on. Any thread.</summary>
    public void TimeChanged()
    {
        Volatile.Write(ref _timeStale, true);
        Attend();
    }
}
