"""Events that the broker has not acknowledged yet: on disk where there is a folder, else in memory.

`append` only leaves an event in memory. A thread of its own writes it to the file at once, and has the medium synced
at most once in `sync_s`; what is sent has been written before. So a killed process loses nothing that was written,
which takes some milliseconds, and a power cut at most what came in the last `sync_s`.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.config import SpoolConfig
from edge.errors import ServiceUnavailableError
from edge.eventfile import DamagedError, EventFile, InUseError, Row
from edge.eventfolder import kept_in_place, open_or_begin, put_aside
from edge.rates import Rates
from edge.statefolder import state_folder
from edge.trouble import Trouble
from edge.upkeep import Gone, Upkeep
from edge.waiting import Waiting

log = logging.getLogger(__name__)

READ_PATIENCE_S = 60.0  # newer events wait so long for those that the disk does not give back
TIDY_S = 10.0  # between looks for events that are too old, and at a folder that cannot be used


class Spool:
    """A queue of messages, bounded in number, bytes and age; when it is full the oldest go, and are counted.

    A context manager; `append`, `len` and the figures may be used from any thread, the others from one. Raises
    ServiceUnavailableError if another process has the folder.
    """

    def __init__(self, config: SpoolConfig) -> None:
        self.on_stored: Callable[[], None] = lambda: None
        """Called when there is something new to send."""
        self._config = config
        self._folder = state_folder(config)
        self._clock = Clock()  # it jumps only together with the times of this run's events
        self._fresh = Waiting(config.max_events, config.max_mb * 1e6)  # not in the file
        self._gone = Gone()
        self._upkeep = Upkeep(config, self._clock, self._gone)
        self._seen = 0  # the highest number that `after` gave
        self._lock = threading.Lock()  # guards these; never held while the disk works
        self._file: EventFile | None = None
        self._file_lock = threading.Lock()  # guards the file; taken before the other
        self._trouble = Trouble(self._folder)
        self._dirty = True  # the limits may have changed since the last run
        self._sync_due_at = 0.0
        self._syncs = 0
        self._rates = Rates(2)
        self._closing = threading.Event()
        self.failure: BaseException | None = None  # what ended the writing thread
        self._work = threading.Event()
        self._retry_at = 0.0  # the folder, while there is no file
        if self._folder is not None:
            self._file = self._open(self._folder)
            self._fresh.next = self._file.highest + 1 if self._file else 1
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def __enter__(self) -> "Spool":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._work.set()
        if self._folder is not None:
            self._thread.join(timeout=1.0)  # a medium that hangs must not hold up the end
        if self._fresh:
            log.warning("%d events that the broker did not get are lost with this process; see spool.folder", len(self))

    def __len__(self) -> int:
        in_file = file.count - len(self._gone) if (file := self._file) else 0
        return max(0, in_file) + len(self._fresh)

    def append(self, topic: str, message: str) -> None:
        """Keep a message behind all others. Never waits for the disk."""
        payload = message.encode()
        with self._lock:
            self._fresh.append(self._clock.now(), topic, payload)
        self._work.set()
        if self._file is None or self._trouble:
            self.on_stored()

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was appended can be sent, or for `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self._file is not None and not self._trouble and self._fresh and time.monotonic() < deadline:
            time.sleep(0.002)

    def after(self, number: int, limit: int) -> list[Row]:
        """The oldest `limit` messages whose number is larger than `number`.

        They are on disk where there is one; while it takes nothing, also from memory.
        """
        with self._file_lock:
            if (rows := self._read(number, limit)) is None:
                return []
            if self._file is None or self._trouble:
                last = rows[-1].number if rows else number
                with self._lock:
                    rows += self._fresh.after(last, limit - len(rows))
            self._seen = max(self._seen, rows[-1].number if rows else 0)
        return rows

    def remove(self, number: int) -> None:
        """The message arrived. One that was dropped meanwhile is no error."""
        with self._lock:
            if number in self._fresh:
                self._fresh.forget(number)
            elif self._file is not None:
                self._gone.add(number)
                self._dirty = True

    @property
    def drops(self) -> dict[str, int]:
        """Events that were lost, by cause, since the start."""
        upkeep = self._upkeep
        overflowed = self._fresh.overflowed + upkeep.overflowed
        return {"events_overflowed": overflowed, "events_expired": upkeep.expired, "events_damaged": upkeep.damaged}

    def figures(self) -> dict[str, Any]:
        """How much waits where, and what the medium was given since the last call."""
        file = self._file
        written_bytes_per_s, syncs_per_s = self._rates.since_last(file.written if file else 0, self._syncs)
        return {
            "on_disk": file is not None and not self._trouble,
            "bytes": self._fresh.bytes + (file.bytes if file else 0),
            "written_bytes_per_s": round(written_bytes_per_s),
            "syncs_per_s": round(syncs_per_s, 2),
            "write_failures": self._trouble.failures,
        }

    # Everything below works on the file.

    def _open(self, folder: Path) -> EventFile | None:
        try:
            return open_or_begin(folder, self._seen)
        except InUseError:
            raise ServiceUnavailableError(f"spool.folder: {folder}: another emotiond uses it") from None
        except (OSError, sqlite3.Error, DamagedError) as error:
            self._trouble.begin(f"cannot be used: {error}")
            self._retry_at = time.monotonic() + TIDY_S
            return None

    def _open_late(self, folder: Path) -> None:
        """What was given already keeps its number; behind it come the file's events, and then what is newer."""
        with self._file_lock:
            if (file := self._open(folder)) is None:
                return
            with self._lock:
                self._fresh.move(self._seen, by=file.highest - self._seen)
                self._file, self._dirty = file, True
        self._trouble.end()

    def _read(self, number: int, limit: int) -> list[Row] | None:
        """What `after` has of the file; None if it is not to be had, and nothing newer is to overtake it."""
        if (file := self._file) is None:
            return []
        # What is gone lies behind what is asked for, but on a new connection.
        gone = len(self._gone) if number < self._gone.highest else 0
        rows: list[Row] | None = self._guarded(lambda: file.after(number, limit + gone))
        if rows is not None:
            if self._trouble.readable():
                self._trouble.end()
                self._work.set()
            return [row for row in rows if row.number not in self._gone][:limit]
        if self._file is None or not file.count:
            return []
        if self._trouble.unreadable() < READ_PATIENCE_S:
            return None
        self._let_go(TIDY_S)
        return []

    def _run(self) -> None:
        try:
            self._write_and_settle()
        except BaseException as failure:  # noqa: BLE001 - not lost with this thread: the link raises it
            self.failure = failure

    def _write_and_settle(self) -> None:
        while self._folder is not None:
            if self._file is None:
                self._closing.wait(max(0.0, self._retry_at - time.monotonic()))
                self._open_late(self._folder)
                if self._file is None and not self._closing.is_set():
                    continue
            idle = not self._dirty and not self._trouble
            self._work.wait(TIDY_S if idle else max(0.0, self._sync_due_at - time.monotonic()))
            self._work.clear()
            closing = self._closing.is_set()
            due = closing or time.monotonic() >= self._sync_due_at
            if due or not self._trouble:
                with self._file_lock:
                    self._guarded(self._store)
                self.on_stored()
            if due:
                self._sync_due_at = time.monotonic() + self._config.sync_s
                self._settle()
            if closing:
                with self._file_lock:
                    if self._file is not None:
                        self._guarded(self._file.close)
                return

    def _store(self) -> None:
        """Write what is fresh."""
        self._keep_in_place()
        self._heed_clock()
        with self._lock:
            rows = self._fresh.after(0)
        if self._file is None or not rows:
            return
        self._file.add(rows)
        self._dirty = True
        with self._lock:
            for row in rows:
                if row.number in self._fresh:
                    self._fresh.forget(row.number)
                else:  # acknowledged, or pushed out, while it was written
                    self._gone.add(row.number)
        self._trouble.end()
        self._upkeep.bound(self._file)

    def _keep_in_place(self) -> None:
        if (file := self._file) is None:
            return
        behind = max(self._seen, file.highest)
        successor = kept_in_place(file, behind)
        if successor is not file:
            self._upkeep.damaged += len(file.damaged)
            with self._lock:
                self._fresh.move(behind, by=successor.highest - behind)
                self._file, self._dirty = successor, True
            self._trouble.end()

    def _heed_clock(self) -> None:
        """When a board without a clock of its own has learned the time, this run's events are as old as before."""
        off = self._clock.off()
        if self._file is not None and off:
            self._file.redate(off)
            with self._lock:
                self._fresh.redate(off)
                self._clock.put_right(off)
            self._dirty = True

    def _settle(self) -> None:
        """At most once in `sync_s`: remove what was acknowledged, hold to the limits, have the medium synced."""
        with self._file_lock:
            self._guarded(self._tidy)
            dirty, self._dirty = self._dirty, False
        # Without the lock: sending goes on while a slow card works.
        if dirty and (file := self._file) is not None:
            self._guarded(file.sync)
            self._syncs += 1

    def _tidy(self) -> None:
        self._keep_in_place()
        if (file := self._file) is None:
            return
        before = file.count
        self._upkeep.tidy(file)
        if file.count < before:
            self._dirty = True
            self._trouble.end()

    def _guarded(self, act: Callable[[], Any]) -> Any:
        """Do something with the file; where that fails the events stay in memory, and it is tried again."""
        try:
            return act()
        except DamagedError as error:
            self._begin_anew(str(error))
        except (OSError, sqlite3.Error, InUseError) as error:
            self._trouble.begin(str(error))
        return None

    def _begin_anew(self, problem: str) -> None:
        assert self._file is not None and self._folder is not None
        self._upkeep.damaged += max(0, self._file.count - len(self._gone))
        log.error("%s is damaged (%s); its events are lost", self._file.path, problem)
        self._let_go()
        with suppress(OSError):  # it is tried again by the thread, which opens a new one
            put_aside(self._folder)

    def _let_go(self, for_s: float = 0.0) -> None:
        """Go on in memory; the thread opens what is in the folder then, whose events come behind what was given."""
        assert self._file is not None
        self._file.close()
        self._file, self._retry_at = None, time.monotonic() + for_s
        self._trouble.readable()
        self._gone.forget(self._gone.numbers())
        self._work.set()
