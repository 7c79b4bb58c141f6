"""Where events go besides the broker."""

import contextlib
import logging
import os
import queue
import threading

from edge.messages import Origin, encode, event_message
from edge.records import Event

log = logging.getLogger(__name__)

QUEUE_SIZE = 10_000  # lines that a reader who stopped reading may fall behind


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own, because a pipe that nobody reads blocks.

    When `QUEUE_SIZE` lines wait, new ones are dropped and counted. `closed` is set when the reader has gone.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self.dropped = 0
        self.closed = threading.Event()

    def __enter__(self) -> "LineWriter":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout=0.5)
        if self.dropped and not self.closed.is_set():
            log.warning("%d lines were not printed: the reader was too slow", self.dropped)

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
                    log.warning("cannot write lines: %s", error.strerror)
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
