using System.Text;
using ActorVmm.Hypervisor;
using ActorVmm.Testing.Actors;

namespace ActorVmm.Actors.Tests.Host.Vm;

/// <summary>Input through <c>serial0</c>, with a guest that reads as a driver does.</summary>
public sealed class ConsoleTests
{
    private const ushort Data = 0x3F8;
    private const ushort InterruptEnable = 0x3F9;
    private const ushort FifoControl = 0x3FA;
    private const ushort ModemControl = 0x3FC;
    private const ushort LineStatus = 0x3FD;

    /// <summary>Opens the port with an interrupt for every byte, echoes <paramref name="count"/> bytes of input, and halts.</summary>
    private static GuestScript Echo(int count)
    {
        IEnumerator<VcpuExitKind> Guest(ScriptedVcpu cpu)
        {
            yield return cpu.Out(FifoControl, 0x07);
            yield return cpu.Out(ModemControl, 0x0B);
            yield return cpu.Out(InterruptEnable, 0x01);
            foreach (var letter in "login: "u8.ToArray()) yield return cpu.Out(Data, letter);
            for (var seen = 0; seen < count;)
            {
                yield return cpu.In(LineStatus);
                if ((cpu.Answer & 1) == 0) { yield return cpu.WaitForInterrupt(); continue; }
                yield return cpu.In(Data);
                seen++;
                yield return cpu.Out(Data, (byte)cpu.Answer);
            }
        }

        return Guest;
    }

    [Fact]
    public async Task A_hundred_kilobytes_pasted_at_once_all_arrive_in_order()
    {
        var pasted = new StringBuilder();
        for (var i = 0; pasted.Length < 100_000; i++) pasted.Append(i).Append(',');
        await using var fixture = new VmFixture();
        var vm = await fixture.StartAsync(new ScriptedHypervisor(Echo(pasted.Length)));

        fixture.Console.Type(pasted.ToString());
        await vm.Completion.WaitAsync(TimeSpan.FromMinutes(3)); // 300,000 exits

        Assert.Equal("login: " + pasted, fixture.Console.Output);
    }

    [Fact]
    public async Task Input_that_came_before_the_guest_listened_waits_for_it()
    {
        await using var fixture = new VmFixture();
        fixture.Console.Type("early");

        await fixture.RunAsync(new ScriptedHypervisor(Echo(5)));

        Assert.Equal("login: early", fixture.Console.Output);
    }

    [Fact]
    public async Task Under_virtual_time_two_runs_with_the_same_script_are_the_same()
    {
        var first = await RunAsync();
        var second = await RunAsync();

        Assert.Equal("login: rootsh\n", first.Output);
        Assert.Equal(first.Output, second.Output);
        Assert.Equal(first.Retired, second.Retired);
        Assert.Equal(first.Lines, second.Lines);

        static async Task<(string Output, ulong Retired, string Lines)> RunAsync()
        {
            await using var fixture = new VmFixture();
            fixture.Console.WhenSeen("login: ", "root").WhenSeen("root", "sh\n");
            var hypervisor = new ScriptedHypervisor(Echo(7));
            var outcome = await fixture.RunAsync(hypervisor, VmFixture.Spec() with { Clock = ClockMode.Virtual });
            return (fixture.Console.Output, outcome.RetiredInstructions, string.Join(' ', hypervisor.Machine!.Lines));
        }
    }

    [Fact]
    public async Task The_interrupt_line_rises_when_input_waits_and_falls_when_it_is_read()
    {
        await using var fixture = new VmFixture();
        fixture.Console.WhenSeen("login: ", "x");
        var hypervisor = new ScriptedHypervisor(Echo(1));

        await fixture.RunAsync(hypervisor, VmFixture.Spec() with { Clock = ClockMode.Virtual });

        Assert.Equal([(4, true), (4, false)], hypervisor.Machine!.Lines.Where(line => line.Gsi == 4));
    }
}
