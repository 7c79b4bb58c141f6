"""How fast totals grow."""

import time


class Rates:
    """Of totals that begin at 0."""

    def __init__(self, count: int) -> None:
        self._at, self._totals = time.monotonic(), [0.0] * count

    def since_last(self, *totals: float) -> list[float]:
        """By how much each has grown in a second, since the call before; 0 where it began anew."""
        now, before = time.monotonic(), self._totals
        seconds = max(now - self._at, 1e-3)
        self._at, self._totals = now, list(totals)
        return [max(0.0, total - earlier) / seconds for total, earlier in zip(totals, before, strict=True)]
