using System.Runtime.InteropServices;

namespace ActorVmm.Hypervisor.Soft.Cpu;

/// <summary>
/// A 16-byte compare-and-swap, which .NET does not have: on x64 hosts the instruction itself from a small piece of machine code, elsewhere
/// (or where executable memory is refused) one lock for all vCPUs.
/// </summary>
internal static unsafe partial class Atomic128
{
    private static readonly Lock Gate = new();
    private static readonly delegate* unmanaged<byte*, UInt128*, UInt128*, void> Native = Create();

    /// <summary>Swaps in <paramref name="value"/> where the memory holds <paramref name="expected"/>; gives what it held. 16-byte aligned.</summary>
    public static UInt128 CompareExchange(byte* p, UInt128 value, UInt128 expected)
    {
        if (Native != null)
        {
            // SAFETY: the caller's pointer leads to 16 aligned bytes of guest RAM; the others are locals.
            Native(p, &expected, &value);
            return expected;
        }
        lock (Gate)
        {
            var old = *(UInt128*)p;
            if (old == expected) *(UInt128*)p = value;
            return old;
        }
    }

    private static delegate* unmanaged<byte*, UInt128*, UInt128*, void> Create()
    {
        if (RuntimeInformation.ProcessArchitecture != Architecture.X64 || !OperatingSystem.IsLinux()) return null;
        ReadOnlySpan<byte> code =
        [
            0x53,                         // push rbx
            0x49, 0x89, 0xD0,             // mov r8, rdx        (value)
            0x48, 0x8B, 0x06,             // mov rax, [rsi]     (expected)
            0x48, 0x8B, 0x56, 0x08,       // mov rdx, [rsi+8]
            0x49, 0x8B, 0x18,             // mov rbx, [r8]
            0x49, 0x8B, 0x48, 0x08,       // mov rcx, [r8+8]
            0xF0, 0x48, 0x0F, 0xC7, 0x0F, // lock cmpxchg16b [rdi]
            0x48, 0x89, 0x06,             // mov [rsi], rax
            0x48, 0x89, 0x56, 0x08,       // mov [rsi+8], rdx
            0x5B,                         // pop rbx
            0xC3,                         // ret
        ];
        // SAFETY: a fresh private page, filled while writable and then made executable; it is never freed.
        var page = MMap(null, 4096, 3, 0x22, -1, 0);
        if (page == (void*)-1) return null;
        code.CopyTo(new Span<byte>(page, 4096));
        return MProtect(page, 4096, 5) == 0 ? (delegate* unmanaged<byte*, UInt128*, UInt128*, void>)page : null;
    }

    [LibraryImport("libc", EntryPoint = "mmap")]
    private static partial void* MMap(void* address, nuint length, int protection, int flags, int fd, long offset);

    [LibraryImport("libc", EntryPoint = "mprotect")]
    private static partial int MProtect(void* address, nuint length, int protection);
}
