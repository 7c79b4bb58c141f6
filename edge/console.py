"""What the commands share: a number from the command line, and where they log to."""

import argparse
import logging
import sys


def positive(text: str) -> int:
    """For argparse: a whole number from 1."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return number


def set_up_logging(level: str) -> None:
    """To standard error, from `level` on."""
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format="emotiond: %(message)s")
