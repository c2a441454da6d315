using ActorVmm.Actors;
using ActorVmm.Devices.Virtio;
using ActorVmm.Host.Descriptions;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Tests.Descriptions;

public sealed class FirecrackerDialectTests : IDisposable
{
    private const string Boot = """ "boot-source": { "kernel_image_path": "vmlinuz" } """;
    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private static string With(string more) => $$"""{ {{Boot}}, "drives": [], {{more}} }""";
    private static string Machine(string fields) => With($$""" "machine-config": { {{fields}} } """);

    [Fact]
    public void The_least_file_has_a_kernel_and_an_empty_list_of_drives()
    {
        var vm = _here.Json($$"""{ {{Boot}}, "drives": [] }""");

        Assert.Equal(Path.Combine(_here.Path, "vmlinuz"), vm.Kernel.Path);
        Assert.Null(vm.Kernel.InitrdPath);
        Assert.Equal((1, 128), (vm.Vcpus, vm.MemoryMib));
        Assert.Equal("reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce", vm.Kernel.CommandLine);
        Assert.Equal(ClockMode.Host, vm.Clock);
    }

    [Fact]
    public void A_full_file_with_nulls_in_every_allowed_place_is_accepted()
    {
        var vm = _here.Json("""
            {
              "boot-source": { "kernel_image_path": "vmlinuz", "boot_args": "console=ttyS0", "initrd_path": null },
              "drives": [], "network-interfaces": [], "pmem": [],
              "machine-config": { "vcpu_count": 2, "mem_size_mib": 1024, "smt": false, "track_dirty_pages": false,
                                  "huge_pages": "None", "cpu_template": null, "gdb_socket_path": null },
              "cpu-config": null, "balloon": null, "vsock": null, "logger": null, "metrics": null, "mmds-config": null,
              "entropy": null, "memory-hotplug": null
            }
            """);

        Assert.Equal((2, 1024, "console=ttyS0"), (vm.Vcpus, vm.MemoryMib, vm.Kernel.CommandLine));
        Assert.Equal(2, vm.ToSpec().Vcpus);
    }

    [Fact]
    public void The_shipped_example_is_valid_where_its_kernel_is()
    {
        _here.Write("initramfs.cpio", "");
        var text = Repository.Example("firecracker.json");

        Assert.Equal((2, 512), (_here.Json(text).Vcpus, _here.Json(text).MemoryMib));
    }

    [Theory]
    [InlineData("boot-source"), InlineData("drives")]
    public void A_required_key_that_is_missing_is_named(string key) =>
        Assert.Contains($"{key}: missing", _here.JsonErrors("{}"), StringComparison.Ordinal);

    [Theory]
    [InlineData("""{ "boot-source": null, "drives": [] }""", "boot-source")]
    [InlineData("""{ "boot-source": { "kernel_image_path": null }, "drives": [] }""", "boot-source.kernel_image_path")]
    [InlineData("""{ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": null }""", "drives")]
    [InlineData("""{ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [], "network-interfaces": null }""", "network-interfaces")]
    [InlineData("""{ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [], "pmem": null }""", "pmem")]
    public void Null_is_refused_where_a_value_is_required_and_for_the_three_arrays(string file, string key) =>
        Assert.Contains($"{key} = null: may not be null", _here.JsonErrors(file), StringComparison.Ordinal);

    [Theory]
    [InlineData("vcpu_count"), InlineData("mem_size_mib"), InlineData("smt"), InlineData("track_dirty_pages"), InlineData("huge_pages")]
    public void Null_is_refused_for_the_plain_machine_fields(string field)
    {
        var fields = new[] { "vcpu_count", "mem_size_mib" }.Where(name => name != field).Select(name => $"\"{name}\": 2").Append($"\"{field}\": null");
        Assert.Contains($"machine-config.{field} = null", _here.JsonErrors(Machine(string.Join(", ", fields))), StringComparison.Ordinal);
    }

    [Fact]
    public void A_machine_without_a_vcpu_count_is_refused() =>
        Assert.Contains("machine-config.vcpu_count: missing", _here.JsonErrors(Machine(""" "mem_size_mib": 128 """)), StringComparison.Ordinal);

    [Fact]
    public void A_machine_without_a_memory_size_is_refused() =>
        Assert.Contains("machine-config.mem_size_mib: missing", _here.JsonErrors(Machine(""" "vcpu_count": 1 """)), StringComparison.Ordinal);

