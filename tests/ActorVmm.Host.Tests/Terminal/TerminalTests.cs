using System.Diagnostics;
using System.Globalization;
using ActorVmm.Host.Terminal;

namespace ActorVmm.Host.Tests.Terminal;

public sealed class TerminalTests : IDisposable
{
    private const int Hangup = 1, Interrupt = 2, Quit = 3, Terminate = 15, Continue = 18, TerminalStop = 20;

    private readonly PseudoTerminal _terminal = new();
    private readonly byte[] _before;

    public TerminalTests() => _before = _terminal.Settings;

    public void Dispose() => _terminal.Dispose();

    private void StartInRawMode(params string[] arguments)
    {
        _terminal.Start(arguments);
        _terminal.WaitFor("READY");
        _terminal.WaitUntil(() => !_before.AsSpan().SequenceEqual(_terminal.Settings), "raw mode");
    }

    private void EndsWith(int status, string closingLine)
    {
        Assert.Equal(status, _terminal.WaitForExit());
        Assert.Equal(_before, _terminal.Settings);
        _terminal.WaitFor(closingLine);
    }

    [Fact]
    public void The_terminal_is_as_before_after_a_normal_end()
    {
        StartInRawMode("run");
        _terminal.Type("q");
        EndsWith(0, "stopped: poweroff");
    }

    [SkippableTheory]
    [InlineData("KVM_CREATE_VM", 0xAE01, 16, "another hypervisor holds the processor's virtualization")] // EBUSY
    [InlineData("KVM_CREATE_VCPU", 0xAE41, 12, "the host is out of memory")] // ENOMEM
    [InlineData("KVM_SET_USER_MEMORY_REGION", 0x4020AE46, 28, "the kernel's table is full")] // ENOSPC
    [InlineData("KVM_RUN", 0xAE80, 5, "the vCPU is lost")] // EIO, once the guest is to run
    public void A_kvm_that_refuses_ends_the_run_with_33_its_own_words_and_the_terminal_as_before(string call, int request, int errno, string advice)
    {
        try { File.Open("/dev/kvm", FileMode.Open, FileAccess.ReadWrite).Dispose(); }
        catch (Exception none) when (none is IOException or UnauthorizedAccessException) { Skip.If(true, $"/dev/kvm: {none.Message}"); }
        _terminal.Start("kvm", request.ToString(CultureInfo.InvariantCulture), errno.ToString(CultureInfo.InvariantCulture));
        EndsWith(33, advice);
        Assert.Contains($"{call} failed: ", _terminal.Shown, StringComparison.Ordinal);
        Assert.Contains($"(errno {errno})", _terminal.Shown, StringComparison.Ordinal);
    }

    [Fact]
    public void Nothing_but_the_guest_and_the_closing_line_is_written_to_the_terminal()
    {
        StartInRawMode("run");
        _terminal.Type("q");
        EndsWith(0, "stopped: poweroff");
        Assert.DoesNotContain("\x1b", _terminal.Shown, StringComparison.Ordinal); // no sequence that leaves the terminal changed
    }

    [Theory]
    [InlineData(Terminate), InlineData(Hangup), InlineData(Interrupt), InlineData(Quit)]
    public void A_signal_while_fetching_brings_the_cursor_back(int signal)
    {
        _terminal.Start("fetch");
        _terminal.WaitFor("Fetching for ever");
        Assert.Contains("\x1b[?25l", _terminal.Shown, StringComparison.Ordinal);
        _terminal.Signal(signal);
        Assert.NotEqual(0, _terminal.WaitForExit());
        _terminal.WaitUntil(() => _terminal.Shown.LastIndexOf("\x1b[?25h", StringComparison.Ordinal)
            > _terminal.Shown.LastIndexOf("\x1b[?25l", StringComparison.Ordinal), "the cursor");
    }

    [Fact]
    public void Control_keys_reach_the_guest_and_are_not_echoed_by_the_terminal()
    {
        StartInRawMode("run");
        _terminal.Type("\x03\x1a\x1c\x11\x13\r");
        _terminal.WaitFor("\x03\x1a\x1c\x11\x13\r");
        Assert.DoesNotContain("^C", _terminal.Shown, StringComparison.Ordinal);
        _terminal.Type("q");
        EndsWith(0, "stopped: poweroff");
    }

    [Fact]
    public void Ctrl_A_X_leaves_and_Ctrl_A_H_helps_and_Ctrl_A_A_sends_Ctrl_A()
    {
        StartInRawMode("run");
        _terminal.Type("\x01h");
        _terminal.WaitFor("Ctrl-A X  leave");
        _terminal.Type("<\x01\x01\x01" + "a>");
        _terminal.WaitFor("<\x01\x01>");
        _terminal.Type("\x01x");
        EndsWith(0, "stopped: requested");
    }

