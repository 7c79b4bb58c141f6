"""How long to wait before something that failed is tried again."""

import random
import time

BRISK_MAX_S = 3.0
STEADY_S = 2.0  # a connection that stood for less is no reason to try again at the shortest interval


class Backoff:
    """Delays that double from `min_s` to `max_s`, each drawn from its upper half.

    In the first `brisk_for_s` after a failure they stay under `BRISK_MAX_S`, or `min_s`: what restarts is soon back.
    The jitter keeps a fleet that lost its broker at one moment from coming back at one moment.
    """

    def __init__(self, min_s: float, max_s: float, brisk_for_s: float = 0.0) -> None:
        self._min_s, self._max_s, self._brisk_for_s = min_s, max_s, brisk_for_s
        self._next_s = min_s
        self._failed_at: float | None = None

    def next(self) -> float:
        """The delay before the next try, in seconds."""
        now = time.monotonic()
        if self._failed_at is None:
            self._failed_at = now
        delay_s, self._next_s = self._next_s, min(self._next_s * 2, self._max_s)
        if now - self._failed_at < self._brisk_for_s:
            delay_s = min(delay_s, max(self._min_s, BRISK_MAX_S))
        return delay_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin at the shortest delay again: it worked."""
        self._next_s, self._failed_at = self._min_s, None
