using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using ActorVmm.Hypervisor.Kvm.Native;
using ActorVmm.Memory;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Kvm;

/// <summary>The words of a failed exit: cause, RIP, bytes, instruction, and what to do. Read by people, so it may allocate.</summary>
internal static class KvmFailure
{
    private const string Emulation = KvmVerdicts.CannotEmulate;

    private const string UseSoft = "the host's KVM cannot run this guest: use --hypervisor soft";

    /// <summary>KVM_RUN itself returned an error.</summary>
    public static string OfErrno(KvmVcpu vcpu, int errno, KvmRunMapping page)
    {
        var call = $"KVM_RUN failed: {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})";
        if (errno == Libc.EFAULT && (KvmExitReason)page.Field<uint>(RunPage.ExitReason) == KvmExitReason.MEMORY_FAULT)
            call += $", memory fault at guest address 0x{page.Field<ulong>(40):x}";
        return Describe(vcpu, call, [], KvmError.Advice(errno) ?? "the vCPU is lost; this is a failure of the host, not of the guest");
    }

    /// <summary>An exit reason that ends the machine.</summary>
    public static string OfExit(KvmVcpu vcpu, KvmRunMapping page)
    {
        var reason = (KvmExitReason)page.Field<uint>(RunPage.ExitReason);
        switch (reason)
        {
            case KvmExitReason.INTERNAL_ERROR:
                return OfInternalError(vcpu, page);
            case KvmExitReason.FAIL_ENTRY:
                var hardware = page.Field<ulong>(RunPage.HardwareReason);
                return Describe(vcpu,
                    $"the processor refused to enter the guest (KVM_EXIT_FAIL_ENTRY, hardware reason 0x{hardware:x}, "
                    + $"CPU {page.Field<uint>(40)})", [],
                    "the guest's state is one this processor cannot run; see the host's kernel log");
            case KvmExitReason.UNKNOWN:
                return Describe(vcpu,
                    "the processor left the guest for a reason KVM does not know (KVM_EXIT_UNKNOWN, hardware reason "
                    + $"0x{page.Field<ulong>(RunPage.HardwareReason):x})", [],
                    "update the host's kernel");
            case KvmExitReason.EXCEPTION:
                return Describe(vcpu, $"KVM passed on exception {page.Field<uint>(32)} (error code 0x{page.Field<uint>(36):x})", [],
                    UseSoft);
            default:
                var name = Enum.IsDefined(reason) ? $"KVM_EXIT_{reason}" : $"exit reason {(uint)reason}";
                return Describe(vcpu, $"KVM asks for something this monitor did not order ({name})", [],
                    "report this with the host's kernel version");
        }
    }

    /// <summary>KVM_EXIT_SYSTEM_EVENT in words.</summary>
    public static string SystemEvent(KvmRunMapping page) => page.Field<uint>(RunPage.SystemEventType) switch
    {
        1 => "shutdown",
        2 => "reset",
        3 => "crash",
        4 => "wakeup",
        5 => "suspend",
        6 => "SEV termination",
        var other => string.Create(CultureInfo.InvariantCulture, $"system event {other}"),
    };

    private static string OfInternalError(KvmVcpu vcpu, KvmRunMapping page)
    {
        var sub = page.Field<uint>(RunPage.SubError);
        var count = Math.Min(page.Field<uint>(RunPage.SubErrorCount), 16);
        ReadOnlySpan<byte> bytes = [];
        var given = new byte[15];
        // kvm_run.emulation_failure: flags (bit 0: bytes are there), size, 15 bytes, in the data words.
        if (sub == 1 && count >= 1 && (page.Field<ulong>(RunPage.SubErrorData) & 1) != 0)
        {
            var size = Math.Min((int)page.Field<byte>(RunPage.SubErrorData + 8), 15);
            for (var i = 0; i < size; i++) given[i] = page.Field<byte>(RunPage.SubErrorData + 9 + i);
            bytes = given.AsSpan(0, size);
        }
        var words = new StringBuilder();
        for (var i = 0; i < count; i++) words.Append(CultureInfo.InvariantCulture,
            $"{(i == 0 ? "" : " ")}0x{page.Field<ulong>(RunPage.SubErrorData + (i * 8)):x}");
        var cause = sub switch
        {
            1 => $"{Emulation} (KVM_EXIT_INTERNAL_ERROR, emulation failure)",
            2 => $"two exceptions at once (KVM_EXIT_INTERNAL_ERROR, simultaneous exceptions, data {words})",
            3 => $"an exit while an event was delivered (KVM_EXIT_INTERNAL_ERROR, delivery event, data {words})",
            4 => $"an exit reason KVM does not expect (KVM_EXIT_INTERNAL_ERROR, data {words})",
            _ => $"KVM_EXIT_INTERNAL_ERROR, suberror {sub}, data {words}",
        };
        return Describe(vcpu, cause, bytes, UseSoft);
    }

    private static string Describe(KvmVcpu vcpu, string cause, ReadOnlySpan<byte> bytes, string advice)
    {
        var text = new StringBuilder($"vCPU {vcpu.Id}: {cause}");
        try
        {
            var (regs, sregs) = vcpu.GetKernelRegisters();
            var bitness = sregs.Cs.L != 0 ? 64 : sregs.Cs.Db != 0 ? 32 : 16;
            var linear = bitness == 64 ? regs.Rip : sregs.Cs.Base + regs.Rip;
            // The bytes at RIP say more than the fetch buffer of the emulator, which may have started in the middle of a block.
            var code = ReadCode(vcpu, linear);
            if (code.Length == 0) code = bytes.ToArray();
            text.Append(CultureInfo.InvariantCulture,
                $" at RIP 0x{regs.Rip:x} (CS 0x{sregs.Cs.Selector:x}, ring {sregs.Ss.Dpl}, {bitness}-bit");
            text.Append(CultureInfo.InvariantCulture, $", CR0 0x{sregs.Cr0:x}, CR2 0x{sregs.Cr2:x}, CR3 0x{sregs.Cr3:x})");
            if (code.Length > 0) AppendInstruction(text, code, bitness, regs.Rip);
            else text.Append(", code not mapped");
        }
        catch (HypervisorException lost)
        {
            text.Append(CultureInfo.InvariantCulture, $" (registers cannot be read: {lost.Message})");
        }
        return text.Append("; ").Append(advice).ToString();
    }

    private static void AppendInstruction(StringBuilder text, byte[] code, int bitness, ulong rip)
    {
        var decoder = Iced.Intel.Decoder.Create(bitness, new ByteArrayCodeReader(code));
        decoder.IP = rip;
        decoder.Decode(out var instruction);
        var length = instruction.IsInvalid ? code.Length : instruction.Length;
        text.Append(CultureInfo.InvariantCulture, $", bytes {Convert.ToHexStringLower(code.AsSpan(0, length))}");
        text.Append(instruction.IsInvalid ? ", no valid instruction" : $": {instruction}");
    }

    /// <summary>Up to 15 bytes at a linear address, through the guest's own page tables.</summary>
    private static byte[] ReadCode(KvmVcpu vcpu, ulong linear)
    {
        var code = new List<byte>(15);
        while (code.Count < 15)
        {
            var at = linear + (ulong)code.Count;
            if (!vcpu.TryTranslate(at, out var physical)) break;
            var take = (int)Math.Min(15 - code.Count, 4096 - (long)(at & 0xFFF));
            if (!vcpu.Memory.TrySlice(new GuestAddress(physical), take, out var slice)) break;
            code.AddRange(slice);
        }
        return [.. code];
    }
}