    [Theory]
    [InlineData(Terminate), InlineData(Hangup), InlineData(Interrupt), InlineData(Quit)]
    public void The_terminal_is_as_before_after_a_signal_and_the_status_says_which(int signal)
    {
        StartInRawMode("run");
        _terminal.Signal(signal);
        EndsWith(128 + signal, "stopped: requested");
    }

    [Fact]
    public void The_terminal_is_as_before_after_an_unhandled_exception()
    {
        StartInRawMode("run");
        _terminal.Type("c");
        Assert.NotEqual(0, _terminal.WaitForExit());
        Assert.Equal(_before, _terminal.Settings);
    }

    [Fact]
    public void A_second_signal_ends_a_run_whose_guest_does_not_stop()
    {
        StartInRawMode("run", "deaf");
        _terminal.Signal(Terminate);
        _terminal.Signal(Interrupt);
        Assert.InRange(_terminal.WaitForExit(), 130, 143);
        Assert.Equal(_before, _terminal.Settings);
    }

    [Fact]
    public void Stopping_and_continuing_gives_the_terminal_back_in_between()
    {
        StartInRawMode("run");
        var raw = _terminal.Settings;
        _terminal.Signal(TerminalStop);
        _terminal.WaitUntil(() => IsStopped(_terminal.ProcessId), "the process to stop");
        Assert.Equal(_before, _terminal.Settings);

        _terminal.Signal(Continue);
        _terminal.WaitUntil(() => raw.AsSpan().SequenceEqual(_terminal.Settings), "raw mode again");
        _terminal.Type("q");
        EndsWith(0, "stopped: poweroff");
    }

    // The third field of /proc/PID/stat (proc(5)), after the name in parentheses.
    private static bool IsStopped(int process)
    {
        var stat = File.ReadAllText($"/proc/{process}/stat");
        return stat[(stat.LastIndexOf(')') + 2)..].StartsWith('T');
    }

    [Theory]
    [InlineData("run"), InlineData("run virtual")]
    public void A_paste_of_100_KB_arrives_whole(string arguments)
    {
        using var here = new TemporaryDirectory();
        var text = string.Concat(Enumerable.Range(0, 100 * 1024 / 8).Select(n => $"{n:d7}\n"));
        var script = here.Write("script", text);
        using var program = PseudoTerminal.Launch($"<{script} >{here.Path}/out 2>{here.Path}/err", arguments.Split(' '));

        Assert.True(program.WaitForExit(TimeSpan.FromSeconds(60)));
        Assert.Equal("Welcome to ActorVmm\r\nREADY\r\n" + text + "\x04", File.ReadAllText(Path.Combine(here.Path, "out")));
        Assert.Equal("stopped: poweroff\n", File.ReadAllText(Path.Combine(here.Path, "err")));
    }

    [Theory]
    [InlineData("</dev/null", "\x04"), InlineData("<script", "line\n\x04")]
    public void At_the_end_of_a_script_the_guest_gets_the_line_end_that_was_missing_and_Ctrl_D(string input, string expected)
    {
        using var here = new TemporaryDirectory();
        here.Write("script", "line");
        using var program = PseudoTerminal.Launch($"{input.Replace("script", here.Path + "/script", StringComparison.Ordinal)} >{here.Path}/out 2>/dev/null", "run");

        Assert.True(program.WaitForExit(TimeSpan.FromSeconds(60)));
        Assert.Equal(0, program.ExitCode);
        Assert.EndsWith("READY\r\n" + expected, File.ReadAllText(Path.Combine(here.Path, "out")), StringComparison.Ordinal);
    }

    [Fact]
    public void A_reader_that_goes_away_ends_the_run()
    {
        using var here = new TemporaryDirectory();
        var fifo = Path.Combine(here.Path, "keys");
        Process.Start("mkfifo", [fifo])!.WaitForExit();
        // The writer keeps standard input open, so that only the closed output can end the run.
        using var program = Process.Start(new ProcessStartInfo("/bin/sh", ["-c",
            $"exec 3<>{fifo}; echo abd >&3; \"$0\" \"$1\" run <&3 2>{here.Path}/err | true; sleep 0; exit 0", "dotnet", typeof(TerminalTests).Assembly.Location]))!;

        Assert.True(program.WaitForExit(TimeSpan.FromSeconds(60)));
        Assert.Equal("stopped: requested\n", File.ReadAllText(Path.Combine(here.Path, "err")));
    }

    [Fact]
    public void Entering_a_file_is_no_raw_mode() => Assert.Null(TerminalMode.Enter(int.MaxValue));
}
