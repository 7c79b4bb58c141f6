"""Errors that a person can do something about: one line for them, and the exit code of sysexits.h that fits."""

import contextlib
import shlex
import sys
from collections.abc import Iterator


def pip(act: str, what: str) -> str:
    """The command for it in the environment that runs: a bare `pip` is another's, or Debian's, which refuses."""
    return f"{shlex.quote(sys.executable)} -m pip {act} {shlex.quote(what)}"


class EmotiondError(Exception):
    """An error whose text names what and where, and the way out. Shown without a traceback."""

    exit_code = 70


class UsageError(EmotiondError):
    """What was asked for on the command line cannot be done as it stands."""

    exit_code = 2


class BadDataError(EmotiondError):
    """Input was found and is not what it should be."""

    exit_code = 65


class InputNotFoundError(EmotiondError):
    """A file or folder that was named is not there."""

    exit_code = 66


class ServiceUnavailableError(EmotiondError):
    """A camera or a broker does not answer."""

    exit_code = 69


class ConfigError(EmotiondError):
    """The configuration, or the model that it names, cannot be used. systemd does not restart on it."""

    exit_code = 78


@contextlib.contextmanager
def naming(place: str, instead_of: str) -> Iterator[None]:
    """Lets errors that are raised within, and begin with `instead_of`, begin with where it was given."""
    try:
        yield
    except EmotiondError as error:
        if not (said := str(error)).startswith(instead_of):
            raise
        raise type(error)(place + said.removeprefix(instead_of)) from None


class CameraError(Exception):
    """A camera that cannot be used now; it is tried again. advice: what a person can look at."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.advice = advice


class EndOfStream(Exception):  # noqa: N818 - an end like StopIteration's, not an error
    """A source that has an end came to it."""
