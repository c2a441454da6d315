using ActorVmm.Hypervisor.Kvm.Native;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>From the kernel's description of an exit to ours, one element at a time, and back with the answer.</summary>
internal sealed unsafe partial class KvmVcpu
{
    // The access that KVM described, cut into pieces of 1, 2, 4 or 8 bytes: the elements of a string instruction, or an MMIO access of an
    // odd length (one that crosses a page).
    private int _pieces;
    private int _piece;
    private int _pieceSize;     // of string elements
    private int _mmioOffset, _mmioLength;
    private int _dataOffset;    // of the data in the page
    private bool _isRead, _isMmio;

    private int PiecesLeft => _pieces - _piece;

    /// <summary>Interprets the page after a successful KVM_RUN. None means: enter again.</summary>
    private VcpuExitKind Describe()
    {
        // Compared one by one: after the kernel, the processor predicts no jump through a table.
        var reason = (KvmExitReason)Word(RunPage.ExitReason);
        return reason == KvmExitReason.IO ? DescribePort() : reason == KvmExitReason.MMIO ? DescribeMmio() : DescribeOther(reason);
    }

    private VcpuExitKind DescribeOther(KvmExitReason reason)
    {
        switch (reason)
        {
            case KvmExitReason.HLT: // only without an in-kernel LAPIC, or with interrupts that user space must watch
                return _haltReported ? VcpuExitKind.None : Report(VcpuExitKind.Halted);
            case KvmExitReason.SHUTDOWN:
                return Report(VcpuExitKind.Shutdown);
            case KvmExitReason.SYSTEM_EVENT:
                _exit.Detail = KvmFailure.SystemEvent(_page);
                return _exit.Kind = VcpuExitKind.SystemEvent;
            case KvmExitReason.INTR or KvmExitReason.IRQ_WINDOW_OPEN or KvmExitReason.SET_TPR or KvmExitReason.X86_BUS_LOCK:
                return VcpuExitKind.None; // nothing is asked of us
            default:
                return Fail(KvmFailure.OfExit(this, _page));
        }
    }

    // SAFETY: the offset is a constant of RunPage, inside the first page of the mapping; nobody runs a vCPU that is disposed.
    private uint Word(int offset) => *(uint*)(_run + offset);

    private VcpuExitKind DescribePort()
    {
        _completionDue = true;
        _isMmio = false;
        _isRead = _run[RunPage.IoDirection] == 0;
        _pieceSize = _run[RunPage.IoSize];
        _pieces = (int)Word(RunPage.IoCount);
        _dataOffset = (int)Word(RunPage.IoDataOffset);
        _piece = 0;
        _exit.Address = (ushort)Word(RunPage.IoPort);
        if (_pieces != 1) return TakePiece();

        // Nearly always: one element.
        _exit.Size = _pieceSize;
        if (_isRead)
        {
            _exit.Data = 0;
            return _exit.Kind = VcpuExitKind.PortRead;
        }
        _exit.Data = Load(_dataOffset, _pieceSize);
        _pieces = 0; // nothing is to come back
        return _exit.Kind = VcpuExitKind.PortWrite;
    }

    private VcpuExitKind DescribeMmio()
    {
        _isMmio = true;
        _isRead = _run[RunPage.MmioIsWrite] == 0;
        _mmioLength = (int)Word(RunPage.MmioLength);
        _mmioOffset = 0;
        _dataOffset = RunPage.MmioData;
        _pieces = System.Numerics.BitOperations.PopCount((uint)_mmioLength); // 1, 2, 4, 8: one piece
        _piece = 0;
        _completionDue = true;
        return TakePiece();
    }

    /// <summary>Presents piece number <see cref="_piece"/>.</summary>
    private VcpuExitKind TakePiece()
    {
        if (_isMmio)
        {
            _pieceSize = LargestPiece(_mmioLength - _mmioOffset);
            _exit.Address = _page.Field<ulong>(RunPage.MmioAddress) + (uint)_mmioOffset;
        }
        _exit.Size = _pieceSize;
        _exit.Data = _isRead ? 0 : Load(PieceOffset, _pieceSize);
        return _exit.Kind = (_isMmio, _isRead) switch
        {
            (true, true) => VcpuExitKind.MmioRead,
            (true, false) => VcpuExitKind.MmioWrite,
            (false, true) => VcpuExitKind.PortRead,
            _ => VcpuExitKind.PortWrite,
        };
    }

    private int PieceOffset => _dataOffset + (_isMmio ? _mmioOffset : _piece * _pieceSize);

    private static int LargestPiece(int bytes) => bytes >= 8 ? 8 : bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1;

    /// <summary>Writes the answer of the last read to the page. Harmless when there was none.</summary>
    private void StoreReply()
    {
        if (_piece >= _pieces) return;
        if (_isRead && _exit.Kind is VcpuExitKind.PortRead or VcpuExitKind.MmioRead) Store(PieceOffset, _pieceSize, _exit.Data);
        _mmioOffset += _pieceSize;
        _piece++;
    }

    /// <summary>Takes the answer, and presents the next piece if the access has one. None means: enter the guest.</summary>
    private VcpuExitKind StorePieceAndTakeNext()
    {
        StoreReply();
        if (PiecesLeft > 0) return TakePiece();
        _pieces = _piece = 0;
        return VcpuExitKind.None;
    }

    /// <summary>
    /// A string instruction of which the kernel asked for several elements at once, and not all were dealt with: complete it, then set the
    /// registers back by the rest, so that the saved state is the one between two elements and the instruction goes on from there.
    /// </summary>
    private void CompleteBatchEarly()
    {
        var rest = (ulong)PiecesLeft;
        var before = new KvmRegs();
        _file.Call(KvmApi.KVM_GET_REGS, ref before, nameof(KvmApi.KVM_GET_REGS));
        EnterWithoutGuest();
        var after = new KvmRegs();
        _file.Call(KvmApi.KVM_GET_REGS, ref after, nameof(KvmApi.KVM_GET_REGS));
        var distance = rest * (ulong)_pieceSize;
        if ((after.Rflags & (1 << 10)) != 0) distance = 0 - distance;
        after.Rcx += rest;
        if (_isRead) after.Rdi -= distance;
        else after.Rsi -= distance;
        after.Rip = before.Rip;
        _file.Call(KvmApi.KVM_SET_REGS, ref after, nameof(KvmApi.KVM_SET_REGS));
    }

    private ulong Load(int offset, int size) => size switch
    {
        1 => _page.Field<byte>(offset),
        2 => _page.Field<ushort>(offset),
        4 => _page.Field<uint>(offset),
        _ => _page.Field<ulong>(offset),
    };

    private void Store(int offset, int size, ulong value)
    {
        switch (size)
        {
            case 1: _page.Field<byte>(offset) = (byte)value; break;
            case 2: _page.Field<ushort>(offset) = (ushort)value; break;
            case 4: _page.Field<uint>(offset) = (uint)value; break;
            default: _page.Field<ulong>(offset) = value; break;
        }
    }
}
