"""The history of all cameras in a file, so that it outlives the dashboard. Means of scores; no picture, no event."""

import contextlib
import logging
import math
import sqlite3
import threading
import time
from array import array
from collections import deque
from pathlib import Path

from edge.config import SpoolConfig
from edge.errors import ConfigError
from edge.labels import EMOTIONS
from edge.statefolder import keep_private, make_file, state_folder
from edge.web.fleet import CAMERAS_MAX, SPAN_OF_BIN_S, Fleet, History

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0  # what a `kill -9` costs at most
PRUNE_EVERY_S = 3600.0
ROWS_MAX = 500_000  # about 50 MB; a camera that always sees somebody has 2,400
MAGIC = b"SQLite format 3\0"
KEY = ("device", "camera", "width", "start")
COLUMNS = (*KEY, "count", *EMOTIONS)
TABLE = f"""CREATE TABLE IF NOT EXISTS bins (device TEXT, camera TEXT, width INTEGER, start INTEGER, count INTEGER,
    {" REAL, ".join(EMOTIONS)} REAL, PRIMARY KEY ({", ".join(KEY)})) WITHOUT ROWID"""


def default_path() -> Path | None:
    """In systemd's state directory, where there is one."""
    folder = state_folder(SpoolConfig())
    return None if folder is None else folder / "history.sqlite"


class HistoryFile:
    """Fills the fleet's histories from a file, and saves what is new every `SAVE_EVERY_S` while it is entered.

    What is older than the longest span shown goes, and past `ROWS_MAX` the oldest. A damaged file is put aside. Raises
    ConfigError for a file that cannot be used; a disk that takes nothing later is told in the log, and what it did not
    take is tried again.
    """

    def __init__(self, path: Path, fleet: Fleet) -> None:
        self._path, self._fleet = path, fleet
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._saved_at, self._pruned_at = 0.0, -math.inf  # the second by a clock that nobody sets back
        self._problem: str | None = None
        self._forgotten: deque[tuple[str, str]] = deque(maxlen=CAMERAS_MAX)  # and the file still has them

    def __enter__(self) -> "HistoryFile":
        try:
            make_file(self._path)
            self._path.open("ab").close()  # says better than sqlite what is wrong
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                # Damage is no OperationalError. What never was a database may be somebody's text.
                if isinstance(error, sqlite3.OperationalError) or not _was_a_database(self._path):
                    raise
                log.error("--history %s is damaged (%s): put aside, a new one is begun", self._path, error)
                _put_aside(self._path)
                make_file(self._path)
                self._open()
        except OSError as error:
            raise ConfigError(f"--history {self._path}: {error.strerror or error}") from None
        except sqlite3.Error as error:
            hint = "; does another dashboard use it?" if "locked" in str(error) else ""
            raise ConfigError(f"--history {self._path}: {error}{hint}") from None
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._save(time.time())
        self._file.close()

    def _open(self) -> None:
        self._file = sqlite3.connect(self._path, timeout=1, check_same_thread=False)
        self._file.text_factory = _text
        try:
            with self._file:
                self._file.execute("PRAGMA locking_mode=EXCLUSIVE")
                # What is forgotten is to be read nowhere, also not in free pages, nor in the journal that stays open.
                self._file.execute("PRAGMA secure_delete=ON")
                self._file.execute("PRAGMA journal_mode=TRUNCATE")
                self._file.execute(TABLE)
                self._file.execute("DELETE FROM bins WHERE start < 0")  # takes the lock, for as long as we run
            if (problem := self._file.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
                raise sqlite3.DatabaseError(*problem)
            keep_private(self._path)  # not before it is known to be ours
            self._load(time.time())
        except BaseException:
            self._file.close()
            raise

    def _load(self, now: float) -> None:
        rows = self._file.execute(f"SELECT {', '.join(COLUMNS)} FROM bins ORDER BY start")
        histories: dict[tuple[str, str], History] = {}
        for device, camera, width, *values in rows:
            if width in SPAN_OF_BIN_S and _whole(*values) and values[0] > now - SPAN_OF_BIN_S[width]:
                histories.setdefault((device, camera), History()).put(width, array("d", values))
        self._fleet.remember(histories)
        self._saved_at = now

    def _run(self) -> None:
        while not self._stop.wait(SAVE_EVERY_S):
            self._save(time.time())

    def _save(self, now: float) -> None:
        # First what was forgotten, then what there is: what is forgotten between the two is not among the rows.
        self._forgotten.extend(self._fleet.take_forgotten())
        rows = [(*key, width, *bin_) for key, width, bin_ in self._fleet.bins_after(self._saved_at)]
        places = ", ".join("?" * len(COLUMNS))
        try:
            with self._file:
                self._file.executemany("DELETE FROM bins WHERE device = ? AND ? IN ('', camera)", self._forgotten)
                self._file.executemany(f"REPLACE INTO bins VALUES ({places})", rows)
                if time.monotonic() - self._pruned_at > PRUNE_EVERY_S:
                    self._prune(now)
                    self._pruned_at = time.monotonic()
            self._saved_at, problem = now, None
            self._forgotten.clear()
        except sqlite3.Error as error:
            problem = str(error)
        if problem is not None and problem != self._problem:
            log.warning("--history %s: %s; kept in memory, and tried again", self._path, problem)
        self._problem = problem

    def _prune(self, now: float) -> None:
        for width, span_s in SPAN_OF_BIN_S.items():
            self._file.execute("DELETE FROM bins WHERE width = ? AND start < ?", (width, now - span_s))
        (count,) = self._file.execute("SELECT COUNT(*) FROM bins").fetchone()
        if count > ROWS_MAX:
            oldest_kept = self._file.execute("SELECT start FROM bins ORDER BY start DESC LIMIT 1 OFFSET ?", (ROWS_MAX,))
            self._file.execute("DELETE FROM bins WHERE start <= ?", oldest_kept.fetchone())


def _text(raw: bytes) -> str:
    """By sqlite's own way one byte that is not UTF-8 ends the reading of all rows; here it is of an unknown camera."""
    return raw.decode(errors="replace")


def _whole(start: object, count: object, *sums: object) -> bool:
    """Whether we can have written a row: the database's own checks do not look into the columns."""
    if not isinstance(start, int) or not isinstance(count, int):
        return False
    return count > 0 and all(isinstance(value, float) and 0 <= value <= count for value in sums)


def _was_a_database(path: Path) -> bool:
    """By its first bytes, which are zeros where a power cut took them."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) in (MAGIC, bytes(len(MAGIC)))


def _put_aside(path: Path) -> None:
    """Rename a damaged database and its journal, over one that was put aside before."""
    for suffix in ("", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{path}.damaged{suffix}")


def kept(path: Path | None, fleet: Fleet) -> contextlib.AbstractContextManager[object]:
    """Keeps the fleet's history in the file, if one is named."""
    return contextlib.nullcontext() if path is None else HistoryFile(path, fleet)
