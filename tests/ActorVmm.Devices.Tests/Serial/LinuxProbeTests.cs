using ActorVmm.Devices.Serial;
using ActorVmm.Testing.Devices;
using Xunit;

namespace ActorVmm.Devices.Tests.Serial;

/// <summary>The steps by which Linux's 8250 driver finds out what it has, in its order.</summary>
public sealed class LinuxProbeTests
{
    const SerialRegister Tx = SerialRegister.Data, Rx = SerialRegister.Data, Ier = SerialRegister.InterruptEnable,
        Iir = SerialRegister.InterruptId, Fcr = SerialRegister.InterruptId, Efr = SerialRegister.InterruptId,
        Lcr = SerialRegister.LineControl, Mcr = SerialRegister.ModemControl, Msr = SerialRegister.ModemStatus,
        Scratch = SerialRegister.Scratch;

    readonly SerialPort _port;
    readonly SerialDriver _d;
    readonly RecordingLine _line = new();

    public LinuxProbeTests()
    {
        _port = new SerialPort(_line, new RecordingSink(), new ManualClock());
        _d = new SerialDriver(_port);
    }

    [Fact]
    public void Linux_finds_a_16550A_without_transmitter_bugs()
    {
        AssertPresent();
        AssertLoopback();
        Assert.Equal(3, FifoKind()); // 16550A
        AssertNotALaterChip();
        AssertScratchWorks();
        Assert.Equal(16, SizeFifo());
        Assert.False(HasThreBug());
        Assert.False(HasTxEnBug());
    }

    void AssertPresent()
    {
        var saved = _d.Read(Ier);
        _d.Write(Ier, 0);
        Assert.Equal(0, _d.Read(Ier) & 0x0F);
        _d.Write(Ier, 0x0F);
        Assert.Equal(0x0F, _d.Read(Ier) & 0x0F);
        _d.Write(Ier, saved);
    }

    void AssertLoopback()
    {
        var saved = _d.Read(Mcr);
        _d.Write(Mcr, 0x10 | 0x0A); // loop, RTS, OUT2
        Assert.Equal(0x90, _d.Read(Msr) & 0xF0); // DCD and CTS answer
        _d.Write(Mcr, saved);
    }

    int FifoKind()
    {
        _d.Write(Lcr, 0xBF);
        _d.Write(Efr, 0);
        _d.Write(Lcr, 0);
        _d.Write(Fcr, 0x01);
        return _d.Read(Iir) >> 6;
    }

    void AssertNotALaterChip()
    {
        _d.Write(Lcr, 0x80); // 16C650: EFR reads zero behind DLAB
        Assert.NotEqual(0, _d.Read(Efr));
        _d.Write(Lcr, 0xBF); // 16650V2 and up
        Assert.NotEqual(0, _d.Read(Efr));

        _d.Write(Lcr, 0); // National Semiconductor SuperIO: register 2 behind LCR=0xE0 is EXCR1 and mirrors the loop bit
        var mcr = _d.Read(Mcr);
        _d.Write(Lcr, 0xE0);
        var excr1 = _d.Read(Efr);
        if (((excr1 ^ mcr) & 0x10) == 0)
        {
            _d.Write(Lcr, 0);
            _d.Write(Mcr, (byte)(mcr ^ 0x10));
            _d.Write(Lcr, 0xE0);
            excr1 = _d.Read(Efr);
            _d.Write(Lcr, 0);
            _d.Write(Mcr, mcr);
            Assert.Equal(0, (excr1 ^ mcr) & 0x10);
        }

        _d.Write(Lcr, 0); // 16750: a FIFO of 64 behind DLAB
        _d.Write(Fcr, 0x01);
        Assert.Equal(6, _d.Read(Iir) >> 5);
        _d.Write(Lcr, 0x80);
        _d.Write(Fcr, 0x21);
        Assert.Equal(6, _d.Read(Iir) >> 5);
        _d.Write(Fcr, 0x01);
        _d.Write(Lcr, 0);

        var ier = _d.Read(Ier); // XScale: a unit-enable bit in IER
        _d.Write(Ier, (byte)(ier | 0x40));
        Assert.Equal(0, _d.Read(Ier) & 0x40);
        _d.Write(Ier, ier);
    }

    void AssertScratchWorks()
    {
        foreach (var value in (byte[])[0xA5, 0x5A])
        {
            _d.Write(Scratch, value);
            Assert.Equal(value, _d.Read(Scratch));
        }
    }

    int SizeFifo()
    {
        var (fcr, mcr) = ((byte)0x01, _d.Read(Mcr));
        _d.Write(Fcr, (byte)(fcr | 0x06));
        _d.Write(Mcr, 0x10);
        _d.SetDivisor(1);
        _d.Write(Lcr, 0x03);
        for (var i = 0; i < 256; i++) _d.Write(Tx, (byte)i);
        var count = 0;
        for (; (_d.LineStatus & LineStatus.DataReady) != 0 && count < 256; count++) _d.Read(Rx);
        _d.Write(Fcr, fcr);
        _d.Write(Mcr, mcr);
        return count;
    }

    // The interrupt must come again when it is disabled and enabled while the transmitter is empty.
    bool HasThreBug()
    {
        _d.Write(Ier, 0x02);
        var first = _d.Read(Iir);
        _d.Write(Ier, 0);
        _d.Write(Ier, 0x02);
        var second = _d.Read(Iir);
        _d.Write(Ier, 0);
        Assert.Equal(0, first & 1);
        return (first & 1) == 0 && (second & 1) != 0;
    }

    bool HasTxEnBug()
    {
        _d.Write(Ier, 0x02);
        var lsr = _d.LineStatus;
        var iir = _d.Read(Iir);
        _d.Write(Ier, 0);
        return (lsr & LineStatus.TransmitterEmpty) != 0 && (iir & 1) != 0;
    }
}
