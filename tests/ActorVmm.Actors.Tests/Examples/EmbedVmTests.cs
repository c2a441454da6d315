using System.Buffers.Binary;
using System.Diagnostics;

namespace ActorVmm.Actors.Tests.Examples;

public sealed class EmbedVmTests : IDisposable
{
    private readonly string _kernel = Path.Combine(Path.GetTempPath(), $"actorvmm-embed-{Guid.NewGuid():N}.elf");

    public void Dispose() => File.Delete(_kernel);

    [Fact]
    public async Task The_example_boots_a_guest_that_uses_the_exit_handlers_own_device()
    {
        // 64-bit code: write 0x21 to port 0x510, read it back doubled ('B'), print that on the console, reset by the keyboard controller.
        byte[] code =
        [
            0x66, 0xBA, 0x10, 0x05, // mov dx, 0x510
            0xB0, 0x21,             // mov al, 0x21
            0xEE,                   // out dx, al
            0x30, 0xC0,             // xor al, al
            0xEC,                   // in al, dx
            0x66, 0xBA, 0xF8, 0x03, // mov dx, 0x3f8
            0xEE,                   // out dx, al
            0xB0, 0x0A,             // mov al, '\n'
            0xEE,                   // out dx, al
            0xB0, 0xFE,             // mov al, 0xfe
            0xE6, 0x64,             // out 0x64, al
            0xF4,                   // hlt
        ];
        await File.WriteAllBytesAsync(_kernel, Elf64(entry: 0x100000, code));

        var start = new ProcessStartInfo("dotnet")
        {
            ArgumentList = { Path.Combine(AppContext.BaseDirectory, "EmbedVm.dll"), _kernel }, RedirectStandardOutput = true, RedirectStandardError = true,
        };
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync();
        var errors = process.StandardError.ReadToEndAsync();
        try { await process.WaitForExitAsync().WaitAsync(TimeSpan.FromMinutes(2)); }
        finally { if (!process.HasExited) process.Kill(); }

        Assert.Equal("", await errors);
        Assert.Equal("B\nstopped: guest reset (i8042)\n", await output);
        Assert.Equal(0, process.ExitCode);
    }

    /// <summary>The smallest executable that the loader takes: one PT_LOAD segment (System V ABI, ELF-64 object file format).</summary>
    private static byte[] Elf64(ulong entry, byte[] code)
    {
        const int HeaderSize = 64;
        const int ProgramHeaderSize = 56;
        const int CodeAt = 0x1000;
        var file = new byte[CodeAt + code.Length];
        ((ReadOnlySpan<byte>)[0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1]).CopyTo(file);
        Put16(16, 2);          // ET_EXEC
        Put16(18, 62);         // EM_X86_64
        Put32(20, 1);
        Put64(24, entry);
        Put64(32, HeaderSize); // program headers follow
        Put16(52, HeaderSize);
        Put16(54, ProgramHeaderSize);
        Put16(56, 1);
        Put32(HeaderSize, 1);     // PT_LOAD
        Put32(HeaderSize + 4, 5); // readable, executable
        Put64(HeaderSize + 8, CodeAt);
        Put64(HeaderSize + 16, entry);
        Put64(HeaderSize + 24, entry);
        Put64(HeaderSize + 32, (ulong)code.Length);
        Put64(HeaderSize + 40, (ulong)code.Length);
        Put64(HeaderSize + 48, 0x1000);
        code.CopyTo(file, CodeAt);
        return file;

        void Put16(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(at), value);
        void Put32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);
        void Put64(int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(at), value);
    }
}
