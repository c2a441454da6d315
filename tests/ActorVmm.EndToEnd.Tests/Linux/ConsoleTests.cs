using System.Security.Cryptography;
using System.Text;
using ActorVmm.EndToEnd.Tests.Harness;
using Xunit;
using Xunit.Abstractions;

namespace ActorVmm.EndToEnd.Tests.Linux;

/// <summary>The serial console under a load that no person types.</summary>
[Collection(LinuxGuests.Name)]
public sealed class ConsoleTests(GuestFiles files, ITestOutputHelper output)
{
    private const int PasteSize = 100 * 1024;
    private const int LineLength = 64;

    [Fact]
    public async Task A_paste_of_100_KiB_arrives_whole()
    {
        var paste = Paste();
        await using var guest = await RunningGuest.StartAsync(RunningGuest.Spec(files.Image), output);
        await guest.TellAsync(async () =>
        {
            var shell = guest.Shell;
            await shell.LogInAsync();
            shell.Type("stty -echo; cat > /tmp/paste; stty echo; sha256sum /tmp/paste; wc -c < /tmp/paste");
            guest.Console.Send(paste);
            guest.Console.Send("\u0004"); // end of file, at the start of a line
            var sum = Convert.ToHexStringLower(SHA256.HashData(paste));
            await guest.Console.Transcript.ExpectAsync($"{sum}  /tmp/paste\r\n{PasteSize}\r\n", TimeSpan.FromSeconds(120));

            shell.Type("poweroff -f");
            Assert.Equal(0, (await guest.EndAsync(TimeSpan.FromSeconds(90))).ExitCode);
        });
    }

    [Fact]
    public async Task Control_C_reaches_the_program_in_the_guest()
    {
        await using var guest = await RunningGuest.StartAsync(RunningGuest.Spec(files.Image), output);
        await guest.TellAsync(async () =>
        {
            await guest.Shell.LogInAsync();
            // The inner shell has the terminal before it says so; between fork and tcsetpgrp a ^C would reach the outer one.
            guest.Shell.Type("sh -c 'echo rea\"\"dy; exec cat'");
            await guest.Console.Transcript.ExpectAsync("ready\r\n", Shell.CommandDeadline);
            guest.Console.Send("\u0003");
            await guest.Console.Transcript.ExpectAsync("^C", Shell.CommandDeadline);
            Assert.Equal("alive", await guest.Shell.RunAsync("echo alive"));
        });
    }

    // Whole lines, since the guest's terminal hands over a line at a time and holds at most 4095 bytes of one.
    private static byte[] Paste()
    {
        var random = new Random(20_26);
        var text = new StringBuilder(PasteSize);
        while (text.Length < PasteSize)
        {
            for (var i = 0; i < LineLength - 1; i++) text.Append((char)('!' + random.Next(94)));
            text.Append('\n');
        }
        return Encoding.ASCII.GetBytes(text.ToString());
    }
}
