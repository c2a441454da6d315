namespace ActorVmm.Devices.Chipset;

/// <summary>
/// The MC146818 real-time clock with 128 bytes of battery-backed memory, at ports 0x70 (index) and 0x71 (data). The time follows
/// <see cref="IClock"/>; setting it moves an offset. Not thread-safe: one caller at a time.
/// </summary>
public sealed class CmosRtc : IBusDevice, IDeviceState<CmosRtcState>, ITimedDevice
{
    /// <summary>Index port; the data port follows.</summary>
    public const ushort BasePort = 0x70;

    /// <summary>Bytes in the chip.</summary>
    public const int Size = 128;

    /// <summary>ISA interrupt.</summary>
    public const int Irq = 8;

    // MC146818 datasheet, Figure 11 and the register descriptions; the century byte is where the FADT's CENTURY field should point.
    const int Seconds = 0, SecondsAlarm = 1, Minutes = 2, MinutesAlarm = 3, Hours = 4, HoursAlarm = 5;
    const int DayOfWeek = 6, DayOfMonth = 7, Month = 8, Year = 9, RegisterA = 0x0A, RegisterB = 0x0B, RegisterC = 0x0C, RegisterD = 0x0D;

    /// <summary>The byte that holds the century (FADT field CENTURY).</summary>
    public const int Century = 0x32;

    const byte UpdateInProgress = 0x80;             // register A
    const byte Set = 0x80, Binary = 0x04, Hour24 = 0x02; // register B
    const byte InterruptRequest = 0x80, Periodic = 0x40, Alarm = 0x20, UpdateEnded = 0x10, Causes = 0x70; // registers B and C
    const byte ValidRam = 0x80;                     // register D
    const byte AfternoonBit = 0x80;
    const ulong Second = 1_000_000_000;
    const ulong TimeBaseHz = 32_768;
    const ulong UpdateWarningNanoseconds = 244_000; // UIP rises this long before an update
    const int NeverMatches = -2, DontCare = -1;

    readonly IInterruptLine _irq;
    readonly IClock _clock;
    readonly ulong _bootNanoseconds;
    CmosBytes _bytes;
    byte _index;
    long _offset;
    ulong _settledAt;

    /// <summary>A clock that shows <see cref="IClock.BootUnixNanoseconds"/> plus machine time, as UTC.</summary>
    public CmosRtc(IInterruptLine irq8, IClock clock)
    {
        _irq = irq8;
        _clock = clock;
        _bootNanoseconds = clock.BootUnixNanoseconds;
        Reset();
    }

    /// <inheritdoc/>
    public CmosRtcState State
    {
        get => new(_index, _bytes, _offset, _settledAt);
        set
        {
            (_index, _bytes, _offset, _settledAt) = (value.Index, value.Bytes, value.OffsetSeconds, value.SettledAt);
            UpdateInterrupt();
        }
    }

    /// <summary>The guest forbids NMIs (bit 7 of the last index written); for whoever raises them.</summary>
    public bool NmiMasked => (_index & 0x80) != 0;

    /// <summary>The guest's idea of the time, in seconds since 1970 UTC.</summary>
    public long UnixSeconds => SecondsAt(_clock.Nanoseconds);

    /// <inheritdoc/>
    public ulong? Deadline
    {
        get
        {
            var wanted = (byte)(_bytes[RegisterB] & ~_bytes[RegisterC] & Causes);
            if (wanted == 0) return null;
            var next = ulong.MaxValue;
            if ((wanted & Periodic) != 0 && PeriodShift is >= 0 and var shift)
                next = TscScale.Nanoseconds((Ticks(_settledAt) >> shift) + 1 << shift, 0, TimeBaseHz);
            if ((_bytes[RegisterB] & Set) == 0)
            {
                if ((wanted & UpdateEnded) != 0) next = Math.Min(next, SecondStarts(SecondsAt(_settledAt) + 1));
                if ((wanted & Alarm) != 0 && NextAlarm(SecondsAt(_settledAt)) is { } alarm) next = Math.Min(next, SecondStarts(alarm));
            }

            return next == ulong.MaxValue ? null : next;
        }
    }

    /// <summary>Power-on with a good battery: 24 hours, BCD, no interrupts, memory zero.</summary>
    public void Reset()
    {
        _bytes = default;
        _bytes[RegisterA] = 0x26; // 32768 Hz time base, 1024 Hz periodic rate
        _bytes[RegisterB] = Hour24;
        _index = 0;
        _offset = 0;
        _settledAt = _clock.Nanoseconds;
        UpdateInterrupt();
    }

    /// <summary>Reads a byte of the battery-backed memory without side effects, for firmware code and tests.</summary>
    public byte PeekMemory(int index) => (uint)index < Size ? _bytes[index] : (byte)0;

