"""What is to be said besides events: the newest text of every retained topic, and messages that pass."""

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping


class Outbox:
    """Filled by the loop, which never waits, and emptied by the sending thread. wake: called when something came."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._retained: dict[str, str] = {}
        self._unsent: dict[str, None] = {}  # retained topics that this connection was not given yet, in order
        self._passing: dict[tuple[str, str], str] = {}  # the newest of each topic and camera
        self._lock = threading.Lock()  # guards the three above
        self.closed = False
        """Whether the last states are in."""
        self.dropped = 0
        """Passing messages that a newer one replaced, or that waited for a connection."""

    def state(self, topic: str, text: str) -> None:
        """Say this on a retained topic, now and on every new connection, until something else is to be said there."""
        with self._lock:
            self._put(topic, text)
        self._wake()

    def first_state(self, topic: str, text: str) -> None:
        """Likewise, unless something was said there."""
        with self._lock:
            if topic not in self._retained:
                self._put(topic, text)
        self._wake()

    def again(self, topics: Iterable[str]) -> None:
        """Say once more what is to be said on these retained topics."""
        with self._lock:
            for topic in topics:
                if topic in self._retained:
                    self._put(topic, self._retained[topic])

    def close(self, last: Mapping[str, str]) -> None:
        """Take the last states, in their order. From now on they leave events the room."""
        with self._lock:
            self.closed = True
            for topic, text in last.items():
                self._put(topic, text)
        self._wake()

    def pass_on(self, topic: str, camera: str, text: str) -> None:
        """Say this once, if there is a connection."""
        with self._lock:
            self.dropped += (topic, camera) in self._passing
            self._passing[topic, camera] = text
        self._wake()

    def begin_anew(self) -> None:
        """A new connection: it is given all states, and no message from before it."""
        with self._lock:
            self._unsent = dict.fromkeys(self._retained)
            self.dropped += len(self._passing)
            self._passing.clear()

    def take(self, room: int, events: int, flows: bool) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """States and passing messages to send, topic and text. room: for states, and for `events` that wait besides.

        States are the first to have room; once it is closed events are, so that none follows the last state. flows:
        whether the network has taken the passing messages before; else newer ones replace those that wait here.
        """
        with self._lock:
            free = room - events if self.closed else room
            states = [(topic, self._retained[topic]) for topic in itertools.islice(self._unsent, free)]
            for topic, _ in states:
                del self._unsent[topic]
            passing = []
            if flows:
                passing = [(topic, text) for (topic, _), text in self._passing.items()]
                self._passing.clear()
        return states, passing

    @property
    def unsent(self) -> list[tuple[str, str]]:
        """States that this connection was not given yet."""
        with self._lock:
            return [(topic, self._retained[topic]) for topic in self._unsent]

    def _put(self, topic: str, text: str) -> None:
        self._retained[topic] = text
        self._unsent.pop(topic, None)  # to the end: `stopped` is the last that is heard of a device
        self._unsent[topic] = None
