using ActorVmm.Hypervisor.Kvm;

namespace ActorVmm.Host.Tests.Descriptions;

public sealed class CpuConfigTests : IDisposable
{
    private const string Full = """
        {
          "kvm_capabilities": ["121", "!56"],
          "cpuid_modifiers": [
            { "leaf": "0x80000001", "subleaf": "0x0", "flags": 0,
              "modifiers": [{ "register": "ecx", "bitmap": "0b0x1" }, { "register": "edx", "bitmap": "0b1_xxxx_xxx0" }] },
            { "leaf": "0x7", "subleaf": "0b1", "flags": 1, "modifiers": [{ "register": "eax", "bitmap": "0bxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0" }] }
          ],
          "msr_modifiers": [{ "addr": "0x10a", "bitmap": "0b1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0" }]
        }
        """;

    private readonly TemporaryDirectory _here = new();

    public void Dispose() => _here.Dispose();

    private static string With(string cpu) =>
        $$"""{ "boot-source": { "kernel_image_path": "vmlinuz" }, "drives": [], "cpu-config": {{cpu}} }""";

    private static string Leaf(string fields) => $$"""{ "cpuid_modifiers": [{ {{fields}} }] }""";

    private static string Register(string fields) => Leaf($$""" "leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": [{ {{fields}} }] """);

    private static string Msr(string fields) => $$"""{ "msr_modifiers": [{ {{fields}} }] }""";

    private static void IsFull(KvmCpuTemplate cpu)
    {
        Assert.False(cpu.IsEmpty);
        Assert.Equal([new CapabilityDemand(121, Required: true), new CapabilityDemand(56, Required: false)], cpu.Capabilities);
        Assert.Equal(
        [
            new CpuidModifier(0x8000_0001, 0, CpuidRegister.Ecx, new BitPattern(0b101, 0b001)),
            new CpuidModifier(0x8000_0001, 0, CpuidRegister.Edx, new BitPattern(0x101, 0x100)),
            new CpuidModifier(7, 1, CpuidRegister.Eax, new BitPattern(1, 0)),
        ], cpu.Cpuid);
        Assert.Equal([new MsrModifier(0x10A, new BitPattern(1UL << 63 | 1, 1UL << 63))], cpu.Msrs);
    }

    [Fact]
    public void An_object_becomes_the_template_of_kvm() => IsFull(_here.Json(With(Full)).Cpu);

    [Fact]
    public void A_path_names_a_file_that_holds_the_object_and_starts_at_the_description()
    {
        _here.Write("cpu/template.json", Full);
        IsFull(_here.Json(With("\"cpu/template.json\"")).Cpu);
    }

    [Theory]
    [InlineData("null"), InlineData("{}")]
    [InlineData("""{ "kvm_capabilities": [], "cpuid_modifiers": [], "msr_modifiers": [], "reg_modifiers": [], "vcpu_features": [] }""")]
    public void An_empty_one_changes_nothing(string cpu) => Assert.True(_here.Json(With(cpu)).Cpu.IsEmpty);

    [Theory]
    [InlineData("7", "cpu-config = 7: allowed is an object { ... } or the path of a file")]
    [InlineData("[]", "cpu-config = an array of 0: allowed is an object")]
    [InlineData("\"\"", "cpu-config = \"\": empty; allowed is the path of a file")]
    [InlineData("\"nowhere.json\"", "cpu-config = \"nowhere.json\": cannot be opened: no such file")]
    [InlineData("""{ "kvm_capabilities": [121] }""", "cpu-config.kvm_capabilities[0] = 121: allowed are strings")]
    [InlineData("""{ "kvm_capabilities": ["1", "!"] }""", "cpu-config.kvm_capabilities[1] = \"!\": allowed are strings")]
    [InlineData("""{ "kvm_capabilities": ["-1"] }""", "cpu-config.kvm_capabilities[0] = \"-1\": allowed are strings")]
    [InlineData("""{ "kvm_capabilities": ["4294967296"] }""", "cpu-config.kvm_capabilities[0] = ")]
    [InlineData("""{ "kvm_capabilities": null }""", "cpu-config.kvm_capabilities = null: may not be null")]
    [InlineData("""{ "reg_modifiers": [{ "addr": "0x0", "bitmap": "0b1" }] }""", "cpu-config.reg_modifiers = an array of 1: is for arm64 guests")]
    [InlineData("""{ "vcpu_features": [{ "index": 0, "bitmap": "0b1" }] }""", "cpu-config.vcpu_features = an array of 1: is for arm64 guests")]
    [InlineData("""{ "cpuid_modifier": [] }""", "cpu-config.cpuid_modifier: unknown key; did you mean cpuid_modifiers?")]
    [InlineData("""{ "cpuid_modifiers": [3] }""", "cpu-config.cpuid_modifiers[0] = 3: allowed is an object")]
    [InlineData("""{ "msr_modifiers": {} }""", "cpu-config.msr_modifiers = an object: allowed is an array")]
    public void What_the_object_may_not_hold_is_named(string cpu, string expected) =>
        Assert.Contains("vm.json:1:", Line(With(cpu), expected), StringComparison.Ordinal);

