using System.Buffers;
using System.Text;
using System.Text.Json;

namespace ActorVmm.Devices.Faults;

/// <summary>A firing as one line of JSON: the same firing gives the same bytes.</summary>
public static class FaultTraceLine
{
    /// <summary>The line, without its end.</summary>
    public static string Of(FaultFiring firing)
    {
        ArgumentNullException.ThrowIfNull(firing);
        var buffer = new ArrayBufferWriter<byte>(256);
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteNumber("n", firing.Number);
            json.WriteNumber("t", firing.Nanoseconds);
            json.WriteString("device", firing.Device);
            json.WriteString("rule", firing.Rule);
            json.WriteString("fault", FaultKinds.NameOf(firing.Kind));
            json.WriteNumber("request", firing.Request);
            if (firing.Happening.Direction is { } direction) json.WriteString("direction", direction);
            if (firing.Happening.Queue >= 0) json.WriteNumber("queue", firing.Happening.Queue);
            json.WriteNumber("at", firing.Happening.First);
            if (firing.Happening.Point is { } point) json.WriteString("point", point);
            json.WriteString("outcome", firing.Outcome);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }
}
