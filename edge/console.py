"""What the commands share: numbers from the command line, signals, and where they log and print to."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

interrupts: list[int] = []
"""The signals that asked the command to end."""
CAPTURE = "capture"
"""The name of the threads that read cameras; one that is stuck in a driver outlasts its camera."""
DIGITS_MAX = 18  # Python reads no numbers of thousands of digits


def positive(text: str) -> int:
    """For argparse: a whole number from 1."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return number


def between(least: float, most: float) -> Callable[[str], float]:
    """For argparse: a number in these bounds, and so no `inf` and no `nan`."""

    def number(text: str) -> float:
        if not least <= (value := float(text)) <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}")
        return value

    return number


def add_command(commands: Any, name: str, what: str, more: str, **options: Any) -> argparse.ArgumentParser:
    """One of argparse's subparsers. what: as the list of all has it; more: what its own help says besides."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}. {more}", **options
    )
    return parser


def set_up_logging(level: str, debug: bool = False) -> None:
    """To standard error, from `level` on. debug: everything, whatever the level."""
    logging.basicConfig(level="DEBUG" if debug else level.upper(), stream=sys.stderr, format="emotiond: %(message)s")


def unicode_of(name: object) -> str:
    """A file's name, in which bytes that are no Unicode are written out."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def shown(text: object) -> str:
    """A file's name, or a line with some, as it may stand in a terminal: nothing in it steers one."""
    return "".join(c if c.isprintable() else "�" for c in unicode_of(text))


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Handles a signal as Python does SIGINT, and remembers it: packages make ImportErrors of a KeyboardInterrupt."""
    interrupts.append(number)
    raise KeyboardInterrupt


def send_nowhere(descriptor: int) -> None:
    """What is written to it from now on is lost without a complaint: nobody reads it, or it cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
