"""The time by which events are dated: a board learns it late if its own clock is wrong, or if it has none."""

import time

CLOCK_S = 60.0  # a clock that was set by less is not heeded
# By then NTP has put a wrong clock right where there is a network: timesyncd in half a minute, ntpd in five.
SETTLED_S = 600.0


class Clock:
    """UTC in seconds, which goes on evenly: it jumps only in `put_right`. Not thread-safe."""

    def __init__(self) -> None:
        self._began_at, self._began_monotonic = time.time(), time.monotonic()
        self._set_at = self._began_monotonic

    def now(self) -> float:
        """Seconds since 1970."""
        return self._began_at + time.monotonic() - self._began_monotonic

    @property
    def settled(self) -> bool:
        """Whether it has gone on for so long without being set that other runs' dates can be held against it."""
        return time.monotonic() - self._set_at > SETTLED_S

    def off(self) -> float:
        """Seconds by which the system's clock was set since; 0 where that is not worth heeding."""
        seconds = time.time() - self.now()
        return seconds if abs(seconds) > CLOCK_S else 0.0

    def put_right(self, seconds: float) -> None:
        """From now on it is so much later."""
        self._began_at += seconds
        self._set_at = time.monotonic()
