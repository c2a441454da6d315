using ActorVmm.Devices.Serial;

namespace ActorVmm.Devices.I8042;

/// <summary>The controller's configuration byte (command 0x20 reads, 0x60 writes it).</summary>
[Flags]
public enum ControllerConfig : byte
{
    None = 0,
    KeyboardInterrupt = 1 << 0,
    MouseInterrupt = 1 << 1,
    SystemFlag = 1 << 2,
    KeyboardDisabled = 1 << 4,
    MouseDisabled = 1 << 5,

    /// <summary>Scan codes of set 2 reach the processor as set 1.</summary>
    Translate = 1 << 6,
}

/// <summary>The status register, port 0x64.</summary>
[Flags]
public enum ControllerStatus : byte
{
    None = 0,
    OutputFull = 1 << 0,
    InputFull = 1 << 1,
    SystemFlag = 1 << 2,

    /// <summary>The last write was a command.</summary>
    Command = 1 << 3,

    /// <summary>The keyboard is not locked.</summary>
    Unlocked = 1 << 4,
    MouseData = 1 << 5,
    Timeout = 1 << 6,
}

/// <summary>Everything visible of the controller and its keyboard.</summary>
public record struct KeyboardControllerState
{
    public ControllerConfig Config;

    /// <summary>A20 and the other output port bits; bit 0 (reset) always reads 1.</summary>
    public byte OutputPort;

    /// <summary>The output buffer and the status bits that go with it.</summary>
    public byte Output;
    public ControllerStatus Status;

    /// <summary>A controller command that waits for its data byte; 0 for none.</summary>
    public byte PendingCommand;

    /// <summary>A keyboard command that waits for its data byte; 0 for none.</summary>
    public byte KeyboardPending;
    public byte LastKeyboardByte;
    public byte ScanCodeSet;
    public bool Scanning;

    /// <summary>Answers of the controller; they go before those of the keyboard.</summary>
    public ByteFifo ControllerQueue;

    /// <summary>Answers and scan codes of the keyboard.</summary>
    public ByteFifo KeyboardQueue;

    /// <summary>As PC firmware hands it over: keyboard on with its interrupt, translation on, no mouse.</summary>
    public static KeyboardControllerState PowerOn => new()
    {
        Config = ControllerConfig.KeyboardInterrupt | ControllerConfig.SystemFlag
            | ControllerConfig.MouseDisabled | ControllerConfig.Translate,
        OutputPort = 0b0000_0011,
        ScanCodeSet = 2,
        Scanning = true,
    };
}
