using Akka.Actor;

namespace ActorVmm.Actors;

/// <summary>
/// Props from a plain factory. Akka's own <c>Props.Create(() => new A(b))</c> takes its lambda apart and compiles each argument at run
/// time, and a program compiled ahead of time has no such compiler. Here the lambda is what it looks like: it runs at each start of the
/// actor, so it must pass what outlives the actor and make what does not in the constructor.
/// </summary>
internal static class Made
{
    /// <summary>Props of an actor that <paramref name="make"/> makes, again at each restart.</summary>
    public static Props By<TActor>(Func<TActor> make)
        where TActor : ActorBase => Props.CreateBy(new Producer<TActor>(make));

    private sealed class Producer<TActor>(Func<TActor> make) : IIndirectActorProducer
        where TActor : ActorBase
    {
        // Akka looks at its interfaces: which queue it needs, whether it has a stash.
        public Type ActorType => typeof(TActor);

        public ActorBase Produce() => make();

        public void Release(ActorBase actor)
        {
            // The actor owns nothing that its own PostStop does not let go.
        }
    }
}
