using System.Buffers.Binary;
using System.Globalization;

namespace ActorVmm.Devices.Virtio.Net;

/// <summary>An Ethernet address: six bytes, the first one in bits 40 to 47.</summary>
public readonly record struct MacAddress(ulong Value)
{
    /// <summary>Its length on the wire, in bytes.</summary>
    public const int Length = 6;

    /// <summary>Every station.</summary>
    public static readonly MacAddress Broadcast = new(0xffff_ffff_ffff);

    /// <summary>Broadcast, or a group of stations (IEEE 802.3 §3.2.3: the lowest bit of the first byte).</summary>
    public bool IsGroup => (Value >> 40 & 1) != 0;

    /// <summary>Reads the first six bytes.</summary>
    public static MacAddress From(ReadOnlySpan<byte> bytes) =>
        new((ulong)BinaryPrimitives.ReadUInt16BigEndian(bytes) << 32 | BinaryPrimitives.ReadUInt32BigEndian(bytes[2..]));

    /// <summary>Writes six bytes.</summary>
    public void CopyTo(Span<byte> into)
    {
        BinaryPrimitives.WriteUInt16BigEndian(into, (ushort)(Value >> 32));
        BinaryPrimitives.WriteUInt32BigEndian(into[2..], (uint)Value);
    }

    /// <summary>
    /// The address of a device that was given none: locally administered, a function of the VM's name and the device's, so that it is the
    /// same in every run and differs between VMs.
    /// </summary>
    public static MacAddress Derive(string vm, string device)
    {
        ArgumentNullException.ThrowIfNull(vm);
        ArgumentNullException.ThrowIfNull(device);
        var hash = 14695981039346656037UL; // FNV-1a, 64 bits
        foreach (var c in vm) hash = (hash ^ c) * 1099511628211UL;
        hash = (hash ^ '/') * 1099511628211UL;
        foreach (var c in device) hash = (hash ^ c) * 1099511628211UL;
        hash ^= hash >> 32;
        return new MacAddress(0x02AC_0000_0000UL | (uint)hash); // 02: local, unicast
    }

    /// <summary>Reads <c>06:00:AC:10:00:02</c>; false for any other form.</summary>
    public static bool TryParse(string? text, out MacAddress mac)
    {
        mac = default;
        if (text is not { Length: 17 }) return false;
        ulong value = 0;
        for (var i = 0; i < 6; i++)
        {
            if (i > 0 && text[3 * i - 1] != ':') return false;
            if (!byte.TryParse(text.AsSpan(3 * i, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var part)) return false;
            value = value << 8 | part;
        }

        mac = new MacAddress(value);
        return true;
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{(byte)(Value >> 40):x2}:{(byte)(Value >> 32):x2}:{(byte)(Value >> 24):x2}:{(byte)(Value >> 16):x2}:{(byte)(Value >> 8):x2}:{(byte)Value:x2}");
}