    /// <summary>Offset 0 is the index port (reads as ones), 1 the data port; wide accesses are runs of bytes.</summary>
    public ulong Read(ulong offset, int size)
    {
        ulong value = 0;
        for (var i = 0; i < size && i < 8; i++)
            value |= (ulong)(unchecked(offset + (ulong)i) == 1 ? ReadData() : (byte)0xFF) << (8 * i);
        return value;
    }

    /// <inheritdoc cref="Read"/>
    public void Write(ulong offset, int size, ulong value)
    {
        for (var i = 0; i < size && i < 8; i++)
        {
            var at = unchecked(offset + (ulong)i);
            if (at == 0) _index = (byte)(value >> (8 * i));
            else if (at == 1) WriteData((byte)(value >> (8 * i)));
        }
    }

    /// <inheritdoc/>
    public void Advance(ulong nanoseconds)
    {
        if (nanoseconds <= _settledAt) return;
        var flags = (byte)0;
        if (PeriodShift is >= 0 and var shift && Ticks(nanoseconds) >> shift != Ticks(_settledAt) >> shift) flags |= Periodic;
        if ((_bytes[RegisterB] & Set) == 0)
        {
            var before = SecondsAt(_settledAt);
            var now = SecondsAt(nanoseconds);
            if (now != before) flags |= UpdateEnded;
            if (now != before && (_bytes[RegisterC] & Alarm) == 0 && NextAlarm(before) is { } alarm && alarm <= now) flags |= Alarm;
        }

        _settledAt = nanoseconds;
        if (flags == 0) return;
        _bytes[RegisterC] |= flags;
        UpdateInterrupt();
    }

    public override string ToString() =>
        $"unix={UnixSeconds} index={_index:x2} A={_bytes[RegisterA]:x2} B={_bytes[RegisterB]:x2} C={_bytes[RegisterC]:x2} " +
        $"offset={_offset}s";

    // Register A bits 3:0: 32768 Hz / 2^(rate-1); rates 1 and 2 are 8 and 9 with this time base (MC146818 datasheet, Table 5).
    int PeriodShift
    {
        get
        {
            var rate = _bytes[RegisterA] & 0x0F;
            return rate switch { 0 => -1, < 3 => rate + 6, _ => rate - 1 };
        }
    }

    long SecondsAt(ulong nanoseconds) =>
        (long)((_bootNanoseconds % Second + nanoseconds % Second) / Second + _bootNanoseconds / Second + nanoseconds / Second) + _offset;

    /// <summary>Machine time at which the guest's clock turns to a second.</summary>
    ulong SecondStarts(long unixSeconds)
    {
        var start = (Int128)(unixSeconds - _offset) * Second - _bootNanoseconds;
        return start <= 0 ? 0 : start >= ulong.MaxValue ? ulong.MaxValue - 1 : (ulong)start;
    }

    static ulong Ticks(ulong nanoseconds) => TscScale.Ticks(nanoseconds, TimeBaseHz);

    byte ReadData()
    {
        var now = _clock.Nanoseconds;
        Advance(now);
        var index = _index & 0x7F;
        switch (index)
        {
            case Seconds or Minutes or Hours or DayOfWeek or DayOfMonth or Month or Year or Century:
                if ((_bytes[RegisterB] & Set) == 0) LoadTime(SecondsAt(now));
                return _bytes[index];
            case RegisterA: return (byte)((_bytes[RegisterA] & 0x7F) | (UpdateIsNear(now) ? UpdateInProgress : 0));
            case RegisterC:
                var flags = _bytes[RegisterC];
                var answer = (byte)(flags | ((flags & _bytes[RegisterB] & Causes) != 0 ? InterruptRequest : 0));
                _bytes[RegisterC] = 0;
                UpdateInterrupt();
                return answer;
            case RegisterD: return ValidRam;
            default: return _bytes[index];
        }
    }

    void WriteData(byte value)
    {
        var now = _clock.Nanoseconds;
        Advance(now);
        var index = _index & 0x7F;
        switch (index)
        {
            case Seconds or Minutes or Hours or DayOfWeek or DayOfMonth or Month or Year or Century:
                var setting = (_bytes[RegisterB] & Set) != 0;
                if (!setting) LoadTime(SecondsAt(now));
                _bytes[index] = value;
                if (!setting) StoreTime(now);
                break;
            case RegisterA: _bytes[RegisterA] = (byte)(value & 0x7F); break;
            case RegisterB: WriteControl(value, now); break;
            case RegisterC or RegisterD: break;
            default: _bytes[index] = value; break;
        }

        UpdateInterrupt();
    }

