"""Where events go besides the broker."""

import contextlib
import logging
import queue
import threading
from typing import TextIO

from edge.messages import Origin, encode, event_message
from edge.records import Event

log = logging.getLogger(__name__)

QUEUE_SIZE = 10_000  # events that a reader who stopped reading may fall behind


class JsonLines:
    """Writes events to a text stream, one JSON object a line.

    A thread writes, because a terminal or pipe that nobody reads blocks. When `QUEUE_SIZE` events wait, new ones
    are dropped and counted; when the reader is gone, all are.
    """

    def __init__(self, stream: TextIO, origin: Origin) -> None:
        self._stream, self._origin = stream, origin
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._write, name="json-lines", daemon=True)
        self.dropped = 0

    def __enter__(self) -> "JsonLines":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout=1)
        if self.dropped:
            log.warning("%d events were not printed: the reader was too slow or gone", self.dropped)

    def publish(self, event: Event) -> None:
        """Leave an event for the writing thread."""
        try:
            self._lines.put_nowait(encode(event_message(event, self._origin)))
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            self._stream.flush()
        except OSError:  # the reader closed the pipe: counted as dropped once the queue is full
            self.dropped += 1
