using ActorVmm.Hypervisor.Tests.Subjects;
using ActorVmm.Testing.Guests;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ActorVmm.Hypervisor.Tests;

/// <summary>The base of the suite: makes tiny guests for the subject, and turns what the host cannot do into skips with the
/// reason.</summary>
public abstract class Conformance<TSubject> : IDisposable where TSubject : IConformanceSubject, new()
{
    private readonly List<TinyGuest> _guests = [];

    protected TSubject Subject { get; } = new();

    /// <summary>A new guest, disposed with the test.</summary>
    protected TinyGuest Guest(int vcpus = 1, ulong memorySize = GuestLayout.MemorySize)
    {
        if (Subject.WhyNotAtAll is { } reason) Skip.If(true, reason);
        var guest = new TinyGuest(Subject.Hypervisor, vcpus, memorySize);
        _guests.Add(guest);
        return guest;
    }

    /// <summary>Skips unless the probe found each of these to work.</summary>
    protected void Needs(params string[] features)
    {
        if (Subject.WhyNotAtAll is { } nothing) Skip.If(true, nothing);
        foreach (var feature in features)
            if (Subject.WhyNot(feature) is { } reason) Skip.If(true, reason);
    }

    /// <summary>Runs a guest whose program is <paramref name="code"/>; it must end with Done.</summary>
    protected GuestRun Run(Action<Assembler> code) => RunToDone(Guest().Code(code).Start64());

    protected GuestRun RunToDone(TinyGuest guest) => RunTo(GuestEnd.Done, guest);

    /// <summary>Runs a guest that must end in this way.</summary>
    protected GuestRun RunTo(GuestEnd end, TinyGuest guest, Func<GuestAccess, bool>? stopAt = null)
    {
        var run = guest.Run(stopAt);
        if (run.End != end && run.End == GuestEnd.Failed && Subject.Excuse(run) is { } reason) Skip.If(true, reason);
        Assert.True(run.End == end, $"expected {end}: {run}");
        return run;
    }

    /// <summary>What the guest's CPUID says.</summary>
    protected (uint Eax, uint Ebx, uint Ecx, uint Edx) Cpuid(uint leaf, uint subleaf = 0)
    {
        var run = Run(c =>
        {
            c.mov(eax, leaf);
            c.mov(ecx, subleaf);
            c.cpuid();
            c.ReportEax();
            c.mov(eax, ebx);
            c.ReportEax();
            c.mov(eax, ecx);
            c.ReportEax();
            c.mov(eax, edx);
            c.ReportEax();
            c.Done();
        });
        return ((uint)run.Reports[0], (uint)run.Reports[1], (uint)run.Reports[2], (uint)run.Reports[3]);
    }

    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing)
    {
        foreach (var guest in _guests) guest.Dispose();
    }
}
