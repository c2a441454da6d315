using System.Text;
using ActorVmm.Host.Descriptions;
using CsCheck;

namespace ActorVmm.Host.Tests.Descriptions;

/// <summary>Whatever the input is, the answer is a valid description or an error that names a place: nothing else ever comes out.</summary>
public sealed class DescriptionPropertyTests : IDisposable
{
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private void ValidOrNamed(byte[] bytes, bool json, params string[] overrides)
    {
        try
        {
            var vm = DescriptionReader.Read(bytes, "f", json, _here.Path, overrides);
            Assert.InRange(vm.Vcpus, 1, VmLimits.MaxVcpus);
            Assert.InRange(vm.MemoryMib, 1, VmLimits.MaxMemoryMib);
            Assert.True(File.Exists(vm.Kernel.Path));
            Assert.True(vm.Kernel.LoadAddress < (ulong)vm.MemoryMib << 20 || json);
            Assert.True(vm.Kernel.CommandLine.Length <= VmLimits.MaxCommandLineBytes);
            Assert.Matches("^[A-Za-z0-9_-]{1,64}$", vm.ToSpec().Name);
        }
        catch (DescriptionException wrong)
        {
            Assert.NotEmpty(wrong.Errors);
            Assert.All(wrong.Errors, error =>
            {
                Assert.NotEmpty(error.Reason);
                Assert.DoesNotContain('\n', error.ToString());
                Assert.True(error.Line > 0 || error.Key.Length > 0 || error.Source.StartsWith("--set", StringComparison.Ordinal));
            });
        }
    }

    [Fact]
    public void Any_bytes_as_JSON() => Gen.Byte.Array[0, 200].Sample(bytes => ValidOrNamed(bytes, json: true), iter: 5000);

    [Fact]
    public void Any_bytes_as_HOCON() => Gen.Byte.Array[0, 200].Sample(bytes => ValidOrNamed(bytes, json: false), iter: 5000);

    [Fact]
    public void Any_mixture_of_HOCONs_own_characters() =>
        Any.Of("{", "}", "[", "]", "\"", "\"\"\"", "=", ":", ",", ".", "\n", "#", "//", "\\", "$", "${", " ", "a", "kernel", "path", "vmlinuz", "null", "1", "+=", "include", "\0")
            .Array[0, 40].Sample(parts => ValidOrNamed(Encoding.UTF8.GetBytes(string.Concat(parts)), json: false), iter: 20_000);

    private static readonly string[] Keys =
    [
        "boot-source", "kernel_image_path", "initrd_path", "boot_args", "drives", "drive_id", "is_root_device", "path_on_host", "socket", "machine-config",
        "vcpu_count", "mem_size_mib", "smt", "huge_pages", "cpu-config", "balloon", "amount_mib", "network-interfaces", "iface_id", "guest_mac", "vsock",
        "logger", "level", "log_path", "metrics", "mmds-config", "network_interfaces", "entropy", "rate_limiter", "ops", "size", "pmem", "memory-hotplug",
        "total_size_mib", "slot_size_mib", "block_size_mib", "kernel", "path", "x",
    ];

    private static readonly Gen<string> Leaf = Gen.OneOf(
        Any.Of("null", "true", "false", "0", "1", "-1", "128", "1.5", "1e3", "18446744073709551616", "\"\"", "\"vmlinuz\"", "\"None\"", "\"\\ud800\"", "\"\\u0000\""),
        Gen.Int.Select(n => n.ToString()));

    private static Gen<string> Json(int depth)
    {
        if (depth == 0)
            return Leaf;
        var members = Gen.Select(Any.Of(Keys), Json(depth - 1), (key, value) => $"\"{key}\": {value}").Array[0, 8];
        return Gen.OneOf(Leaf, members.Select(m => "{" + string.Join(", ", m) + "}"), Json(depth - 1).Array[0, 3].Select(i => "[" + string.Join(", ", i) + "]"));
    }

    [Fact]
    public void Any_JSON_with_Firecrackers_keys() =>
        Json(4).Sample(text => ValidOrNamed(Encoding.UTF8.GetBytes(text), json: true), iter: 5000);

    [Fact]
    public void Any_change_of_one_value_of_a_valid_file() =>
        Gen.Select(Any.Of(Keys), Json(2)).Sample((key, value) =>
        {
            var text = $$"""{ "boot-source": { "kernel_image_path": "vmlinuz", "{{key}}": {{value}} }, "drives": [], "{{key}}": {{value}} }""";
            ValidOrNamed(Encoding.UTF8.GetBytes(text), json: true);
        }, iter: 5000);

    [Fact]
    public void Any_override() =>
        Gen.Select(Any.Of(Keys).Array[0, 3], Gen.String).Sample((keys, value) =>
            ValidOrNamed("""{ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [] }"""u8.ToArray(), json: true, string.Join('.', keys) + "=" + value), iter: 5000);
}
