"""What commands for people write: tables, files, and how far they have come. A failed write names its file."""

import csv
import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

import cv2
import numpy as np
import numpy.typing as npt

from edge.console import send_nowhere
from edge.errors import BadDataError

DRAWN_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})  # formats with colours
SHOW_EVERY_S = 0.2  # on a terminal
TELL_EVERY_S = 10.0  # in a log


class Table:
    """A CSV file that is entered to be written; its header is there before the first row.

    Raises OSError, with the file's name in it, when it cannot be written.
    """

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self._path, self._header = path, header
        self._file: IO[str] | None = None

    def __enter__(self) -> "Table":
        # Names of files may hold what is not Unicode.
        self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file)
        self.add([self._header])
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            with naming_file(self._path):
                self._file.close()

    def add(self, rows: Iterable[Sequence[object]]) -> None:
        """Append rows of as many cells as the header has."""
        with naming_file(self._path):
            self._writer.writerows(rows)


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file, or leave what was there as it was. Raises OSError with the file's name in it."""
    target = Path(os.path.realpath(path))  # what a link leads to is written, not the link
    with naming_file(path):
        existed = target.exists()
        if existed and not target.is_file():  # a pipe or a device: nothing can take its place
            target.write_bytes(content)
            return
        if existed:
            target.open("ab").close()  # a file that may not be written is not to be replaced either
        _replace(target, content)


def _replace(target: Path, content: bytes) -> None:
    """Put a new file in the place of `target`, with its rights if it is there."""
    temporary = target.with_name(f".emotiond-{secrets.token_hex(8)}")
    try:
        file = temporary.open("xb")
    except PermissionError:
        target.write_bytes(content)  # its folder takes no new file, but what is there may be written
        return
    try:
        with file:
            file.write(content)
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write a (h, w, 3) BGR picture in the format that the name's suffix says, one of `DRAWN_SUFFIXES`.

    Raises BadDataError for one that is too large for the format, and as `write_file`.
    """
    try:
        made, encoded = cv2.imencode(path.suffix, picture)
    except cv2.error:
        made = False
    if not made:
        height, width = picture.shape[:2]
        raise BadDataError(f"{path}: {width}x{height} px cannot be written as {path.suffix}; take .png")
    write_file(path, encoded.tobytes())


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Errors of writing carry no file's name, or that of a temporary one; a person must read the one that was given."""
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, error.strerror or os.strerror(number), str(path)) from None


class Progress:
    """How far a long run has come, on standard error: one line that changes, or a line now and then in a log.

    `total` is None where nobody knows. `show` may be called as often as you like. `goes_on`: whether there is more to
    do than to tell, so that BrokenPipeError is not raised when nobody listens any more.
    """

    def __init__(self, unit: str, total: int | None = None, goes_on: bool = False) -> None:
        self._unit, self._total, self._goes_on = unit, total, goes_on
        self._began_at = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._every_s = SHOW_EVERY_S if self._is_terminal else TELL_EVERY_S
        self._due_at = self._began_at + self._every_s
        self._shown = False

    def show(self, done: int) -> None:
        """`done` of the total are finished."""
        now = time.monotonic()
        if now < self._due_at or done == self._total:
            return
        self._due_at = now + self._every_s
        line = self.text(done, now - self._began_at)
        self._shown = self._is_terminal
        if self._is_terminal:
            self._print(f"\r\x1b[K{line[: _columns(sys.stderr)]}", sys.stderr, end="")
        else:
            self._print(line, sys.stderr)

    def text(self, done: int, elapsed_s: float) -> str:
        """The line for people."""
        rate = done / max(elapsed_s, 1e-3)
        speed = f"{rate:.0f} {self._unit}/s"
        if not self._total or done > self._total:
            return f"{done} {self._unit}, {speed}"
        left_s = round((self._total - done) / rate) if rate else 0
        return (
            f"{done / self._total:4.0%} of {self._total} {self._unit}, {speed}, {left_s // 60}:{left_s % 60:02d} left"
        )

    def say(self, line: str) -> None:
        """A line of results on standard output, which the changing line must not run into."""
        self.clear()
        self._print(line, sys.stdout)

    def complain(self, line: str) -> None:
        """A line on standard error, likewise."""
        self.clear()
        self._print(f"emotiond: {line}", sys.stderr)

    def clear(self) -> None:
        """Take the changing line away."""
        if self._shown:
            self._print("\r\x1b[K", sys.stderr, end="")
            self._shown = False

    def _print(self, text: str, stream: TextIO, end: str = "\n") -> None:
        try:
            print(text, end=end, file=stream, flush=stream is sys.stderr)
        except BrokenPipeError:
            if not self._goes_on:
                raise
            send_nowhere(stream.fileno())


def _columns(terminal: TextIO) -> int | None:
    """How many characters stay on one line; None where nobody knows."""
    try:
        columns = os.get_terminal_size(terminal.fileno()).columns
    except OSError:
        return None
    return columns - 1 if columns else None
