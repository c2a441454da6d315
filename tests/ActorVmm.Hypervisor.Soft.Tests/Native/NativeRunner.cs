using System.Runtime.InteropServices;
using ActorVmm.Hypervisor.Soft.Tests.Differential;

namespace ActorVmm.Hypervisor.Soft.Tests.Native;

/// <summary>Runs cases on the host's CPU, in a child of pure machine code (see <see cref="NativeHarness"/>). One per process.</summary>
internal sealed unsafe class NativeRunner
{
    // struct sigcontext's order of the general registers, as x86 register numbers.
    private static readonly int[] KernelOrder = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4];

    private static readonly Lazy<NativeRunner> Shared = new(() => new NativeRunner());

    private readonly Lock _gate = new();

    private NativeRunner()
    {
        Map(Layout.CodeBase, Layout.BatchSize * Layout.CodeSlot, Libc.PROT_READ | Libc.PROT_WRITE | Libc.PROT_EXEC);
        Map(Layout.Scratch, Layout.ScratchSize + 0x1000, Libc.PROT_READ | Libc.PROT_WRITE);
        Map(Layout.UnmappedPage, 0x1000, Libc.PROT_NONE);
        Map(NativeHarness.Code, NativeHarness.Size, Libc.PROT_READ | Libc.PROT_WRITE | Libc.PROT_EXEC);
        Map(NativeHarness.Slots, (Layout.BatchSize + 1) * NativeHarness.SlotSize, Libc.PROT_READ | Libc.PROT_WRITE);
        var readOnly = At(Layout.ReadOnlyPage, 0x1000);
        for (var i = 0; i < readOnly.Length; i++) readOnly[i] = Layout.ReadOnlyByte(i);
        Check(Libc.Mprotect((nint)Layout.ReadOnlyPage, 0x1000, Libc.PROT_READ), "mprotect");
        NativeHarness.Emit(At(NativeHarness.Code, NativeHarness.Size));
    }

    public static NativeRunner Instance => Shared.Value;

    /// <summary>Runs up to <see cref="Layout.BatchSize"/> cases in different code slots.</summary>
    /// <exception cref="InvalidOperationException">The child did not come to its end; the message names the case.</exception>
    public void Run(ReadOnlySpan<TestCase> cases)
    {
        if (!System.Runtime.Intrinsics.X86.X86Base.X64.IsSupported) throw new InvalidOperationException("native cases need an x86-64 host");
        lock (_gate)
        {
            for (var i = 0; i < cases.Length; i++) Load(i, cases[i]);
            var control = At(NativeHarness.Control, 16);
            BitConverter.TryWriteBytes(control[NativeHarness.Current..], NativeHarness.Slots);
            BitConverter.TryWriteBytes(control[NativeHarness.Remaining..], (ulong)cases.Length);

            // SAFETY: the harness was emitted at this address by the constructor and takes no arguments; in this process it only makes a
            // system call and returns the child's pid. The child runs on its own copy of every private page.
            var pid = ((delegate* unmanaged<long>)NativeHarness.Code)();
            if (pid <= 0) throw new InvalidOperationException($"clone failed: {pid}");
            var status = Wait((int)pid);
            if (status != 0)
            {
                var at = (BitConverter.ToUInt64(control) - NativeHarness.Slots) / NativeHarness.SlotSize;
                var culprit = at == 0 ? "the harness itself" : cases[(int)at - 1].ToString();
                throw new InvalidOperationException($"the native child ended with wait status 0x{status:x} in {culprit}");
            }
            for (var i = 0; i < cases.Length; i++) Store(i, cases[i].Native);
        }
    }

    private static void Load(int index, TestCase test)
    {
        var code = At(test.CodeAddress, Layout.CodeSlot);
        test.Code.CopyTo(code);
        code[test.Code.Length..].Fill(0xCC);

        var slot = Slot(index);
        var words = MemoryMarshal.Cast<byte, ulong>(slot);
        var input = test.Input;
        for (var i = 0; i < 16; i++) words[NativeHarness.InGpr / 8 + i] = input.Gpr[KernelOrder[i]];
        words[NativeHarness.InGpr / 8 + 16] = input.Rip;
        words[NativeHarness.InGpr / 8 + 17] = input.Rflags;
        input.Fx.CopyTo(slot[NativeHarness.InFx..]);
        input.Memory.CopyTo(slot[NativeHarness.InMemory..]);
    }

    private static void Store(int index, CpuImage output)
    {
        var slot = Slot(index);
        var words = MemoryMarshal.Cast<byte, ulong>(slot)[(NativeHarness.OutGpr / 8)..];
        for (var i = 0; i < 16; i++) output.Gpr[KernelOrder[i]] = words[i];
        output.Rip = words[16];
        output.Rflags = words[17];
        output.ErrorCode = words[19]; // 18 is cs, gs, fs, ss
        output.Vector = (int)words[20];
        output.FaultAddress = words[22]; // 21 is the old signal mask
        slot.Slice(NativeHarness.OutFx, 512).CopyTo(output.Fx);
        slot.Slice(NativeHarness.OutMemory, Layout.ScratchSize).CopyTo(output.Memory);
    }

    private static Span<byte> Slot(int index) =>
        At(NativeHarness.Slots + (ulong)(index + 1) * NativeHarness.SlotSize, NativeHarness.SlotSize);

    private static int Wait(int pid)
    {
        while (true)
        {
            if (Libc.Wait4(pid, out var status, Libc.WALL, 0) == pid) return status;
            var error = Marshal.GetLastPInvokeError();
            if (error != Libc.EINTR) throw new InvalidOperationException($"wait4 failed with errno {error}");
        }
    }

    // SAFETY: only called for ranges that the constructor mapped; they stay mapped for the life of the process.
    private static Span<byte> At(ulong address, int length) => new((void*)address, length);

    private static void Map(ulong at, int size, int protection)
    {
        var result = Libc.Mmap((nint)at, (nuint)size, protection, Libc.MAP_SHARED | Libc.MAP_ANONYMOUS | Libc.MAP_FIXED_NOREPLACE, -1, 0);
        Check(result == (nint)at ? 0 : -1, $"mmap of 0x{at:x}");
    }

    private static void Check(int result, string what)
    {
        if (result != 0) throw new InvalidOperationException($"{what} failed: {Marshal.GetLastPInvokeErrorMessage()}");
    }
}
