namespace ActorVmm.Host.Descriptions;

/// <summary>The nearest known word to a mistyped one.</summary>
internal static class Nearest
{
    /// <summary>The word with the smallest edit distance, where that is small enough to be a slip; null otherwise.</summary>
    public static string? To(string word, IEnumerable<string> known)
    {
        if (word.Length > 64)
            return null;
        var best = known
            .Select(candidate => (Candidate: candidate, Distance: Distance(Fold(word), Fold(candidate))))
            .OrderBy(pair => pair.Distance).FirstOrDefault();
        return best.Candidate is not null && best.Distance <= Math.Max(1, best.Candidate.Length / 3) ? best.Candidate : null;
    }

    // A wrong case or the other kind of dash costs nothing.
    private static string Fold(string word) => word.ToLowerInvariant().Replace('_', '-');

    private static int Distance(string a, string b)
    {
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (var i = 1; i <= a.Length; i++)
        {
            var diagonal = row[0];
            row[0] = i;
            for (var j = 1; j <= b.Length; j++)
            {
                var above = row[j];
                row[j] = Math.Min(Math.Min(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }
        return row[^1];
    }
}
