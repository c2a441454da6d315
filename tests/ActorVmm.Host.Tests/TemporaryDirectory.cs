using System.Text;
using ActorVmm.Host.Descriptions;

namespace ActorVmm.Host.Tests;

/// <summary>A directory of its own per test, with a readable <c>vmlinuz</c> and <c>initrd</c> in it.</summary>
public sealed class TemporaryDirectory : IDisposable
{
    public TemporaryDirectory()
    {
        Path = Directory.CreateTempSubdirectory("actorvmm-test-").FullName;
        Write("vmlinuz", "kernel");
        Write("initrd", "initrd");
    }

    public string Path { get; }

    public string Write(string name, string text)
    {
        var path = System.IO.Path.Combine(Path, name);
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(path)!);
        File.WriteAllText(path, text);
        return path;
    }

    public VmDescription Json(string text, params string[] overrides) => Read(text, "vm.json", isJson: true, overrides);
    public VmDescription Hocon(string text, params string[] overrides) => Read(text, "vm.conf", isJson: false, overrides);

    /// <summary>The errors of a description that has to be refused, one per line.</summary>
    public string JsonErrors(string text, params string[] overrides) => Errors(() => Json(text, overrides));
    public string HoconErrors(string text, params string[] overrides) => Errors(() => Hocon(text, overrides));

    private VmDescription Read(string text, string name, bool isJson, string[] overrides) =>
        DescriptionReader.Read(Encoding.UTF8.GetBytes(text), name, isJson, Path, overrides);

    private static string Errors(Func<VmDescription> read)
    {
        var wrong = Assert.Throws<DescriptionException>(read);
        Assert.NotEmpty(wrong.Errors);
        return string.Join('\n', wrong.Errors);
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
