"""What leaves the file of events: what was acknowledged, and what is past a limit or damaged."""

import logging
import threading

from edge.clock import Clock
from edge.config import SpoolConfig
from edge.eventfile import EventFile

log = logging.getLogger(__name__)


class Gone:
    """Numbers of rows that are done with, and still in the file. For any thread."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._lock = threading.Lock()
        self.highest = 0
        """Of all that ever came."""

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def add(self, number: int) -> None:
        """This one is done with."""
        with self._lock:
            self._numbers.add(number)
            self.highest = max(self.highest, number)

    def numbers(self) -> set[int]:
        """Those of now."""
        with self._lock:
            return set(self._numbers)

    def forget(self, numbers: set[int]) -> None:
        """They are in the file no more."""
        with self._lock:
            self._numbers -= numbers


class Upkeep:
    """Holds the file to the limits, and counts what is lost by it. Raises what the file raises."""

    def __init__(self, config: SpoolConfig, clock: Clock, gone: Gone) -> None:
        self._config, self._clock, self._gone = config, clock, gone
        self.overflowed, self.expired, self.damaged = 0, 0, 0

    def tidy(self, file: EventFile) -> None:
        """All that is to be done now and then."""
        self._remove_gone(file)
        self.bound(file)
        self._drop_old(file)
        self._drop_damaged(file)
        file.tidy()

    def bound(self, file: EventFile) -> None:
        """Drop the oldest rows past the limits."""
        limits = self._config.max_events, self._config.max_mb * 1e6
        while file.excess(*limits):
            self._remove_gone(file)
            self._drop_damaged(file)
            self.overflowed += file.remove(file.excess(*limits))

    def _remove_gone(self, file: EventFile) -> None:
        if gone := self._gone.numbers():
            file.remove(gone)
            self._gone.forget(gone)

    def _drop_old(self, file: EventFile) -> None:
        # How old the rows of this run are is known in any case.
        behind = 0 if self._clock.settled else file.earlier
        while old := file.older(self._clock.now() - self._config.max_age_s, behind):
            self.expired += file.remove(set(old) - self._gone.numbers())
            file.remove(old)

    def _drop_damaged(self, file: EventFile) -> None:
        if file.damaged:
            count = file.remove(set(file.damaged))
            log.error("%s: damaged events dropped: %d", file.path, count)
            self.damaged += count
