"""Words for the person at the terminal."""

import sys


def say(text: str, end: str = "\n", only_terminal: bool = False) -> None:
    """Write to standard error, which leaves standard output to results. only_terminal: not into log files."""
    if only_terminal and not sys.stderr.isatty():
        return
    sys.stderr.write((text if sys.stderr.isatty() else text.lstrip("\r")) + end)
    sys.stderr.flush()
