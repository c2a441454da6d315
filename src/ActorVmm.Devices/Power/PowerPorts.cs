namespace ActorVmm.Devices.Power;

/// <summary>Where the power devices are; the FADT and the DSDT announce these numbers.</summary>
public static class PowerPorts
{
    /// <summary>PM1a event block: status (2 bytes), enable (2 bytes). Also the base of <see cref="AcpiPower"/>.</summary>
    public const ushort Pm1aEvent = 0x600;

    /// <summary>Bytes of the PM1a event block (FADT PM1_EVT_LEN).</summary>
    public const int Pm1EventLength = 4;

    /// <summary>PM1a control block.</summary>
    public const ushort Pm1aControl = 0x604;

    /// <summary>Bytes of the PM1a control block (FADT PM1_CNT_LEN).</summary>
    public const int Pm1ControlLength = 2;

    /// <summary>The power management timer, 24 bits wide (FADT flag TMR_VAL_EXT clear).</summary>
    public const ushort PmTimer = 0x608;

    /// <summary>Bytes of the timer (FADT PM_TMR_LEN).</summary>
    public const int PmTimerLength = 4;

    /// <summary>Ports from <see cref="Pm1aEvent"/> that <see cref="AcpiPower"/> decodes.</summary>
    public const int AcpiLength = 12;

    /// <summary>
    /// System control interrupt (FADT SCI_INT): level-triggered, active high here; the MADT must override it accordingly.
    /// </summary>
    public const int SciGsi = 9;

    /// <summary>SLP_TYP of S5, for the DSDT's <c>_S5</c> package.</summary>
    public const byte SleepTypeS5 = 5;

    /// <summary>FADT reset register: the keyboard controller's command port.</summary>
    public const ushort ResetRegister = 0x64;

    /// <summary>FADT reset value: pulse the reset line.</summary>
    public const byte ResetValue = 0xFE;

    /// <summary>The reset control register of PC chipsets (<see cref="ResetControl"/>).</summary>
    public const ushort ResetControl = 0xCF9;
}
