using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Kvm.Native;

/// <summary>Turns an error number into a message that says what to do.</summary>
internal static class KvmError
{
    /// <summary>The exception for a call that failed with <paramref name="errno"/>.</summary>
    public static HypervisorException Of(string call, int errno)
    {
        var text = $"{call} failed: {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})";
        return new HypervisorException(Advice(errno) is { } advice ? $"{text}; {advice}" : text);
    }

    /// <summary>What a person can do about an error of /dev/kvm, or null.</summary>
    public static string? Advice(int errno) => errno switch
    {
        Libc.ENOENT =>
            "this host offers no KVM: load kvm_intel or kvm_amd, enable virtualization in the firmware, or use --hypervisor soft",
        Libc.ENXIO or Libc.ENODEV => "the KVM module is loaded but the processor offers no virtualization; use --hypervisor soft",
        Libc.EACCES or Libc.EPERM => "add the user to the group that owns /dev/kvm (usually kvm), or use --hypervisor soft",
        Libc.EBUSY => "another hypervisor holds the processor's virtualization; stop it, or use --hypervisor soft",
        Libc.ENOMEM => "the host is out of memory; give the guest less, or free some",
        Libc.EMFILE or Libc.ENFILE => "too many open descriptors; raise the limit (ulimit -n) or run fewer machines",
        Libc.ENOSPC => "the kernel's table is full (memory slots or I/O event descriptors); use fewer devices",
        _ => null,
    };
}
