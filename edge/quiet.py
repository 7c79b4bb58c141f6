"""Libraries that talk on standard error, and have no switch for it."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# The descriptor is the whole process's: a thread that came meanwhile would keep, and leave behind, the other's silence.
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Keep what is written to file descriptor 2 from the terminal; errors come as exceptions. One thread at a time."""
    with _one_at_a_time:
        try:
            kept = os.dup(2)
        except OSError:  # closed: nothing to keep quiet
            yield
            return
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                os.close(kept)