    public static TheoryData<string, string> BadParts => new()
    {
        { Leaf(""" "subleaf": "0x0", "flags": 0, "modifiers": [] """), "cpuid_modifiers[0].leaf: missing; required is a string such as" },
        { Leaf(""" "leaf": "0x1", "flags": 0, "modifiers": [] """), "cpuid_modifiers[0].subleaf: missing" },
        { Leaf(""" "leaf": "0x1", "subleaf": "0x0", "modifiers": [] """), "cpuid_modifiers[0].flags: missing" },
        { Leaf(""" "leaf": "0x1", "subleaf": "0x0", "flags": 0 """), "cpuid_modifiers[0].modifiers: missing" },
        { Leaf(""" "leaf": "0x1", "subleaf": "0x0", "flags": 8, "modifiers": [] """), "cpuid_modifiers[0].flags = 8: allowed is a whole number from 0 to 7" },
        { Leaf(""" "leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": [], "x": 1 """), "cpuid_modifiers[0].x: unknown key" },
        { Leaf(""" "leaf": 1, "subleaf": "0x0", "flags": 0, "modifiers": [] """), "cpuid_modifiers[0].leaf = 1: allowed is a string such as" },
        { Leaf(""" "leaf": "1", "subleaf": "0x0", "flags": 0, "modifiers": [] """), "cpuid_modifiers[0].leaf = \"1\": allowed is a string such as" },
        { Leaf(""" "leaf": "0x", "subleaf": "0x0", "flags": 0, "modifiers": [] """), "cpuid_modifiers[0].leaf = \"0x\": allowed" },
        { Leaf(""" "leaf": "0x100000000", "subleaf": "0x0", "flags": 0, "modifiers": [] """), "cpuid_modifiers[0].leaf = \"0x100000000\": allowed" },
        { Leaf(""" "leaf": "0x1", "subleaf": "0b2", "flags": 0, "modifiers": [] """), "cpuid_modifiers[0].subleaf = \"0b2\": allowed" },
        { Register(""" "register": "rax", "bitmap": "0b1" """), "modifiers[0].register = \"rax\": allowed is one of eax, ebx, ecx, edx" },
        { Register(""" "register": "EAX", "bitmap": "0b1" """), "modifiers[0].register = \"EAX\": allowed is one of" },
        { Register(""" "register": "eax" """), "modifiers[0].bitmap: missing" },
        { Register(""" "register": "eax", "bitmap": "1" """), "modifiers[0].bitmap = \"1\": allowed is a string of 0b and 1 to 32 of 0, 1 and x" },
        { Register(""" "register": "eax", "bitmap": "0b" """), "modifiers[0].bitmap = \"0b\": allowed" },
        { Register(""" "register": "eax", "bitmap": "0b2" """), "modifiers[0].bitmap = \"0b2\": allowed" },
        { Register(""" "register": "eax", "bitmap": "0b111111111111111111111111111111111" """), "modifiers[0].bitmap = " },
        { Register(""" "register": "eax", "bitmap": "0b1", "y": 0 """), "modifiers[0].y: unknown key" },
        { Msr(""" "bitmap": "0b1" """), "msr_modifiers[0].addr: missing" },
        { Msr(""" "addr": "0x10a" """), "msr_modifiers[0].bitmap: missing; required is a string of 0b and 1 to 64" },
        { Msr(""" "addr": "10a", "bitmap": "0b1" """), "msr_modifiers[0].addr = \"10a\": allowed" },
        { Msr(""" "addr": "0x10a", "bitmap": 1 """), "msr_modifiers[0].bitmap = 1: allowed is a string of 0b and 1 to 64" },
        { Msr(""" "addr": "0x10a", "bitmap": "0b1", "value": 3 """), "msr_modifiers[0].value: unknown key" },
    };

    [Theory, MemberData(nameof(BadParts))]
    public void Each_bad_part_is_named_with_its_path_its_value_and_what_is_allowed(string cpu, string expected)
    {
        var inline = Line(With(cpu), expected);
        Assert.StartsWith("vm.json:1:", inline, StringComparison.Ordinal);
        Assert.Contains(": cpu-config.", inline, StringComparison.Ordinal);

        var path = _here.Write("cpu.json", cpu);
        var outside = Line(With("\"cpu.json\""), expected);
        Assert.StartsWith(path + ":1:", outside, StringComparison.Ordinal);
        Assert.DoesNotContain("cpu-config", outside, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[]", ":1:1: a CPU template is an object { ... }"), InlineData("{\n \"a\" }", ":2:6: not JSON")]
    public void A_file_that_is_no_template_is_refused_under_its_own_name(string text, string expected)
    {
        var path = _here.Write("cpu.json", text);
        Assert.StartsWith(path + expected, Assert.Single(_here.JsonErrors(With("\"cpu.json\"")).Split('\n')), StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_without_end_is_refused() =>
        Assert.Contains("/dev/zero: larger than", _here.JsonErrors(With("\"/dev/zero\"")), StringComparison.Ordinal);

    [Fact]
    public void Errors_of_both_files_are_told_at_once()
    {
        _here.Write("cpu.json", """{ "x": 1 }""");
        var errors = _here.JsonErrors("""{ "boot-source": { "kernel_image_path": "none" }, "drives": [], "cpu-config": "cpu.json" }""");
        Assert.Equal(2, errors.Split('\n').Length);
    }

    private string Line(string file, string expected) =>
        Assert.Single(_here.JsonErrors(file).Split('\n'), line => line.Contains(expected, StringComparison.Ordinal));
}
