"""How hard the device works: one that is too hot or too slow sweeps more rarely first, and takes fewer frames last."""

import time
from collections.abc import Callable
from dataclasses import dataclass

CHECK_EVERY_S = 2.0
COOLER_BY_C = 5.0  # below the limit, before the pace is raised again: or it would swing around it
SLOW_SHARE = 0.1  # of the frames replaced by newer ones before they were looked at
CALM_CHECKS = 5  # in a row without heat or delay before the pace is raised again

# How much more rarely sweeps come, and of how many frames one is taken. The rate of sweeps falls first.
STEPS = ((1, 1), (2, 1), (4, 1), (4, 2), (4, 4))
SLOW_MAX = 2  # a slow device's frames are thinned already, by the newest replacing the others


@dataclass(slots=True)
class Pace:
    """Goes a step down per check while it is too hot or too slow, and a step up after some calm checks.

    hot_c: degrees Celsius from which the device is too hot; None never is. temperature: reads them, None if unknown.
    """

    hot_c: float | None
    temperature: Callable[[], float | None]
    because: str | None = None
    """`hot` or `slow` while it is slowed down."""
    _step: int = 0
    _calm: int = 0
    _due_at: float | None = None
    """When to look next; None while there are no counts yet to compare with."""
    _done: int = 0
    _superseded: int = 0

    @property
    def slowdown(self) -> int:
        """Sweeps come so many times more rarely."""
        return STEPS[self._step][0]

    @property
    def every(self) -> int:
        """Of so many frames one is taken."""
        return STEPS[self._step][1]

    @property
    def figures(self) -> dict[str, int | str | None]:
        """As `stats` tells it."""
        return {"sweeps_rarer": self.slowdown, "one_frame_of": self.every, "because": self.because}

    def check(self, done: int, superseded: int) -> bool:
        """Look whether the pace must change, which takes some seconds; true if it did.

        done, superseded: frames processed, and frames replaced by newer ones, since the start.
        """
        now, first = time.monotonic(), self._due_at is None
        if self._due_at is not None and now < self._due_at:
            return False
        self._due_at = now + CHECK_EVERY_S
        new, lost = done - self._done, superseded - self._superseded
        self._done, self._superseded = done, superseded
        # What was superseded before, while the camera was opened or paused, says nothing about how fast the device is.
        return not first and self.judge(self.temperature(), lost / max(1, new + lost))

    def interrupt(self) -> None:
        """No frames are looked at now: those that are superseded meanwhile do not count."""
        self._due_at = None

    def judge(self, temperature_c: float | None, superseded_share: float) -> bool:
        """One check: of the temperature, and of the share of frames that were superseded. True if the pace changed."""
        before = self._step
        margin_c = float("inf")
        if self.hot_c is not None and temperature_c is not None:
            margin_c = self.hot_c - temperature_c
        slow = superseded_share >= SLOW_SHARE
        if margin_c <= 0:
            self._step, self.because, self._calm = min(before + 1, len(STEPS) - 1), "hot", 0
        elif slow and before < SLOW_MAX:
            self._step, self.because, self._calm = before + 1, "slow", 0
        elif slow or margin_c < COOLER_BY_C:
            self._calm = 0
        else:
            self._calm += 1
        if self._calm >= CALM_CHECKS and self._step:
            self._step, self._calm = self._step - 1, 0
        if not self._step:
            self.because = None
        return self._step != before
