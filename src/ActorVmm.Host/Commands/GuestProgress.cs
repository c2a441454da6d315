using System.Runtime.InteropServices;
using ActorVmm.Host.Guests;
using Spectre.Console;

namespace ActorVmm.Host.Commands;

/// <summary>
/// Shows how fetching goes: bars where stderr is a terminal, one line per step where it is not, nothing where nothing is fetched.
/// </summary>
internal static class GuestProgress
{
    private const string ShowCursor = "\u001b[?25h";

    public static async Task<T> ShowAsync<T>(TextWriter errors, bool terminal, Func<IGuestProgress, Task<T>> work)
    {
        if (!terminal)
            return await work(new Lines(errors));
        var bars = new Bars();
        var result = work(bars);
        if (await Task.WhenAny(result, bars.Begun) == result)
            return await result; // there was nothing to show
        using var ending = new CursorGuard(errors);
        var console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(errors), Ansi = AnsiSupport.Yes });
        return await console.Progress().AutoClear(true).AutoRefresh(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new SpinnerColumn())
            .StartAsync(context =>
            {
                bars.ShowOn(context);
                return result;
            });
    }

    /// <summary>The bars hide the cursor; a signal that ends the process brings it back first.</summary>
    private sealed class CursorGuard : IDisposable
    {
        private readonly PosixSignalRegistration[] _registrations;

        public CursorGuard(TextWriter errors) =>
            _registrations =
            [
                .. ((PosixSignal[])[PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP, PosixSignal.SIGQUIT])
                    .Select(signal => PosixSignalRegistration.Create(signal, _ => errors.WriteLine(ShowCursor))),
            ];

        public void Dispose()
        {
            foreach (var registration in _registrations)
                registration.Dispose();
        }
    }

    private sealed class Lines(TextWriter errors) : IGuestProgress
    {
        private readonly HashSet<string> _told = new(StringComparer.Ordinal);

        public void Report(string step, double? fraction)
        {
            lock (_told)
            {
                if (_told.Add(step))
                    errors.WriteLine(step + " ...");
            }
        }
    }

    private sealed class Bars : IGuestProgress
    {
        private readonly TaskCompletionSource _begun = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly Dictionary<string, double?> _steps = new(StringComparer.Ordinal);
        private readonly Dictionary<string, ProgressTask> _bars = new(StringComparer.Ordinal);
        private ProgressContext? _context;

        /// <summary>Done with the first step.</summary>
        public Task Begun => _begun.Task;

        public void Report(string step, double? fraction)
        {
            lock (_steps)
            {
                _steps[step] = fraction;
                Show(step, fraction);
            }
            _begun.TrySetResult();
        }

        /// <summary>Shows the steps so far, and from now on each.</summary>
        public void ShowOn(ProgressContext context)
        {
            lock (_steps)
            {
                _context = context;
                foreach (var (step, fraction) in _steps)
                    Show(step, fraction);
            }
        }

        private void Show(string step, double? fraction)
        {
            if (_context is null)
                return;
            if (!_bars.TryGetValue(step, out var bar))
                _bars[step] = bar = _context.AddTask(Markup.Escape(step), maxValue: 1);
            bar.IsIndeterminate = fraction is null;
            bar.Value = fraction ?? 0;
        }
    }
}
