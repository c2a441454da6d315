using ActorVmm.Host.Guests;
using Spectre.Console;

namespace ActorVmm.Host.Commands;

/// <summary>Shows how fetching goes: bars where stderr is a terminal, one line per step where it is not, nothing where nothing is fetched.</summary>
internal static class GuestProgress
{
    public static async Task<T> ShowAsync<T>(TextWriter errors, bool terminal, Func<IGuestProgress, Task<T>> work)
    {
        if (!terminal)
            return await work(new Lines(errors));
        var console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(errors), Ansi = AnsiSupport.Yes });
        return await console.Progress().AutoClear(true).AutoRefresh(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new SpinnerColumn())
            .StartAsync(context => work(new Bars(context)));
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

    private sealed class Bars(ProgressContext context) : IGuestProgress
    {
        private readonly Dictionary<string, ProgressTask> _bars = new(StringComparer.Ordinal);

        public void Report(string step, double? fraction)
        {
            lock (_bars)
            {
                if (!_bars.TryGetValue(step, out var bar))
                    _bars[step] = bar = context.AddTask(Markup.Escape(step), maxValue: 1);
                bar.IsIndeterminate = fraction is null;
                bar.Value = fraction ?? 0;
            }
        }
    }
}
