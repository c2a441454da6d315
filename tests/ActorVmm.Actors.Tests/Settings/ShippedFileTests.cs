using Akka.Configuration;
using ActorVmm.Actors.Settings;

namespace ActorVmm.Actors.Tests.Settings;

public sealed class ShippedFileTests
{
    /// <summary>For each of our keys in the shipped file: another value, and what must have changed when it is set.</summary>
    private static readonly Dictionary<string, (string Value, Func<ActorSettings, object> Read)> Bound = new(StringComparer.Ordinal)
    {
        ["actorvmm.supervision.max-retries"] = ("7", s => s.Supervision.Standard.MaxRetries),
        ["actorvmm.supervision.within"] = ("33s", s => s.Supervision.Standard.Within),
        ["actorvmm.supervision.over-limit"] = ("unplug", s => s.Supervision.Standard.OverLimit),
        ["actorvmm.supervision.hang-deadline"] = ("34s", s => s.Supervision.HangDeadline),
        ["actorvmm.supervision.backend-deadline"] = ("35s", s => s.Supervision.BackendDeadline),
        ["actorvmm.supervision.max-lost-threads"] = ("9", s => s.Supervision.MaxLostThreads),
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
    public void A_device_has_limits_of_its_own_and_takes_the_rest_from_all()
    {
        var settings = ActorSettings.From(ConfigurationFactory.ParseString(
            "actorvmm.supervision { max-retries = 3\n devices { blk0 { over-limit = fail }\n serial0 { max-retries = 0\n within = 1s } } }"));

        Assert.Equal(new DeviceLimits(3, TimeSpan.FromSeconds(10), OverLimitPolicy.Fail), settings.Supervision.Of("blk0"));
        Assert.Equal(new DeviceLimits(0, TimeSpan.FromSeconds(1), OverLimitPolicy.Pause), settings.Supervision.Of("serial0"));
        Assert.Equal(new DeviceLimits(3, TimeSpan.FromSeconds(10), OverLimitPolicy.Pause), settings.Supervision.Of("net0"));
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
    [InlineData("actorvmm.supervision.devices.blk0.overlimit = fail", "actorvmm.supervision.devices.blk0.overlimit")]
    [InlineData("actorvmm.supervision.devices.blk0.over-limit = ignore", "actorvmm.supervision.devices.blk0.over-limit = ignore: one of")]
    [InlineData("actorvmm.supervision.devices.blk0 = fail", "actorvmm.supervision.devices.blk0")]
    [InlineData("actorvmm.supervision.hang-deadline = never", "actorvmm.supervision.hang-deadline = never: a time")]
    [InlineData("actorvmm.supervision.max-lost-threads = 65", "a number from 0 to 64")]
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
