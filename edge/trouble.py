"""Whether the disk does what it should; the log is told once per change."""

import logging
import time
from pathlib import Path

log = logging.getLogger(__name__)


class Trouble:
    """True while the disk does not do what it should."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._there = False
        self._unreadable_since: float | None = None  # monotonic
        self.failures = 0
        """How often something failed since the start."""

    def __bool__(self) -> bool:
        return self._there

    def begin(self, problem: str) -> None:
        """Something failed."""
        self.failures += 1
        if not self._there:
            log.error("spool.folder: %s: %s; events wait in memory until it works again", self._folder, problem)
        self._there = True

    def end(self) -> None:
        """Something was written. A disk that only cannot be read is in trouble still."""
        if self._there and self._unreadable_since is None:
            log.info("spool.folder: %s works again", self._folder)
            self._there = False

    def unreadable(self) -> float:
        """It did not give what was asked for; returns for how many seconds that has been so."""
        now = time.monotonic()
        if self._unreadable_since is None:
            self._unreadable_since = now
        return now - self._unreadable_since

    def readable(self) -> bool:
        """It gave what was asked for, or need not any more; returns whether that is news."""
        was, self._unreadable_since = self._unreadable_since, None
        return was is not None
