"""Events that the broker has not acknowledged yet."""

import itertools
import threading
from collections import OrderedDict


class MemorySpool:
    """Keeps messages in order until they are removed; when full, the oldest go and are counted. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._messages: OrderedDict[int, str] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.dropped = 0

    def append(self, message: str) -> None:
        """Keep a message behind all others."""
        with self._lock:
            self._messages[next(self._numbers)] = message
            if len(self._messages) > self._capacity:
                self._messages.popitem(last=False)
                self.dropped += 1

    def after(self, number: int, limit: int) -> list[tuple[int, str]]:
        """The oldest `limit` messages whose number is larger than `number`, with their numbers."""
        with self._lock:
            newer = (item for item in self._messages.items() if item[0] > number)
            return list(itertools.islice(newer, limit))

    def remove(self, number: int) -> None:
        """The message arrived. One that was dropped meanwhile is no error."""
        with self._lock:
            self._messages.pop(number, None)

    def __len__(self) -> int:
        return len(self._messages)
