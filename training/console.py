"""Words for the person at the terminal, and fewer of other people's."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from edge.errors import EmotiondError


def say(text: str, end: str = "\n", only_terminal: bool = False) -> None:
    """Write to standard error, which leaves standard output to results. only_terminal: not into log files."""
    if only_terminal and not sys.stderr.isatty():
        return
    sys.stderr.write((text if sys.stderr.isatty() else text.lstrip("\r")) + end)
    sys.stderr.flush()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what libraries write to standard error, and show it only if the block fails.

    TensorFlow greets with six lines from C++, before any of its own settings of verbosity are read.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except EmotiondError:
            raise  # says all in one line
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
