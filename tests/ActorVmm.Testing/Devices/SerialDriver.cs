using ActorVmm.Devices;
using ActorVmm.Devices.Serial;

namespace ActorVmm.Testing.Devices;

/// <summary>What a guest's driver says to a UART: byte accesses through the bus interface.</summary>
public sealed class SerialDriver(IBusDevice port)
{
    public byte Read(SerialRegister register) => (byte)port.Read((ulong)register, 1);

    public void Write(SerialRegister register, byte value) => port.Write((ulong)register, 1, value);

    public InterruptCause Identify() => (InterruptCause)(Read(SerialRegister.InterruptId) & 0x0F);

    public LineStatus LineStatus => (LineStatus)Read(SerialRegister.LineStatus);

    public void SetDivisor(ushort divisor)
    {
        var lcr = Read(SerialRegister.LineControl);
        Write(SerialRegister.LineControl, (byte)(lcr | 0x80));
        Write(SerialRegister.Data, (byte)divisor);
        Write(SerialRegister.InterruptEnable, (byte)(divisor >> 8));
        Write(SerialRegister.LineControl, lcr);
    }

    /// <summary>What a driver does on open: FIFO on and cleared, 8N1 at 115200, DTR, RTS and OUT2 up, receive interrupt on.</summary>
    public void Open(byte trigger = 0x80)
    {
        Write(SerialRegister.LineControl, 0x03);
        SetDivisor(1);
        Write(SerialRegister.InterruptId, (byte)(0x07 | trigger));
        Write(SerialRegister.ModemControl, 0x0B);
        Write(SerialRegister.InterruptEnable, (byte)(InterruptEnable.ReceivedData | InterruptEnable.LineStatus));
    }

    /// <summary>Reads everything that is ready.</summary>
    public List<byte> Drain()
    {
        var bytes = new List<byte>();
        while ((LineStatus & LineStatus.DataReady) != 0) bytes.Add(Read(SerialRegister.Data));
        return bytes;
    }
}
