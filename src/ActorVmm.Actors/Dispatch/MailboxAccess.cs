using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Runtime.CompilerServices;
using Akka.Dispatch;

namespace ActorVmm.Actors.Dispatch;

/// <summary>
/// What <see cref="Mailbox.Run"/> is made of: the members by which Akka claims a mailbox for one thread and gives it back. They are internal,
/// so an Akka that no longer has them is served the long way, through <see cref="Mailbox.Run"/>.
/// </summary>
internal static class MailboxAccess
{
    private const BindingFlags Internal = BindingFlags.Instance | BindingFlags.NonPublic;

    /// <summary>True where this Akka has all of the members, with the types meant here.</summary>
    public static bool IsComplete { get; } =
        Has(typeof(Mailbox), nameof(SetAsScheduled)) && Has(typeof(Mailbox), nameof(SetAsIdle))
        && Has(typeof(Mailbox), nameof(ShouldProcessMessage))
        && Has(typeof(Mailbox), "get_" + nameof(HasMessages)) && Has(typeof(Mailbox), "get_" + nameof(HasSystemMessages))
        && Has(typeof(MessageDispatcher), nameof(RegisterForExecution), typeof(Mailbox), typeof(bool), typeof(bool));

    /// <summary>Claims the mailbox for this thread: a compare-and-swap. False where another has it, or it is closed.</summary>
    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = nameof(SetAsScheduled))]
    public static extern bool SetAsScheduled(Mailbox mailbox);

    /// <summary>Gives it back. What was queued meanwhile was scheduled by nobody: <see cref="RegisterForExecution"/>.</summary>
    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = nameof(SetAsIdle))]
    public static extern bool SetAsIdle(Mailbox mailbox);

    /// <summary>False where it is suspended (its actor failed and awaits the verdict) or closed.</summary>
    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = nameof(ShouldProcessMessage))]
    public static extern bool ShouldProcessMessage(Mailbox mailbox);

    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "get_" + nameof(HasMessages))]
    public static extern bool HasMessages(Mailbox mailbox);

    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "get_" + nameof(HasSystemMessages))]
    public static extern bool HasSystemMessages(Mailbox mailbox);

    /// <summary>Claims the mailbox and hands it to the dispatcher's executor, if there is something in it.</summary>
    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = nameof(RegisterForExecution))]
    public static extern bool RegisterForExecution(MessageDispatcher dispatcher, Mailbox mailbox, bool hasMessages, bool hasSystemMessages);

    private static bool Has(
        [DynamicallyAccessedMembers(DynamicallyAccessedMemberTypes.NonPublicMethods)] Type type, string method, params Type[] parameters) =>
        type.GetMethod(method, Internal, parameters)?.ReturnType == typeof(bool);
}
