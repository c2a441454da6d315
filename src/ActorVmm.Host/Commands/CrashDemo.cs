using System.Globalization;
using ActorVmm.Host.Faults;
using ActorVmm.Host.Guests;
using ActorVmm.Host.Terminal;
using ActorVmm.Hypervisor;

namespace ActorVmm.Host.Commands;

/// <summary><c>demo --crash</c>: devices crash, the guest does not notice, and the numbers run.</summary>
internal sealed class CrashDemo(HostServices services, TextWriter output, TextWriter errors)
{
    /// <param name="hypervisor">As for any demo.</param>
    /// <param name="crashes">Ends after so many; null: with Ctrl-C.</param>
    /// <param name="vcpus">Number of vCPUs.</param>
    /// <param name="cancel">Ctrl-C.</param>
    /// <returns>0 only where the guest saw no error.</returns>
    public async Task<int> RunAsync(string hypervisor, int? crashes, int vcpus, CancellationToken cancel)
    {
        var terminal = Libc.IsTerminal(1);
        var shown = 0;
        void Show(CrashLoopReport report)
        {
            // A line that is written over on a terminal; one line per ten crashes elsewhere.
            if (terminal) output.Write("\r" + Text(report));
            else if (report.Crashes / 10 > Interlocked.Exchange(ref shown, report.Crashes / 10)) output.WriteLine(Text(report));
        }

        try
        {
            var chosen = services.Hypervisors.Select(hypervisor, out _);
            await output.WriteLineAsync("A guest writes, reads back, compares and pings while its block, network and serial actors are crashed."
                + (crashes is null ? " Ctrl-C ends it." : "")).ConfigureAwait(false);
            var report = await new CrashLoop(new CrashLoopOptions { Crashes = crashes, Vcpus = vcpus }) { Progress = Show }
                .RunAsync(chosen, cancel).ConfigureAwait(false);
            if (terminal) await output.WriteLineAsync().ConfigureAwait(false);
            await output.WriteLineAsync(string.Create(CultureInfo.InvariantCulture,
                $"{Text(report)}; {report.Restarts} restarts; the guest ended by {report.Ended?.Text}")).ConfigureAwait(false);
            foreach (var (device, pause) in report.Pauses)
                await output.WriteLineAsync($"  {device} was away: {pause}").ConfigureAwait(false);
            return report.IsClean && report.Crashes >= (crashes ?? 0) ? ExitCodes.Success : ExitCodes.Failure;
        }
        catch (Exception cannot) when (cannot is HypervisorException or GuestException)
        {
            await errors.WriteLineAsync($"actorvmm: {cannot.Message}").ConfigureAwait(false);
            return ExitCodes.Failure;
        }
    }

    private static string Text(CrashLoopReport report) => string.Create(CultureInfo.InvariantCulture,
        $"crashes {report.Crashes,6}   passes {report.Passes,5}   errors seen by the guest {report.GuestErrors}");
}
