"""Files that the settings name, read whole, without trust: one may be a pipe that nobody writes, or have no end."""

import errno
import os
import select
import time
from pathlib import Path

PATIENCE_S = 5.0  # for a pipe, such as a shell's <(...)
PART = 1_000_000  # bytes


def read_given(path: Path, most: int) -> bytes:
    """What a file holds, up to `most` bytes. Raises OSError, also for a larger one and a pipe that gives nothing."""
    # Without blocking: opening a pipe would wait until somebody writes it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        ready = select.poll()
        ready.register(file, select.POLLIN)
        deadline = time.monotonic() + PATIENCE_S
        content = bytearray()
        while len(content) <= most:
            if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise OSError(errno.ETIMEDOUT, "no file, and nothing comes from it", str(path))
            part = file.read(PART)
            if part == b"":
                return bytes(content)
            content += part or b""
    raise OSError(errno.EFBIG, f"larger than {most / 1e6:g} MB: not what it should be", str(path))
