"""What a device may be told over MQTT: `<base>/<device>/cmd/<name>`, a camera of several: `.../<camera>/<name>`."""

from typing import Literal, get_args

Command = Literal["pause", "resume", "reload"]
COMMANDS: tuple[Command, ...] = get_args(Command)
PAUSES: tuple[Command, ...] = ("pause", "resume")  # what one of several cameras may be told
PAYLOAD_MAX = 64  # bytes; only `off` means something, to `pause`: so a switch can do with one topic


class NotACommandError(ValueError):
    """A message that is not obeyed; its text says why, and is safe to show."""


def parse(name: str, payload: bytes | bytearray, retained: bool) -> Command:
    """The command that a message gives. name: the last level of its topic. Raises NotACommandError."""
    for command in COMMANDS:
        if name == command:
            break
    else:
        raise NotACommandError(f"{name[:40]!a} is none of {', '.join(COMMANDS)}")
    if retained:
        raise NotACommandError(f"{command} was retained: it would be obeyed again at every connection")
    if len(payload) > PAYLOAD_MAX:
        raise NotACommandError(f"{command} came with {len(payload)} bytes, more than {PAYLOAD_MAX}")
    return "resume" if command == "pause" and payload == b"off" else command