    void WriteControl(byte value, ulong now)
    {
        var before = _bytes[RegisterB];
        // While SET holds the clock still, the bytes keep what the guest writes; it runs on from there.
        if ((value & Set) != 0 && (before & Set) == 0) LoadTime(SecondsAt(now));
        if ((value & Set) != 0) value &= unchecked((byte)~UpdateEnded); // SET clears UIE (MC146818 datasheet, register B)
        _bytes[RegisterB] = value;
        if ((value & Set) == 0 && (before & Set) != 0) StoreTime(now);
    }

    bool UpdateIsNear(ulong now) =>
        (_bytes[RegisterB] & Set) == 0 && (_bootNanoseconds % Second + now % Second) % Second >= Second - UpdateWarningNanoseconds;

    void LoadTime(long unixSeconds)
    {
        var time = FromUnix(unixSeconds);
        _bytes[Seconds] = Encode(time.Second);
        _bytes[Minutes] = Encode(time.Minute);
        _bytes[Hours] = EncodeHour(time.Hour);
        _bytes[DayOfWeek] = Encode((int)time.DayOfWeek + 1);
        _bytes[DayOfMonth] = Encode(time.Day);
        _bytes[Month] = Encode(time.Month);
        _bytes[Year] = Encode(time.Year % 100);
        _bytes[Century] = Encode(time.Year / 100);
    }

    // Whatever the guest wrote becomes the nearest date that exists.
    void StoreTime(ulong now)
    {
        var year = Math.Clamp(Decode(_bytes[Century]) * 100 + Decode(_bytes[Year]) % 100, 1, 9999);
        var month = Math.Clamp(Decode(_bytes[Month]), 1, 12);
        var day = Math.Clamp(Decode(_bytes[DayOfMonth]), 1, DateTime.DaysInMonth(year, month));
        var time = new DateTime(year, month, day, Math.Clamp(DecodeHour(_bytes[Hours]), 0, 23), Math.Clamp(Decode(_bytes[Minutes]), 0, 59),
            Math.Clamp(Decode(_bytes[Seconds]), 0, 59), DateTimeKind.Utc);
        _offset += (time - DateTime.UnixEpoch).Ticks / TimeSpan.TicksPerSecond - SecondsAt(now);
    }

    static DateTime FromUnix(long seconds)
    {
        const long Earliest = -62_135_596_800; // year 1
        const long Latest = 253_402_300_799;   // end of 9999
        return DateTime.UnixEpoch.AddTicks(Math.Clamp(seconds, Earliest, Latest) * TimeSpan.TicksPerSecond);
    }

    byte Encode(int value) => (byte)((_bytes[RegisterB] & Binary) != 0 ? value : (value / 10 << 4) | (value % 10));

    int Decode(byte value) => (_bytes[RegisterB] & Binary) != 0 ? value : (value >> 4) * 10 + (value & 15);

    byte EncodeHour(int hour)
    {
        if ((_bytes[RegisterB] & Hour24) != 0) return Encode(hour);
        return (byte)(Encode(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? AfternoonBit : 0));
    }

    int DecodeHour(byte value)
    {
        if ((_bytes[RegisterB] & Hour24) != 0) return Decode(value);
        var hour = Decode((byte)(value & 0x7F)) % 12;
        return (value & AfternoonBit) != 0 ? hour + 12 : hour;
    }

    int AlarmField(int index, int limit)
    {
        var value = _bytes[index];
        if (value >= 0xC0) return DontCare; // MC146818 datasheet, "Alarm"
        var decoded = index == HoursAlarm ? DecodeHour(value) : Decode(value);
        return decoded < limit ? decoded : NeverMatches;
    }

    /// <summary>The first second after <paramref name="since"/> that the alarm bytes match; null if none does within a day.</summary>
    long? NextAlarm(long since)
    {
        var hour = AlarmField(HoursAlarm, 24);
        var minute = AlarmField(MinutesAlarm, 60);
        var second = AlarmField(SecondsAlarm, 60);
        if (hour == NeverMatches || minute == NeverMatches || second == NeverMatches) return null;
        var at = since + 1;
        // Skips hours, then minutes, then seconds: at most 24 + 60 + 60 steps.
        while (at <= since + 86_400)
        {
            var ofDay = (int)(((at % 86_400) + 86_400) % 86_400);
            if (hour != DontCare && ofDay / 3600 != hour) at += 3600 - ofDay % 3600;
            else if (minute != DontCare && ofDay / 60 % 60 != minute) at += 60 - ofDay % 60;
            else if (second != DontCare && ofDay % 60 != second) at += 1;
            else return at;
        }

        return null;
    }

    // The line is a function of the registers.
    void UpdateInterrupt() => _irq.Drive((_bytes[RegisterC] & _bytes[RegisterB] & Causes) != 0);
}
