using Akka.Configuration;
using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Tests.Settings;

public sealed class ShippedFileTests
{
    /// <summary>For each of our keys in the shipped file: another value, and what must have changed when it is set.</summary>
    private static readonly Dictionary<string, (string Value, Func<ActorSettings, object> Read)> Bound = new(StringComparer.Ordinal)
    {
        ["actorvmm.supervision.max-retries"] = ("7", s => s.Supervision.MaxRetries),
        ["actorvmm.supervision.within"] = ("33s", s => s.Supervision.Within),
        ["actorvmm.supervision.over-limit"] = ("unplug", s => s.Supervision.OverLimit),
        ["actorvmm.reply-deadline"] = ("123ms", s => s.ReplyDeadline),
        ["actorvmm.control-deadline"] = ("124ms", s => s.ControlDeadline),
        ["actorvmm.inspect-deadline"] = ("125ms", s => s.InspectDeadline),
    };

    private static string ShippedPath =>
        Path.Combine(FindUp(AppContext.BaseDirectory, "akka.hocon"), "akka.hocon");

    [Fact]
    public void Every_key_of_ours_binds()
    {
        var shipped = ConfigurationFactory.ParseString(File.ReadAllText(ShippedPath));
        var usual = ActorSettings.From(Config.Empty);
        var ours = Check.Keys(shipped, "actorvmm").Where(key => !IsBoundElsewhere(key)).ToArray();
        Assert.Equal(Bound.Keys.Order(StringComparer.Ordinal), ours.Order(StringComparer.Ordinal));

        foreach (var (key, (value, read)) in Bound)
        {
            var changed = ActorSettings.From(ConfigurationFactory.ParseString($"{key} = {value}"));
            Assert.NotEqual(read(usual), read(changed));
        }
    }

    [Fact]
    public async Task Akka_takes_the_dispatchers_and_the_mailbox_from_the_shipped_file()
    {
        await using var host = VmHost.Create(ConfigurationFactory.ParseString("akka.loglevel = OFF"));
        Assert.IsType<ActorVmm.Actors.Dispatch.CallerRunsDispatcher>(host.System.Dispatchers.Lookup(ActorSettings.CallerRunsDispatcher));
        Assert.IsType<ActorVmm.Actors.Dispatch.VcpuDispatcher>(host.System.Dispatchers.Lookup(ActorSettings.VcpuDispatcher));
        Assert.Equal(8, host.System.Dispatchers.Lookup(ActorSettings.CallerRunsDispatcher).Throughput);
        Assert.Equal(typeof(ActorVmm.Actors.Dispatch.ExitMailbox), host.System.Mailboxes.Lookup(ActorSettings.ExitMailbox).GetType());
    }

    [Fact]
    public void Every_key_has_a_comment_above_it()
    {
        var lines = File.ReadAllLines(ShippedPath);
        for (var i = 1; i < lines.Length; i++)
        {
            var isValue = lines[i].Contains(" = ", StringComparison.Ordinal) && !lines[i].TrimStart().StartsWith('#');
            if (!isValue) continue;
            var above = lines[i - 1].TrimStart();
            var named = above.StartsWith('#') || above.EndsWith('{'); // a section's comment serves its "type"
            Assert.True(named, $"akka.hocon line {i + 1} has no comment: {lines[i]}");
        }
    }

    [Theory]
    [InlineData("actorvmm.supervision.max-retrys = 3", "actorvmm.supervision.max-retrys")]
    [InlineData("actorvmm.replydeadline = 3s", "actorvmm.replydeadline")]
    [InlineData("actorvmm.supervision.max-retries = -1", "actorvmm.supervision.max-retries = -1: a number from 0 to 1000 is expected")]
    [InlineData("actorvmm.supervision.max-retries = many", "a number from 0 to 1000")]
    [InlineData("actorvmm.supervision.within = soon", "actorvmm.supervision.within = soon: a time")]
    [InlineData("actorvmm.reply-deadline = 0s", "more than zero")]
    [InlineData("actorvmm.supervision.over-limit = explode", "one of pause, unplug, fail is expected")]
    public void A_bad_key_is_named_before_any_vm_exists(string hocon, string expected)
    {
        var refused = Assert.Throws<ConfigurationException>(() => VmHost.Create(ConfigurationFactory.ParseString(hocon)));
        Assert.Contains(expected, refused.Message, StringComparison.Ordinal);
    }

    // Dispatchers and mailbox are read by Akka, logging by the program; the host's tests bind that.
    private static bool IsBoundElsewhere(string key) =>
        key.StartsWith("actorvmm.logging.", StringComparison.Ordinal) || key.StartsWith("actorvmm.dispatchers.", StringComparison.Ordinal) || key.StartsWith("actorvmm.exit-mailbox.", StringComparison.Ordinal);

    internal static string FindUp(string from, string name)
    {
        var folder = new DirectoryInfo(from);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, name))) folder = folder.Parent;
        return folder?.FullName ?? throw new FileNotFoundException(name);
    }
}
