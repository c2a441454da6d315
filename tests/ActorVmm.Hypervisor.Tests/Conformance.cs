using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>The base of the suite: makes tiny guests for the subject, and turns what the host cannot do into skips with the reason.</summary>
public abstract class Conformance<TSubject> : IDisposable where TSubject : IConformanceSubject, new()
{
    private readonly List<TinyGuest> _guests = [];

    protected TSubject Subject { get; } = new();

    /// <summary>A new guest, disposed with the test.</summary>
    protected TinyGuest Guest(int vcpus = 1, ulong memorySize = GuestLayout.MemorySize)
    {
        if (Subject.WhyNotAtAll is { } reason) Skip.Because(reason);
        var guest = new TinyGuest(Subject.Hypervisor, vcpus, memorySize);
        _guests.Add(guest);
        return guest;
    }

    /// <summary>Skips unless the probe found each of these to work.</summary>
    protected void Needs(params string[] features)
    {
        if (Subject.WhyNotAtAll is { } nothing) Skip.Because(nothing);
        foreach (var feature in features)
            if (Subject.WhyNot(feature) is { } reason) Skip.Because(reason);
    }

    /// <summary>Runs a guest whose program is <paramref name="code"/>; it must end with Done.</summary>
    protected GuestRun Run(Action<Assembler> code) => RunToDone(Guest().Code(code).Start64());

    protected GuestRun RunToDone(TinyGuest guest) => RunTo(GuestEnd.Done, guest);

    /// <summary>Runs a guest that must end in this way.</summary>
    protected GuestRun RunTo(GuestEnd end, TinyGuest guest, Func<GuestAccess, bool>? stopAt = null)
    {
        var run = guest.Run(stopAt);
        if (run.End != end && run.End == GuestEnd.Failed && Subject.Excuse(run) is { } reason) Skip.Because(reason);
        Assert.True(run.End == end, $"expected {end}: {run}");
        return run;
    }

    public void Dispose()
    {
        foreach (var guest in _guests) guest.Dispose();
        GC.SuppressFinalize(this);
    }
}

/// <summary>Ends a test as skipped.</summary>
public static class Skip
{
    // The message prefix by which xunit's runners of the second generation tell a skip from a failure.
    private const string Token = "$XunitDynamicSkip$";

    [System.Diagnostics.CodeAnalysis.DoesNotReturn]
    public static void Because(string reason) => throw new SkippedException(Token + reason);
}

/// <summary>What <see cref="Skip"/> throws.</summary>
public sealed class SkippedException : Exception
{
    public SkippedException(string message) : base(message) { }
    public SkippedException() { }
    public SkippedException(string message, Exception inner) : base(message, inner) { }
}
