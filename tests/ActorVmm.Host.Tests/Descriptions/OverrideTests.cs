namespace ActorVmm.Host.Tests.Descriptions;

public sealed class OverrideTests : IDisposable
{
    private const string Firecracker = """{ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [], "machine-config": { "vcpu_count": 1, "mem_size_mib": 128 } }""";
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    [Fact]
    public void A_value_is_replaced_and_typed_by_its_key()
    {
        var vm = _here.Hocon("kernel.path = vmlinuz, vcpus.count = 1", "vcpus.count=3", "name=7", "kernel.cmdline=a=b c=d", "clock=virtual");
        Assert.Equal((3, "7", "a=b c=d"), (vm.Vcpus, vm.Name, vm.Kernel.CommandLine));
    }

    [Fact]
    public void The_last_of_two_overrides_wins() =>
        Assert.Equal(2, _here.Hocon("kernel.path = vmlinuz", "vcpus.count=9", "vcpus.count=2").Vcpus);

    [Fact]
    public void Firecracker_files_take_overrides_too()
    {
        var vm = _here.Json(Firecracker, "machine-config.vcpu_count=4", "boot-source.boot_args=quiet", "machine-config.smt=false", "boot-source.initrd_path=initrd");
        Assert.Equal((4, "quiet", Path.Combine(_here.Path, "initrd")), (vm.Vcpus, vm.Kernel.CommandLine, vm.Kernel.InitrdPath));
    }

    [Fact]
    public void Null_and_arrays_can_be_set()
    {
        var file = Firecracker.Replace("\"drives\": []", "\"drives\": [{\"drive_id\": \"a\"}], \"entropy\": {}", StringComparison.Ordinal);
        Assert.Equal(1, _here.Json(file, "drives=[]", "entropy=null").Vcpus);
    }

    [Fact]
    public void A_number_in_the_key_is_an_index()
    {
        var file = Firecracker.Replace("[]", """[{ "drive_id": "a", "is_root_device": true, "path_on_host": "x" }]""", StringComparison.Ordinal);
        Assert.Contains("drives[0].drive_id = !: allowed are letters", _here.JsonErrors(file, "drives.0.drive_id=!"), StringComparison.Ordinal);
        Assert.Contains("there is nothing at 'drives' that has a '1'", _here.JsonErrors(file, "drives.1.drive_id=b"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("vcpus.count=900", "--set vcpus.count=900: vcpus.count = 900: allowed is a whole number from 1 to 254")]
    [InlineData("vcpu.count=2", "--set vcpu.count=2: vcpu: unknown key; did you mean vcpus?")]
    [InlineData("block=[{}]", "block[0].path: missing")]
    [InlineData("nothing", "write --set key=value")]
    [InlineData("=1", "write --set key=value")]
    [InlineData("a..b=1", "write --set key=value")]
    [InlineData("name={", "not JSON")]
    public void An_override_obeys_the_rules_and_its_error_says_where_it_comes_from(string setting, string expected) =>
        Assert.Contains(expected, _here.HoconErrors("kernel.path = vmlinuz", setting), StringComparison.Ordinal);

    [Fact]
    public void A_missing_key_can_be_given_by_an_override() =>
        Assert.Equal(Path.Combine(_here.Path, "vmlinuz"), _here.Hocon("", "kernel.path=vmlinuz").Kernel.Path);
}
