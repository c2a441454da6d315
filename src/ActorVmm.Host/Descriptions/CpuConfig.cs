using System.Globalization;
using ActorVmm.Hypervisor.Kvm;

namespace ActorVmm.Host.Descriptions;

/// <summary>
/// <c>cpu-config</c> of a Firecracker configuration, an object or the path of a JSON file that holds one: what KVM is to change of the
/// CPU that the guest sees. Numbers of CPUID and of model-specific registers are strings with <c>0x</c> or <c>0b</c>; bitmaps are <c>0b</c> and,
/// most significant first, 0, 1 or x (keep the host's bit), with underscores between them where they help the eye.
/// </summary>
internal static class CpuConfig
{
    private const string Key = "cpu-config";
    private const string Allowed = "an object { ... } or the path of a file that holds one";
    private const string NumberAllowed = "a string such as \"0x80000001\" or \"0b1\", at most 32 bits";

    private const string CapabilityAllowed = "allowed are strings of a capability's number, such as \"121\" or \"!56\"";

    // KVM_CPUID_FLAG_SIGNIFICANT_INDEX, _STATEFUL_FUNC, _STATE_READ_NEXT (linux/kvm.h).
    private const uint KnownFlags = 7;

    /// <returns>The template; none where there is no key or an error was recorded.</returns>
    public static KvmCpuTemplate Read(ObjectReader file, string baseDirectory)
    {
        if (file.Take(Key, Need.Nullable, Allowed) is not { } node)
            return KvmCpuTemplate.None;
        switch (node.Kind)
        {
            case NodeKind.Object:
                return Template(new ObjectReader(node, Key, file.Errors));
            case NodeKind.String or NodeKind.Text:
                return DescriptionChecks.File(file, Key, node.Text, baseDirectory) is { } path ? ReadFile(file, path) : KvmCpuTemplate.None;
            default:
                file.Reject(Key, $"allowed is {Allowed}");
                return KvmCpuTemplate.None;
        }
    }

    private static KvmCpuTemplate ReadFile(ObjectReader file, string path)
    {
        // Errors of that file carry its own name and places.
        var errors = new ErrorList(path);
        var template = KvmCpuTemplate.None;
        try
        {
            var root = JsonTree.Parse(DescriptionReader.ReadBytes(path), errors);
            if (root.Kind == NodeKind.Object)
                template = Template(new ObjectReader(root, "", errors));
            else
                errors.Add(root, "", "a CPU template is an object { ... }");
            file.Errors.Include(errors.All);
        }
        catch (DescriptionException wrong)
        {
            file.Errors.Include(wrong.Errors);
        }
        return template;
    }

    private static KvmCpuTemplate Template(ObjectReader config)
    {
        List<CapabilityDemand> capabilities = [];
        List<CpuidModifier> cpuid = [];
        List<MsrModifier> msrs = [];
        var names = config.Array("kvm_capabilities", Need.Optional);
        for (var i = 0; i < names.Count; i++)
        {
            if (Capability(names[i]) is { } demand)
                capabilities.Add(demand);
            else
                config.Errors.Add(names[i], At(config, "kvm_capabilities", i), CapabilityAllowed);
        }
        foreach (var leaf in config.Objects("cpuid_modifiers", Need.Optional))
            Leaf(leaf, cpuid);
        foreach (var register in config.Objects("msr_modifiers", Need.Optional))
        {
            var address = Number(register, "addr");
            var bits = Bits(register, 64);
            register.Finish();
            if (address is { } index && bits is { } pattern)
                msrs.Add(new MsrModifier(index, pattern));
        }
        foreach (var foreign in (ReadOnlySpan<string>)["reg_modifiers", "vcpu_features"])
        {
            if (config.Array(foreign, Need.Optional).Count > 0)
                config.Reject(foreign, "is for arm64 guests; allowed here is an empty array");
        }
        config.Finish();
        return capabilities.Count + cpuid.Count + msrs.Count == 0 ? KvmCpuTemplate.None
            : new KvmCpuTemplate { Capabilities = capabilities, Cpuid = cpuid, Msrs = msrs };
    }

    private static void Leaf(ObjectReader leaf, List<CpuidModifier> cpuid)
    {
        var number = Number(leaf, "leaf");
        var subleaf = Number(leaf, "subleaf");
        // How KVM is to find the entry: the host's own table has that right already, so it is checked, not used.
        leaf.Integer("flags", Need.Required, 0, KnownFlags);
        foreach (var modifier in leaf.Objects("modifiers", Need.Required))
        {
            CpuidRegister? register = modifier.Choice("register", Need.Required, StringComparison.Ordinal, "eax", "ebx", "ecx", "edx") switch
            {
                "eax" => CpuidRegister.Eax, "ebx" => CpuidRegister.Ebx, "ecx" => CpuidRegister.Ecx, "edx" => CpuidRegister.Edx, _ => null,
            };
            var bits = Bits(modifier, 32);
            modifier.Finish();
            if (number is { } function && subleaf is { } index && register is { } target && bits is { } pattern)
                cpuid.Add(new CpuidModifier(function, index, target, pattern));
        }
        leaf.Finish();
    }

    private static CapabilityDemand? Capability(Node node)
    {
        if (node.Kind is not (NodeKind.String or NodeKind.Text))
            return null;
        var dropped = node.Text.StartsWith('!');
        return uint.TryParse(node.Text.AsSpan(dropped ? 1 : 0), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? new CapabilityDemand(number, Required: !dropped)
            : null;
    }

    private static uint? Number(ObjectReader reader, string key)
    {
        if (reader.String(key, Need.Required, NumberAllowed) is not { } text)
            return null;
        uint number = 0;
        var digits = text.AsSpan(Math.Min(2, text.Length));
        var good = text.StartsWith("0x", StringComparison.Ordinal)
            ? uint.TryParse(digits, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out number)
            : text.StartsWith("0b", StringComparison.Ordinal)
                && uint.TryParse(digits, NumberStyles.AllowBinarySpecifier, CultureInfo.InvariantCulture, out number);
        if (good)
            return number;
        reader.Reject(key, $"allowed is {NumberAllowed}");
        return null;
    }

    private static BitPattern? Bits(ObjectReader reader, int width)
    {
        var allowed = string.Create(CultureInfo.InvariantCulture,
            $"a string of 0b and 1 to {width} of 0, 1 and x (keep), such as \"0b0xx1\"");
        if (reader.String("bitmap", Need.Required, allowed) is not { } text)
            return null;
        if (BitPattern.TryParse(text, width, out var pattern))
            return pattern;
        reader.Reject("bitmap", $"allowed is {allowed}");
        return null;
    }

    private static string At(ObjectReader reader, string key, int index) =>
        string.Create(CultureInfo.InvariantCulture, $"{reader.PathOf(key)}[{index}]");
}