    [Theory]
    [InlineData("0"), InlineData("33"), InlineData("256"), InlineData("-1"), InlineData("1.0"), InlineData("1e0"), InlineData("\"1\""), InlineData("true")]
    public void A_vcpu_count_outside_1_to_32_or_of_another_type_is_refused(string count) =>
        Assert.Contains("allowed is a whole number from 1 to 32",
            _here.JsonErrors(Machine($""" "vcpu_count": {count}, "mem_size_mib": 128 """)), StringComparison.Ordinal);

    [Theory]
    [InlineData("1", 1), InlineData("32", 32)]
    public void The_limits_of_the_vcpu_count_are_allowed(string count, int expected) =>
        Assert.Equal(expected, _here.Json(Machine($""" "vcpu_count": {count}, "mem_size_mib": 128 """)).Vcpus);

    [Theory]
    [InlineData("0"), InlineData("-5"), InlineData("1048577"), InlineData("99999999999999999999"), InlineData("0.5")]
    public void A_memory_size_of_zero_or_too_much_is_refused(string size) =>
        Assert.Contains("machine-config.mem_size_mib", _here.JsonErrors(Machine($""" "vcpu_count": 1, "mem_size_mib": {size} """)), StringComparison.Ordinal);

    [Fact]
    public void Unknown_keys_are_ignored_at_the_top_level() =>
        Assert.Equal(1, _here.Json(With(""" "serial": { "anything": 1 }, "x-comment": "mine", "x-comment": "twice" """)).Vcpus);

    [Theory]
    [InlineData(""" "machine-config": { "vcpu_count": 1, "mem_size_mib": 1, "vcpus": 1 } """, "machine-config.vcpus", "unknown key")]
    [InlineData(""" "machine-config": { "vcpu_count": 1, "mem_size_mib": 1, "vcpu-cout": 1 } """, "machine-config.vcpu-cout", "did you mean vcpu_count?")]
    [InlineData(""" "logger": { "loglevel": "Info" } """, "logger.loglevel", "unknown key")]
    [InlineData(""" "vsock": { "guest_cid": 3, "uds_path": "x", "y": 1 } """, "vsock.y", "unknown key")]
    [InlineData(""" "balloon": { "amount_mib": 1, "deflate_on_oom": true, "y": 1 } """, "balloon.y", "unknown key")]
    [InlineData(""" "entropy": { "y": 1 } """, "entropy.y", "unknown key")]
    [InlineData(""" "mmds-config": { "network_interfaces": [], "y": 1 } """, "mmds-config.y", "unknown key")]
    [InlineData(""" "memory-hotplug": { "total_size_mib": 128, "y": 1 } """, "memory-hotplug.y", "unknown key")]
    [InlineData(""" "pmem": [{ "id": "p", "path_on_host": "x", "y": 1 }] """, "pmem[0].y", "unknown key")]
    [InlineData(""" "network-interfaces": [{ "iface_id": "e", "host_dev_name": "t", "y": 1 }] """, "network-interfaces[0].y", "unknown key")]
    [InlineData(""" "entropy": { "rate_limiter": { "y": null } } """, "entropy.rate_limiter.y", "unknown key")]
    [InlineData(""" "cpu-config": { "y": [] } """, "cpu-config.y", "unknown key")]
    public void Unknown_keys_are_refused_inside_objects(string more, string path, string hint)
    {
        var line = Assert.Single(_here.JsonErrors(With(more)).Split('\n'), line => line.Contains($": {path}: ", StringComparison.Ordinal));
        Assert.Contains(hint, line, StringComparison.Ordinal);
    }

    [Fact]
    public void The_metrics_file_is_taken_and_unknown_keys_beside_it_are_passed_over() =>
        Assert.Equal(Path.Combine(_here.Path, "m"), _here.Json("""
            { "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [], "metrics": { "metrics_path": "m", "y": 1 } }
            """).MetricsPath);

    [Theory]
    [InlineData(""" "pmem": [{ "id": "p", "path_on_host": "x", "rate_limiter": { "ops": { "size": 1, "refill_time": 1, "y": 1 } } }] """, ".ops.y")]
    public void Unknown_keys_are_allowed_in_metrics_and_in_token_buckets(string more, string path) =>
        Assert.DoesNotContain(path, _here.JsonErrors(With(more)), StringComparison.Ordinal);

