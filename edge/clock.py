"""The time by which events are dated: a board without a clock of its own learns it late."""

import time

CLOCK_S = 60.0  # a clock that was set by less is not heeded


class Clock:
    """UTC in seconds, which goes on evenly: it jumps only in `put_right`. Not thread-safe."""

    def __init__(self) -> None:
        self._began_at, self._began_monotonic = time.time(), time.monotonic()

    def now(self) -> float:
        return self._began_at + time.monotonic() - self._began_monotonic

    def off(self) -> float:
        """Seconds by which the system's clock was set since; 0 where that is not worth heeding."""
        seconds = time.time() - self.now()
        return seconds if abs(seconds) > CLOCK_S else 0.0

    def put_right(self, seconds: float) -> None:
        """From now on it is so much later."""
        self._began_at += seconds
