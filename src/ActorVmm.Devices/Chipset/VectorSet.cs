using System.Numerics;

namespace ActorVmm.Devices.Chipset;

/// <summary>One bit per interrupt vector, as a value (an IRR, ISR or TMR).</summary>
public readonly record struct VectorSet(ulong Word0, ulong Word1, ulong Word2, ulong Word3)
{
    /// <summary>Whether a vector is in the set.</summary>
    public bool Contains(byte vector) => ((this[vector >> 6] >> (vector & 63)) & 1) != 0;

    /// <summary>64 vectors, lowest first.</summary>
    public ulong this[int word] => word switch { 0 => Word0, 1 => Word1, 2 => Word2, _ => Word3 };

    public override string ToString()
    {
        if (this == default) return "-";
        var vectors = new List<string>();
        for (var v = 0; v < 256; v++)
            if (Contains((byte)v)) vectors.Add($"{v:x2}");
        return string.Join(',', vectors);
    }

    internal static VectorSet From(ulong[] words) =>
        new(Volatile.Read(ref words[0]), Volatile.Read(ref words[1]), Volatile.Read(ref words[2]), Volatile.Read(ref words[3]));

    internal void CopyTo(ulong[] words)
    {
        for (var i = 0; i < 4; i++) Volatile.Write(ref words[i], this[i]);
    }

    /// <summary>The highest vector in the four words, or -1.</summary>
    internal static int Highest(ulong[] words)
    {
        for (var i = 3; i >= 0; i--)
        {
            var word = Volatile.Read(ref words[i]);
            if (word != 0) return i * 64 + BitOperations.Log2(word);
        }

        return -1;
    }
}