    [Fact]
    public void A_doubled_key_is_refused_with_the_place_of_the_second()
    {
        var errors = _here.JsonErrors("{\n \"boot-source\": { \"kernel_image_path\": \"vmlinuz\",\n   \"kernel_image_path\": \"vmlinuz\" }, \"drives\": []\n}");
        Assert.Equal("vm.json:3:4: boot-source.kernel_image_path: given twice; keep one", errors);
    }

    [Fact]
    public void Entropy_turns_the_device_on_with_its_limits()
    {
        Assert.Empty(_here.Json(With(""" "entropy": null """)).ToSpec().Entropy);
        Assert.Equal(new EntropySpec(), Assert.Single(_here.Json(With(""" "entropy": {} """)).ToSpec().Entropy));
        var limited = Assert.Single(_here.Json(With(
            """ "entropy": { "rate_limiter": { "bandwidth": { "size": 1000, "one_time_burst": 5, "refill_time": 100 }, "ops": null } } """))
            .ToSpec().Entropy);
        Assert.Equal(new TokenBucketSpec(1000, 5, 100), limited.Limits.Bandwidth);
        Assert.False(limited.Limits.Operations.Enabled);
    }

    [Theory]
    [InlineData(""" "drives": [{ "drive_id": "r", "is_root_device": true, "socket": "d" }] """, "drives[0].socket", "vhost-user disks: not built yet")]
    [InlineData(""" "vsock": { "guest_cid": 3, "uds_path": "x" } """, "vsock", "vsock: not built yet")]
    [InlineData(""" "balloon": { "amount_mib": 1, "deflate_on_oom": false } """, "balloon", "the memory balloon: not built yet")]
    [InlineData(""" "pmem": [{ "id": "p", "path_on_host": "x" }] """, "pmem[0]", "persistent memory: not built yet")]
    [InlineData(""" "memory-hotplug": { "total_size_mib": 128 } """, "memory-hotplug", "memory hot-plug: not built yet")]
    public void What_is_not_built_yet_is_refused_by_name_and_is_the_only_error(string more, string path, string what)
    {
        var file = more.Contains("\"drives\"", StringComparison.Ordinal) ? $$"""{ {{Boot}}, {{more}} }""" : With(more);
        var line = Assert.Single(_here.JsonErrors(file).Split('\n'));
        Assert.Contains($": {path} = ", line, StringComparison.Ordinal);
        Assert.Contains(what, line, StringComparison.Ordinal);
        Assert.StartsWith("vm.json:1:", line, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(""" "smt": true """, "smt"), InlineData(""" "track_dirty_pages": true """, "track_dirty_pages")]
    [InlineData(""" "huge_pages": "2M" """, "huge_pages"), InlineData(""" "huge_pages": "Transparent" """, "huge_pages")]
    [InlineData(""" "cpu_template": "T2S" """, "cpu_template"), InlineData(""" "gdb_socket_path": "/tmp/g" """, "gdb_socket_path")]
    public void Machine_features_that_are_not_built_yet_are_refused_by_name(string field, string name)
    {
        var line = Assert.Single(_here.JsonErrors(Machine($""" "vcpu_count": 2, "mem_size_mib": 128, {field} """)).Split('\n'));
        Assert.Contains($"machine-config.{name} = ", line, StringComparison.Ordinal);
        Assert.Contains("not built yet in this version", line, StringComparison.Ordinal);
    }

    [Fact]
    public void With_smt_the_vcpu_count_has_to_be_one_or_even()
    {
        Assert.Contains("allowed is 1 or an even number", _here.JsonErrors(Machine(""" "vcpu_count": 3, "mem_size_mib": 1, "smt": true """)), StringComparison.Ordinal);
        Assert.DoesNotContain("even number", _here.JsonErrors(Machine(""" "vcpu_count": 1, "mem_size_mib": 1, "smt": true """)), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(""" "drives": [{ "is_root_device": true, "path_on_host": "d" }] """, "drives[0].drive_id: missing")]
    [InlineData(""" "drives": [{ "drive_id": "a b", "is_root_device": true, "path_on_host": "d" }] """, "allowed are letters, digits and '_'")]
    [InlineData(""" "drives": [{ "drive_id": "a", "path_on_host": "d" }] """, "drives[0].is_root_device: missing")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": true }] """, "path_on_host is missing; required unless there is a socket")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": false, "socket": "s", "path_on_host": "d" }] """, "may not be given together with socket")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": false, "socket": "s", "io_engine": "Sync" }] """, "may not be given together with socket")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": false, "path_on_host": "d", "cache_type": null }] """, "cache_type = null: may not be null")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": false, "path_on_host": "d", "io_engine": "async" }] """, "one of Sync, Async")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": true, "path_on_host": "d" }, { "drive_id": "b", "is_root_device": true, "path_on_host": "d" }] """, "'a' is the root device already")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": true, "path_on_host": "d" }], "pmem": [{ "id": "p", "path_on_host": "d", "root_device": true }] """, "pmem[0].root_device")]
    [InlineData(""" "drives": [{ "drive_id": "a", "is_root_device": true, "path_on_host": "d", "rate_limiter": { "ops": { "size": 1 } } }] """, "ops.refill_time: missing")]
    [InlineData(""" "drives": [7] """, "drives[0] = 7: allowed is an object")]
    [InlineData(""" "drives": {} """, "drives = an object: allowed is an array")]
    public void The_rules_of_drives_are_checked(string drives, string expected) =>
        Assert.Contains(expected, _here.JsonErrors($$"""{ {{Boot}}, {{drives}} }"""), StringComparison.Ordinal);

    [Theory]
    [InlineData(""" "network-interfaces": [{ "iface_id": "e" }] """, "host_dev_name: missing")]
    [InlineData(""" "network-interfaces": [{ "iface_id": "e", "host_dev_name": "t", "mtu": 67 }] """, "from 68 to 65535")]
    [InlineData(""" "network-interfaces": [{ "iface_id": "e", "host_dev_name": "t", "mtu": 65536 }] """, "from 68 to 65535")]
    [InlineData(""" "network-interfaces": [{ "iface_id": "e", "host_dev_name": "t", "guest_mac": "06:00:ac:10:00" }] """, "allowed is a MAC address")]
    [InlineData(""" "network-interfaces": [{ "iface_id": "a", "host_dev_name": "t", "guest_mac": "06:00:ac:10:00:02" }, { "iface_id": "b", "host_dev_name": "u", "guest_mac": "06:00:AC:10:00:02" }] """, "used by another interface")]
    [InlineData(""" "vsock": { "guest_cid": 2, "uds_path": "x" } """, "vsock.guest_cid = 2")]
    [InlineData(""" "vsock": { "guest_cid": 4294967296, "uds_path": "x" } """, "from 3 to 4294967295")]
    [InlineData(""" "balloon": { "amount_mib": 129, "deflate_on_oom": false } """, "more than the machine's 128 MiB")]
    [InlineData(""" "balloon": { "amount_mib": 1 } """, "deflate_on_oom: missing")]
    [InlineData(""" "balloon": { "amount_mib": 1, "deflate_on_oom": false, "stats_polling_interval_s": 65536 } """, "from 0 to 65535")]
    [InlineData(""" "metrics": {} """, "metrics_path: missing")]
    [InlineData(""" "metrics": { "metrics_path": "m", "properties": { "a": 1 } } """, "allowed is an object of strings")]
    [InlineData(""" "mmds-config": { "network_interfaces": [] } """, "at least one interface id")]
    [InlineData(""" "mmds-config": { "network_interfaces": ["nope"] } """, "no network interface has this id")]
    [InlineData(""" "mmds-config": { "network_interfaces": ["e"], "version": "V3" } """, "one of V1, V2")]
    [InlineData(""" "mmds-config": { "network_interfaces": ["e"], "ipv4_address": "169.254.255.1" } """, "169.254.1.0 to 169.254.254.255")]
    [InlineData(""" "mmds-config": { "network_interfaces": ["e"], "ipv4_address": "169.254.0.255" } """, "169.254.1.0 to 169.254.254.255")]
    [InlineData(""" "memory-hotplug": { "total_size_mib": 128, "block_size_mib": 3 } """, "power of 2")]
    [InlineData(""" "memory-hotplug": { "total_size_mib": 128, "block_size_mib": 1 } """, "2 or more")]
    [InlineData(""" "memory-hotplug": { "total_size_mib": 128, "slot_size_mib": 127 } """, "128 or more")]
    [InlineData(""" "memory-hotplug": { "total_size_mib": 200, "slot_size_mib": 128 } """, "multiple of slot_size_mib")]
    [InlineData(""" "memory-hotplug": { "total_size_mib": 1024, "block_size_mib": 256, "slot_size_mib": 128 } """, "multiple of block_size_mib")]
    [InlineData(""" "logger": { "level": "loud" } """, "one of Off, Error, Warn, Warning, Info, Debug, Trace")]
    [InlineData(""" "logger": { "show_log_origin": true } """, "not built yet")]
    [InlineData(""" "logger": { "module": "vmm" } """, "not built yet")]
    public void The_rules_of_the_other_objects_are_checked(string more, string expected) =>
        Assert.Contains(expected, _here.JsonErrors(With(more)), StringComparison.Ordinal);

    [Theory]
    [InlineData("wArNiNg", "warning"), InlineData("WARN", "warning"), InlineData("off", "off"), InlineData("trace", "trace"), InlineData("Info", "info")]
    public void The_logger_level_is_taken_in_any_case(string level, string expected) =>
        Assert.Equal(expected, _here.Json(With($$""" "logger": { "level": "{{level}}", "log_path": "x.log" } """)).Log!.Level);

    [Fact]
    public void The_log_path_starts_at_the_description_and_the_level_defaults_to_info()
    {
        var log = _here.Json(With(""" "logger": { "log_path": "sub/x.log", "show_level": true } """)).Log!;
        Assert.Equal(new LogDescription(Path.Combine(_here.Path, "sub/x.log"), "info", ShowLevel: true), log);
    }

    [Theory]
    [InlineData("nowhere", "no such file"), InlineData(".", "is a directory"), InlineData("", "empty")]
    public void A_kernel_that_cannot_be_opened_is_refused(string path, string why) =>
        Assert.Contains(why, _here.JsonErrors($$"""{ "boot-source": { "kernel_image_path": "{{path}}" }, "drives": [] }"""), StringComparison.Ordinal);

    [Fact]
    public void An_initrd_that_cannot_be_opened_is_refused() =>
        Assert.Contains("boot-source.initrd_path = \"none\"",
            _here.JsonErrors("""{ "boot-source": { "kernel_image_path": "vmlinuz", "initrd_path": "none" }, "drives": [] }"""), StringComparison.Ordinal);

    [Fact]
    public void A_command_line_is_at_most_2047_printable_characters()
    {
        string File(string line) => $$"""{ "boot-source": { "kernel_image_path": "vmlinuz", "boot_args": "{{line}}" }, "drives": [] }""";
        Assert.Equal(2047, _here.Json(File(new string('a', 2047))).Kernel.CommandLine.Length);
        Assert.Contains("2048 bytes; Linux keeps at most 2047", _here.JsonErrors(File(new string('a', 2048))), StringComparison.Ordinal);
        Assert.Contains("not printable ASCII", _here.JsonErrors(File("caf\u00e9")), StringComparison.Ordinal);
        Assert.Equal("", _here.Json(File("")).Kernel.CommandLine);
    }

    [Theory]
    [InlineData("", 1, 1), InlineData("{", 1, 2), InlineData("{}\n x", 2, 2), InlineData("{ \"a\": 01 }", 1, 9), InlineData("{ // no\n }", 1, 3)]
    [InlineData("{ \"a\": 1, }", 1, 11)]
    public void What_is_not_JSON_is_refused_with_line_and_column(string text, int line, int column) =>
        Assert.StartsWith($"vm.json:{line}:{column}: not JSON", _here.JsonErrors(text), StringComparison.Ordinal);

    [Fact]
    public void All_errors_are_reported_at_once_with_their_places()
    {
        var errors = _here.JsonErrors("{\n  \"boot-source\": {},\n  \"drives\": [],\n  \"machine-config\": { \"vcpu_count\": 99, \"mem_size_mib\": 0 }\n}").Split('\n');
        Assert.Equal(3, errors.Length);
        Assert.Contains(errors, e => e.StartsWith("vm.json:2:18: boot-source.kernel_image_path: missing", StringComparison.Ordinal));
        Assert.Contains("vm.json:4:37: machine-config.vcpu_count = 99: allowed is a whole number from 1 to 32", errors);
        Assert.Contains(errors, e => e.StartsWith("vm.json:4:57: machine-config.mem_size_mib = 0", StringComparison.Ordinal));
    }
}
