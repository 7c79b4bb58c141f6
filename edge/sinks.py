"""Where events go besides the broker."""

import logging
import os
import queue
import threading
from collections.abc import Callable

from edge.messages import Origin, encode, event_message
from edge.records import Event

log = logging.getLogger(__name__)

QUEUE_SIZE = 10_000  # lines that a reader who stopped reading may fall behind
HURRIED_S = 0.5  # for what still waits when somebody wants an end


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own, because a pipe that nobody reads blocks.

    When `QUEUE_SIZE` lines wait, new ones are dropped and counted. `closed` is set when the reader has gone. Leaving
    waits for the reader, unless it is left with an exception or `hurries` says that somebody wants an end. Raises
    OSError then if lines could not be written.
    """

    def __init__(self, descriptor: int, hurries: Callable[[], bool] = lambda: False) -> None:
        self._descriptor, self._hurries = descriptor, hurries
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self.dropped = 0
        self.closed = threading.Event()
        self._failure: OSError | None = None

    def __enter__(self) -> "LineWriter":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        told = False
        while self._thread.is_alive() and not (exc[0] or self._hurries()):
            told = told or self._tell_end()
            self._thread.join(timeout=0.1)
        told = told or self._tell_end()
        self._thread.join(timeout=HURRIED_S)
        left = self.dropped + self._lines.qsize() - told if self._thread.is_alive() else self.dropped
        if left and not self.closed.is_set():
            log.warning("%d lines were not printed: the reader was too slow", left)
        if self._failure is not None and not exc[0]:
            raise OSError(self._failure.errno, self._failure.strerror, "standard output")

    def _tell_end(self) -> bool:
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return False
        return True

    def write(self, line: str) -> None:
        """Leave a line, without its end, for the writing thread."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write_all(line.encode("utf-8", errors="replace") + b"\n")
            except OSError as error:
                if not isinstance(error, BrokenPipeError):
                    log.warning("standard output: cannot write lines: %s; going on without them", error.strerror)
                    self._failure = error
                self.closed.set()
                return

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


class JsonLines:
    """A sink of events, one JSON object a line."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def publish(self, event: Event, origin: Origin) -> None:
        """Leave an event for the writer."""
        self._writer.write(encode(event_message(event, origin)))
