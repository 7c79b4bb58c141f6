"""Words for the person at the terminal, and fewer of other people's."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.errors import ConfigError, EmotiondError, pip

# TensorFlow calls it an error that there is no graphics card. What ends a command comes as an exception too.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def say(text: str, end: str = "\n", only_terminal: bool = False) -> None:
    """Write to standard error, which leaves standard output to results. only_terminal: not into log files."""
    if only_terminal and not sys.stderr.isatty():
        return
    sys.stderr.write((text if sys.stderr.isatty() else text.lstrip("\r")) + end)
    sys.stderr.flush()


class OutputError(EmotiondError):
    """A file that was asked for cannot be written."""

    exit_code = 74  # sysexits.h: EX_IOERR


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Raise OutputError, naming the file, for what goes wrong while it is written: a full disk's error does not."""
    try:
        yield path
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def run_command(name: str, act: Callable[[], int], debug: bool) -> int:
    """The command's exit code; an error is one line on standard error, unless `debug` wants the traceback."""
    try:
        return act()
    except EmotiondError as error:
        if debug:
            raise
        say(f"{name}: {error}")
        return error.exit_code
    except ModuleNotFoundError as error:  # a backend of Keras, which no extra brings
        if debug:
            raise
        package = str(error.name).partition(".")[0]
        say(f"{name}: {package} is not installed: {pip('install', package)}")
        return ConfigError.exit_code
    except OSError as error:  # a full disk, a folder that may not be written to
        if debug:
            raise
        say(f"{name}: {error.filename or 'output'}: {error.strerror}")
        return OutputError.exit_code
    except KeyboardInterrupt:
        say(f"\n{name}: stopped")
        return 130


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
