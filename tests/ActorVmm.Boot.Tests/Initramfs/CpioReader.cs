using System.Globalization;
using System.Text;

namespace ActorVmm.Boot.Tests.Initramfs;

/// <summary>One entry as the kernel's unpacker sees it.</summary>
internal sealed record CpioEntry(string Name, uint Inode, uint Mode, uint Links, uint Mtime, uint Major, uint Minor, byte[] Data);

/// <summary>Reads a newc archive up to its trailer; throws where a header is not well formed.</summary>
internal static class CpioReader
{
    public static List<CpioEntry> Read(ReadOnlySpan<byte> archive)
    {
        var entries = new List<CpioEntry>();
        for (var at = 0; ;)
        {
            var header = Encoding.ASCII.GetString(archive.Slice(at, 110));
            if (header[..6] != "070701") throw new InvalidDataException($"no newc magic at {at}");
            var f = Enumerable.Range(0, 13).Select(i => header.Substring(6 + 8 * i, 8))
                .Select(hex => uint.Parse(hex, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture)).ToArray();
            if (archive[at + 110 + (int)f[11] - 1] != 0) throw new InvalidDataException("the name has no NUL");
            var name = Encoding.UTF8.GetString(archive.Slice(at + 110, (int)f[11] - 1));
            var data = (at + 110 + (int)f[11] + 3) & ~3;
            if (name == "TRAILER!!!")
            {
                if (archive[data..].ContainsAnyExcept((byte)0)) throw new InvalidDataException("bytes behind the trailer");
                return entries;
            }
            entries.Add(new CpioEntry(name, f[0], f[1], f[4], f[5], f[9], f[10], archive.Slice(data, (int)f[6]).ToArray()));
            at = (data + (int)f[6] + 3) & ~3;
        }
    }
}
