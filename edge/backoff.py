"""How long to wait before something that failed is tried again."""

import random


class Backoff:
    """Delays that double from `min_s` to `max_s`, each drawn from its upper half.

    The jitter keeps a fleet that lost its broker at one moment from coming back at one moment.
    """

    def __init__(self, min_s: float, max_s: float) -> None:
        self._min_s, self._max_s = min_s, max_s
        self._next_s = min_s

    def next(self) -> float:
        """The delay before the next try, in seconds."""
        delay_s, self._next_s = self._next_s, min(self._next_s * 2, self._max_s)
        return delay_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin at the shortest delay again: it worked."""
        self._next_s = self._min_s
