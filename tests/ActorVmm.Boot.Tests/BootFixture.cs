using ActorVmm.Memory;
using Xunit;

namespace ActorVmm.Boot.Tests;

/// <summary>A directory of image files and some guest RAM; both go with the test.</summary>
public abstract class BootFixture : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("actorvmm-boot-");
    private readonly List<GuestMemory> _memories = [];
    private int _files;

    protected string Directory_ => _directory.FullName;

    protected string Write(byte[] bytes, string name = "image")
    {
        var path = Path.Combine(_directory.FullName, $"{name}{_files++}");
        File.WriteAllBytes(path, bytes);
        return path;
    }

    protected GuestMemory Ram(ulong mib = 64)
    {
        var memory = GuestMemory.Create(mib << 20);
        _memories.Add(memory);
        return memory;
    }

    protected static byte[] Bytes(GuestMemory memory, ulong at, int count)
    {
        var bytes = new byte[count];
        Assert.True(memory.TryRead(new GuestAddress(at), bytes));
        return bytes;
    }

    protected static T Value<T>(GuestMemory memory, ulong at) where T : unmanaged
    {
        Assert.True(memory.TryRead(new GuestAddress(at), out T value));
        return value;
    }

    /// <summary>The exception's field, so that a test fails when the wrong thing is refused.</summary>
    protected static BootException Refused(string field, Action act)
    {
        var refused = Assert.Throws<BootException>(act);
        Assert.Equal(field, refused.Field);
        Assert.NotEmpty(refused.Advice);
        return refused;
    }

    public void Dispose()
    {
        foreach (var memory in _memories) memory.Dispose();
        _directory.Delete(recursive: true);
        GC.SuppressFinalize(this);
    }
}
