using System.Collections.Concurrent;
using Serilog;

namespace ActorVmm.Host.Fleet;

/// <summary>
/// The consoles of a host's VMs, by name; where a directory is given, with a file each, so that what was printed outlives this process.
/// </summary>
/// <param name="ringBytes">How much of the latest is kept per VM.</param>
/// <param name="directory">Where the files are; null for memory only.</param>
/// <param name="log">Hears of files that cannot be used; the consoles then are in memory.</param>
internal sealed class ConsoleShelf(int ringBytes, string? directory, ILogger log) : IAsyncDisposable
{
    private readonly ConcurrentDictionary<ConsoleHub, ConsoleFile> _files = [];

    /// <summary>A console for a VM that is being added.</summary>
    public ConsoleHub NewHub() => new(ringBytes: ringBytes);

    /// <summary>The VM is there: its console is filled from its file, where it has one, and kept there.</summary>
    public void Keep(string name, ConsoleHub hub)
    {
        if (directory is null) return;
        try
        {
            PrivateFiles.MakeDirectory(directory);
            _files[hub] = ConsoleFile.Open(Path.Combine(directory, name + ".console"), hub, log);
        }
        catch (Exception cannot) when (cannot is IOException or UnauthorizedAccessException)
        {
            log.Error("What {Vm} prints is kept in memory only: {Why}", name, cannot.Message);
        }
    }

    /// <summary>The VM has been removed, and its console goes with it.</summary>
    public void Forget(ConsoleHub hub)
    {
        if (!_files.TryRemove(hub, out var file)) return;
        _ = file.DeleteAsync().ContinueWith(
            failed => log.Warning("A console's file is left behind: {Why}", failed.Exception!.GetBaseException().Message),
            CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        foreach (var file in _files.Values) await file.DisposeAsync().ConfigureAwait(false);
    }
}
