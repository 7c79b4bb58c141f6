"""The events that wait, as a database file: sqlite in WAL mode, so that a power cut never leaves half a row.

Two costs are kept apart. A commit hands rows to the kernel, which takes microseconds and outlives the process.
`sync` makes the medium have them, which wears an SD card and may take long; it outlives a power cut.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from edge.settings import topic_level
from edge.statefolder import keep_private, leads_to, make_file, make_folder, sync_folder

NAME = "events.db"
# A row has about 600 bytes; every commit writes whole pages.
PAGE_BYTES = 1024
# Past this size of the log its pages go to the database, each once however often it was written meanwhile.
LOG_BYTES_MAX = 1_000_000
BATCH = 1000  # rows read at once when many go
NUMBER_MAX = 2**53  # no run comes that far; sqlite itself ends at 2**63
BEGINNING = """
PRAGMA locking_mode = EXCLUSIVE;  -- before the first access: no shared memory, and no second process
PRAGMA page_size = {page};
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;  -- no sync at each commit, but before the log is emptied; never half a row
PRAGMA wal_autocheckpoint = 0;
PRAGMA cache_size = -256;  -- KiB
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, at REAL NOT NULL, topic TEXT NOT NULL,
                                   payload BLOB NOT NULL);
"""
ROWS = "SELECT number, at, topic, payload FROM events"
ADD = "INSERT INTO events VALUES (?, ?, ?, ?)"
TOTALS = """
SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(min(number), 1), coalesce(max(number), 0) FROM events
"""


class Row(NamedTuple):
    """A message that waits. `number` grows from row to row; `at` is when it was kept, in seconds of some clock."""

    number: int
    at: float
    topic: str
    payload: bytes


class DamagedError(Exception):
    """The file is no database, or a damaged one."""


class InUseError(Exception):
    """Another process has the file open."""


class EventFile:
    """Rows on disk. Not thread-safe. Raises DamagedError, InUseError, or OSError and sqlite3.Error for all else.

    Every method that changes rows is one transaction. Rows that are there get numbers behind `behind`, in their order.
    """

    def __init__(self, folder: Path, behind: int = 0) -> None:
        make_folder(folder)
        self.path = folder / NAME
        make_file(self.path)
        self.written = 0
        """Bytes given to the medium since the start, without what the file system adds."""
        self.damaged: set[int] = set()
        """Numbers of rows that no daemon wrote so. No method gives them; they stay until they are removed."""
        self._connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        self._connection.text_factory = _text
        self._log: int | None = None
        self._log_bytes = 0
        try:
            self._connection.executescript(BEGINNING.format(page=PAGE_BYTES))
            if self._connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise DamagedError(str(self.path))
            self.count, self.bytes, lowest, self.highest = self._connection.execute(TOTALS).fetchone()
            if lowest < 1 or self.highest > NUMBER_MAX:
                raise DamagedError("impossible numbers of events")
            self._database = self.path.stat()
            self._open_log()
            if behind:
                self._move(behind)
            self.earlier = self.highest if self.count else 0
            """The highest number of the rows that other runs left; what this one adds is behind it."""
        except BaseException as error:
            self.close()
            raise _explained(error) from error

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows behind all others."""
        with self._transaction():
            self._connection.executemany(ADD, rows)
        self.count += len(rows)
        self.bytes += sum(len(row.payload) for row in rows)
        self.highest = max(self.highest, rows[-1].number)

    def after(self, number: int, limit: int) -> list[Row]:
        """The oldest `limit` rows whose number is larger than `number`."""
        query = f"{ROWS} WHERE number > ? ORDER BY number"
        try:
            with closing(self._connection.execute(query, (number,))) as found:
                return list(islice(self._whole(found), limit))
        except sqlite3.Error as error:
            raise _explained(error) from error

    def remove(self, numbers: Iterable[int]) -> int:
        """Remove rows; returns how many of them were there."""
        sizes: dict[int, int] = {}
        with self._transaction():
            for number in numbers:
                found = self._connection.execute("SELECT length(payload) FROM events WHERE number = ?", (number,))
                for (size,) in found.fetchall():
                    sizes[number] = size
            self._connection.executemany("DELETE FROM events WHERE number = ?", [(number,) for number in sizes])
        self.damaged -= sizes.keys()
        self.count -= len(sizes)
        self.bytes -= sum(sizes.values())
        return len(sizes)

    def excess(self, count_max: int, bytes_max: float) -> list[int]:
        """The oldest rows past these limits, or the first of them where they are many."""
        if self.count <= count_max and self.bytes <= bytes_max:
            return []
        too_large = int((1 - bytes_max / max(1, self.bytes)) * self.count)
        return [row.number for row in self.after(0, min(max(1, self.count - count_max, too_large), BATCH))]

    def older(self, at: float, behind: int) -> list[int]:
        """The rows behind a number that were kept before `at`, or some of them; none if the first was not."""
        oldest = self.after(behind, BATCH)
        return [row.number for row in oldest if row.at < at] if oldest and oldest[0].at < at else []

    def redate(self, seconds: float) -> None:
        """The rows that came since this file was opened were kept so much later than was thought."""
        with self._transaction():
            self._connection.execute("UPDATE events SET at = at + ? WHERE number > ?", (seconds, self.earlier))

    def sync(self) -> None:
        """Return when the medium has what was committed. Reading may go on in another thread."""
        if self._log is not None:  # else it was closed meanwhile
            os.fdatasync(self._log)

    def tidy(self) -> None:
        """Take what is in the log into the database, when it is worth it."""
        if self._log_bytes > LOG_BYTES_MAX:
            try:
                self._empty_log()
            except sqlite3.Error as error:
                raise _explained(error) from error

    def has_its_name(self) -> bool:
        """Whether the database is still what its path leads to; without a name it ends with this process."""
        return leads_to(self.path, self._database)

    def log_has_its_name(self) -> bool:
        """Likewise of the log, in which the newest rows stand."""
        assert self._log is not None
        return leads_to(self.path.with_name(f"{NAME}-wal"), os.fstat(self._log))

    def renew_log(self) -> None:
        """Take what is in the log into the database, and begin another log."""
        try:
            self._connection.executescript("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = WAL;")
            self._connection.execute(TOTALS).fetchone()  # the change of modes ends with the first access
            self._open_log()
        except sqlite3.Error as error:
            raise _explained(error) from error

    def take(self, other: "EventFile") -> None:
        """Keep the rows of another file, which stays as it is, with their numbers. None of them may be taken here."""
        with self._transaction(), closing(other._connection.execute(ROWS)) as found:
            self._connection.executemany(ADD, other._whole(found))
        if not self.count:
            self.earlier = other.earlier
        self.count, self.bytes, *_ = self._connection.execute(TOTALS).fetchone()
        self.highest = max(self.highest, other.highest)

    def close(self) -> None:
        """Write all to the medium and let go of the file."""
        if self._log is not None:
            os.close(self._log)
            self._log = None
        self._connection.close()

    def _whole(self, found: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
        """What can be published; the database's own checks do not look into the columns."""
        for number, at, topic, payload in found:
            if isinstance(at, float) and isinstance(payload, bytes) and _publishable(topic):
                yield Row(number, at, topic, payload)
            else:
                self.damaged.add(number)

    def _move(self, behind: int) -> None:
        with self._transaction():
            # By way of negative numbers, so that no two rows ever have the same.
            self._connection.execute("UPDATE events SET number = -number")
            self._connection.execute("UPDATE events SET number = ? - number", (behind,))
        self.highest += behind

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise _explained(error) from error
        self._measure()

    def _measure(self) -> None:
        if self._log is not None:
            size = os.fstat(self._log).st_size
            self.written += size - self._log_bytes
            self._log_bytes = size

    def _open_log(self) -> None:
        self._empty_log()  # which makes one where there is none
        log = self.path.with_name(f"{NAME}-wal")
        keep_private(self.path, log)
        before, self._log = self._log, os.open(log, os.O_RDONLY)
        if before is not None:
            os.close(before)
        sync_folder(self.path.parent)

    def _empty_log(self) -> None:
        _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.written += max(0, pages) * PAGE_BYTES
        self._log_bytes = 0


def _text(raw: bytes) -> str:
    """By sqlite's own way one byte that is not UTF-8 ends the reading of all rows; here its topic is not printable."""
    return raw.decode(errors="surrogateescape")


@lru_cache(maxsize=64)  # a daemon has one topic for each camera
def _publishable(topic: object) -> bool:
    """Whether the settings can have led to it: brokers hang up for some others, and the MQTT client refuses some."""
    try:
        return isinstance(topic, str) and all(topic_level(level) for level in topic.split("/"))
    except ValueError:
        return False


def _explained(error: BaseException) -> BaseException:
    # sqlite's codes reach Python from 3.11 on only; its texts have not changed in many years.
    if isinstance(error, sqlite3.OperationalError):
        return InUseError("another process uses it") if "locked" in str(error) else error
    if isinstance(error, sqlite3.DatabaseError):
        return DamagedError(str(error))
    return error
