"""Unacknowledged events: in order, bounded, counted; on disk whole or not at all."""

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from conftest import wait_for
from edge.config import SpoolConfig
from edge.errors import ServiceUnavailableError
from edge.eventfile import DamagedError, EventFile, Row
from edge.spool import Spool

TOPIC = "emotiond/pi/camera/events"


@pytest.fixture
def open_spool() -> Iterator[Callable[..., Spool]]:
    """Opens a spool with these settings; it is closed at the end of the test."""
    with ExitStack() as stack:

        def enter(**settings: object) -> Spool:
            return stack.enter_context(Spool(SpoolConfig(**{"sync_s": 0.05, **settings})))

        yield enter


def texts(spool: Spool, number: int = 0, limit: int = 1000) -> list[str]:
    return [row.payload.decode() for row in spool.after(number, limit)]


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "state" if request.param == "disk" else None


def test_messages_stay_in_order_until_they_are_removed(folder: Path | None, open_spool) -> None:
    spool = open_spool(folder=folder)
    for text in "abcd":
        spool.append(TOPIC, text)
    spool.flush(10)
    assert [(row.number, row.payload) for row in spool.after(0, 2)] == [(1, b"a"), (2, b"b")]
    assert {row.topic for row in spool.after(0, 9)} == {TOPIC}
    for number in (1, 3, 3):
        spool.remove(number)
    assert texts(spool) == ["b", "d"]
    assert texts(spool, 2) == ["d"]
    assert (len(spool), set(spool.drops.values())) == (2, {0})


def test_what_is_acknowledged_is_not_given_again_before_it_left_the_file(tmp_path: Path, open_spool) -> None:
    spool = open_spool(folder=tmp_path, sync_s=60)
    for number in range(50):
        spool.append(TOPIC, str(number))
    spool.flush(10)
    for number in range(1, 41):
        spool.remove(number)
    assert texts(spool, 0, 5) == ["40", "41", "42", "43", "44"]
    assert len(spool) == 10


@pytest.mark.parametrize("limit", [{"max_events": 3}, {"max_mb": 0.03}])
def test_a_full_spool_drops_its_oldest_and_counts_it(folder: Path | None, limit: dict, open_spool) -> None:
    spool = open_spool(folder=folder, **limit)
    for letter in "abcde":
        spool.append(TOPIC, letter * 10_000)
        spool.flush(10)
    wait_for(lambda: len(spool) == 3, "only three are left")
    assert [text[0] for text in texts(spool)] == ["c", "d", "e"]
    assert spool.drops["events_overflowed"] == 2


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.spool.TIDY_S", 0.2)


@pytest.fixture
def trusted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process were running for long."""
    monkeypatch.setattr("edge.clock.SETTLED_S", 0.0)


def test_what_is_too_old_goes_and_is_counted(tmp_path: Path, open_spool, trusted_clock) -> None:
    earlier = EventFile(tmp_path)
    earlier.add([Row(n, time.time() - age_s, TOPIC, b"x") for n, age_s in ((1, 9000), (2, 8000), (3, 10))])
    earlier.close()
    spool = open_spool(folder=tmp_path, max_age_s=3600)
    wait_for(lambda: len(spool) == 1, "only the young one is left")
    assert [row.number for row in spool.after(0, 9)] == [3]
    assert spool.drops["events_expired"] == 2


def test_events_of_a_board_that_learned_the_time_late_are_not_too_old_for_the_next_process(
    tmp_path: Path, trusted_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, behind = time.time, 30 * 86400
    earlier = EventFile(tmp_path)
    earlier.add([Row(1, real() - 9000, TOPIC, b"old")])
    earlier.close()
    settings = SpoolConfig(folder=tmp_path, max_age_s=3600)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: real() - behind)
        with Spool(settings) as spool:
            spool.append(TOPIC, "before")
            spool.flush(10)
            patched.setattr(time, "time", real)
            spool.append(TOPIC, "after")
            wait_for(lambda: spool.drops["events_expired"] == 1, "the old one is known to be old")
            assert texts(spool) == ["before", "after"]
    with Spool(settings) as following:
        time.sleep(0.2)
        assert texts(following) == ["before", "after"]
        assert not any(following.drops.values())


def test_a_clock_that_is_ahead_at_the_start_or_for_a_while_costs_no_event(
    tmp_path: Path, open_spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ahead = time.time, 8 * 86400
    earlier = EventFile(tmp_path)
    earlier.add([Row(number, real() - 60, TOPIC, b"%d" % number) for number in range(1, 6)])
    earlier.close()
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    spool = open_spool(folder=tmp_path)
    for clock in (real, lambda: real() + ahead, real):
        time.sleep(0.5)
        monkeypatch.setattr(time, "time", clock)
        spool.append(TOPIC, "new")
        spool.flush(10)
    time.sleep(0.5)
    assert texts(spool) == [*"12345", "new", "new", "new"]
    assert set(spool.drops.values()) == {0}


def test_what_this_run_kept_goes_at_its_age_while_the_clock_is_not_trusted_yet(
    tmp_path: Path, open_spool, soon
) -> None:
    earlier = EventFile(tmp_path)
    earlier.add([Row(1, time.time() - 9000, TOPIC, b"earlier")])
    earlier.close()
    spool = open_spool(folder=tmp_path, max_age_s=1)
    spool.append(TOPIC, "new")
    wait_for(lambda: spool.drops["events_expired"] == 1, "a second is over")
    assert texts(spool) == ["earlier"]


def test_the_next_process_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    with Spool(SpoolConfig(folder=tmp_path)) as first:
        for text in "abc":
            first.append(TOPIC, text)
        first.flush(10)
        first.remove(2)
    with Spool(SpoolConfig(folder=tmp_path)) as second:
        second.append(TOPIC, "d")
        second.flush(10)
        assert texts(second) == ["a", "c", "d"]


def test_systemds_state_directory_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_spool) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'state'}:{tmp_path / 'other'}")
    spool = open_spool()
    assert spool.figures()["on_disk"]
    assert (tmp_path / "state/events.db").exists()


def test_a_folder_serves_one_process(tmp_path: Path, open_spool) -> None:
    open_spool(folder=tmp_path)
    with pytest.raises(ServiceUnavailableError, match=r"spool.folder: .*: another emotiond uses it"):
        open_spool(folder=tmp_path)


def test_no_half_row_is_read_wherever_the_power_was_cut(tmp_path: Path) -> None:
    """The log's newest bytes are what a power cut takes; whatever is left of them, only whole rows are read."""
    living = EventFile(tmp_path / "living")
    for number in range(1, 9):
        living.add([Row(number, 0.0, TOPIC, bytes([number]) * 700)])
    log = tmp_path / "living/events.db-wal"
    size = log.stat().st_size
    counts = set()
    for length in [*range(0, size, 191), size]:
        left = tmp_path / "left"
        shutil.copytree(tmp_path / "living", left)
        os.truncate(left / "events.db-wal", length)
        with (left / "events.db-wal").open("ab") as file:
            file.write(b"\0" * (size - length) if length % 2 else os.urandom(size - length))
        found = EventFile(left)
        rows = found.after(0, 100)
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        assert all(row.payload == bytes([row.number]) * 700 for row in rows)
        counts.add(len(rows))
        found.close()
        shutil.rmtree(left)
    assert counts == set(range(9))


@pytest.mark.parametrize("damage", ["no database", "middle"])
def test_a_damaged_file_is_put_aside_and_said(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture, open_spool
) -> None:
    with Spool(SpoolConfig(folder=tmp_path)) as spool:
        for number in range(100):
            spool.append(TOPIC, str(number) * 300)
    path = tmp_path / "events.db"
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content[:40] = b"x" * 40
    else:
        content[4096:30000] = os.urandom(30000 - 4096)
    path.write_bytes(content)
    again = open_spool(folder=tmp_path)
    again.append(TOPIC, "new")
    again.flush(10)
    assert texts(again) == ["new"]
    assert again.figures()["on_disk"]
    assert "is damaged" in caplog.text
    assert (tmp_path / "events.db.damaged").exists()


def kept_earlier(folder: Path, count: int) -> None:
    """A process before this one left events 1 to `count`."""
    with Spool(SpoolConfig(folder=folder)) as earlier:
        for number in range(1, count + 1):
            earlier.append(TOPIC, str(number))
        earlier.flush(10)


def change_rows(folder: Path, change: str, where: str) -> None:
    """As a card does that forgets: the database stays whole, and what stands in it is no longer what was written."""
    connection = sqlite3.connect(folder / "events.db")
    with connection:
        connection.execute(f"UPDATE events SET {change} WHERE {where}")
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        "topic = 'emotiond+pi/camera/events'",
        "topic = 'emotiond/pi#camera/events'",
        "topic = 'emotiond/pi' || char(0) || 'camera/events'",
        "topic = 'emotiond/pi' || char(15) || 'camera/events'",  # for which mosquitto hangs up
        "topic = 'emotiond//camera/events'",
        "topic = ''",
        "topic = CAST(x'656d6fff2f70' AS TEXT)",  # not UTF-8
        "topic = x'656d6f'",
        "at = 'soon'",
        "at = x'00'",
        "payload = 'a text'",
        "payload = 7",
    ],
)
def test_a_damaged_row_is_dropped_and_counted_and_the_others_go_on(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture, open_spool, soon
) -> None:
    kept_earlier(tmp_path, 5)
    change_rows(tmp_path, damage, "number = 3")
    spool = open_spool(folder=tmp_path)
    spool.append(TOPIC, "6")
    spool.flush(10)
    assert texts(spool) == ["1", "2", "4", "5", "6"]
    wait_for(lambda: spool.drops["events_damaged"] == 1, "it is counted")
    assert (len(spool), spool.figures()["on_disk"], spool.failure) == (5, True, None)
    assert caplog.text.count("events.db: damaged events dropped: 1") == 1
    spool.__exit__()
    with sqlite3.connect(tmp_path / "events.db") as connection:
        assert connection.execute("SELECT number FROM events").fetchall() == [(1,), (2,), (4,), (5,), (6,)]
    connection.close()


def test_many_damaged_rows_hide_no_whole_one(tmp_path: Path, open_spool, soon) -> None:
    kept_earlier(tmp_path, 3000)
    change_rows(tmp_path, "topic = ''", "number < 3000")
    spool = open_spool(folder=tmp_path)
    assert texts(spool, 0, 1) == ["3000"]
    wait_for(lambda: spool.drops["events_damaged"] == 2999, "all are counted")
    assert len(spool) == 1


@pytest.mark.parametrize("number", [-5, 0, 2**63 - 1])
def test_a_file_with_numbers_that_no_row_can_have_is_put_aside(tmp_path: Path, number: int, open_spool) -> None:
    kept_earlier(tmp_path, 5)
    change_rows(tmp_path, f"number = {number}", "number = 5")
    spool = open_spool(folder=tmp_path)
    spool.append(TOPIC, "new")
    spool.flush(10)
    assert texts(spool) == ["new"]
    assert (tmp_path / "events.db.damaged").exists()
    assert spool.failure is None


def test_a_file_that_is_damaged_while_it_is_used_is_replaced(tmp_path: Path, caplog, open_spool) -> None:
    spool = open_spool(folder=tmp_path)
    for number in range(3000):
        spool.append(TOPIC, f"{number} " + "x" * 700)
    spool.flush(10)
    wait_for(lambda: (tmp_path / "events.db").stat().st_size > 1_000_000, "the log was emptied into the database")
    with (tmp_path / "events.db").open("r+b") as file:
        file.seek(1024)
        file.write(os.urandom(900_000))
    texts(spool, 0, 3000)
    spool.append(TOPIC, "new")
    wait_for(lambda: texts(spool)[-1:] == ["new"], "it goes on")
    assert "is damaged" in caplog.text
    assert spool.drops["events_damaged"] > 0


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """As of a card that gives errors for a while: what the log held is gone, and then there again.

    sqlite then says `disk I/O error`. There must be more than it keeps in memory, and less than goes to the database.
    """
    log = folder / "events.db-wal"
    content = log.read_bytes()
    os.truncate(log, 0)
    yield
    with log.open("r+b") as file:
        file.write(content)


def test_nothing_newer_overtakes_what_the_disk_gives_back_later(tmp_path: Path, caplog, open_spool) -> None:
    caplog.set_level("INFO")
    spool = open_spool(folder=tmp_path, sync_s=60)
    old = [f"{number:04d}" + "x" * 600 for number in range(900)]
    for text in old:
        spool.append(TOPIC, text)
    spool.flush(10)
    with unreadable(tmp_path):
        assert texts(spool) == []
        spool.append(TOPIC, "new")
        time.sleep(0.2)
        assert texts(spool) == []
        assert not spool.figures()["on_disk"]
    assert texts(spool)[:900] == old
    spool.flush(10)
    assert texts(spool) == [*old, "new"]
    assert spool.figures()["on_disk"]
    assert (len(spool), set(spool.drops.values())) == (901, {0})
    assert caplog.text.count("events wait in memory") == caplog.text.count(f"{tmp_path} works again") == 1


def test_a_disk_that_cannot_be_read_for_long_holds_nothing_newer_up(
    tmp_path: Path, open_spool, soon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.spool.READ_PATIENCE_S", 0.5)
    kept_earlier(tmp_path, 5)
    spool = open_spool(folder=tmp_path)
    assert texts(spool) == list("12345")
    with monkeypatch.context() as patched:
        for name in ("after", "add", "remove", "__init__"):
            patched.setattr(EventFile, name, _broken)
        spool.append(TOPIC, "new")
        assert texts(spool, 2) == []
        wait_for(lambda: texts(spool, 2), "it goes on without the disk")
        assert texts(spool, 2) == ["new"]
        assert not spool.figures()["on_disk"]
    wait_for(lambda: spool.figures()["on_disk"], "the disk works again")
    assert texts(spool, 6) == list("12345")  # behind what was given meanwhile; once more where it was given before
    assert spool.failure is None


def _broken(*_: object) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def test_a_full_disk_lets_events_wait_in_memory_until_it_works_again(tmp_path: Path, caplog, open_spool) -> None:
    caplog.set_level("INFO")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("no rights to mount a small disk")
    try:
        spool = open_spool(folder=tmp_path)
        for number in range(1000):
            spool.append(TOPIC, f"{number:04d}" + "x" * 700)
        wait_for(lambda: spool.figures()["write_failures"] > 0, "the disk is full")
        assert [text[:4] for text in texts(spool)] == [f"{n:04d}" for n in range(1000)]
        assert not spool.figures()["on_disk"]
        subprocess.run(["mount", "-o", "remount,size=8m", tmp_path], check=True)
        wait_for(lambda: spool.figures()["on_disk"], "the disk works again")
        assert [text[:4] for text in texts(spool)] == [f"{n:04d}" for n in range(1000)]
        assert caplog.text.count("events wait in memory") == caplog.text.count(f"{tmp_path} works again") == 1
        spool.__exit__()
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def texts_on_disk(folder: Path, copy: Path) -> list[str]:
    """What a process would find that began now, after a `kill -9` of the one that has the folder."""
    try:
        shutil.copytree(folder, copy)
        with closing(EventFile(copy)) as file:
            return [row.payload.decode() for row in file.after(0, 1000)]
    except (OSError, shutil.Error, sqlite3.Error, DamagedError):
        return []  # what is being written cannot be copied as of one moment
    finally:
        shutil.rmtree(copy, ignore_errors=True)


@pytest.mark.parametrize("deleted", [["events.db", "events.db-wal"], ["events.db"], ["events.db-wal"], ["."]])
def test_files_that_are_deleted_under_the_process_are_written_anew_with_all_that_waits(
    tmp_path: Path, deleted: list[str], caplog, open_spool
) -> None:
    folder = tmp_path / "state"
    kept_earlier(folder, 3)
    spool = open_spool(folder=folder)
    spool.append(TOPIC, "4")
    spool.flush(10)
    for row in spool.after(0, 2):
        spool.remove(row.number)
    for name in deleted:
        shutil.rmtree(folder) if name == "." else (folder / name).unlink()
    spool.append(TOPIC, "5")
    wait_for(lambda: (folder / "events.db").exists() and (folder / "events.db-wal").exists(), "they are there again")
    spool.flush(10)
    wait_for(lambda: texts_on_disk(folder, tmp_path / "copy") == ["3", "4", "5"], "all is in them")
    assert [(row.number, row.payload) for row in spool.after(0, 9)] == [(3, b"3"), (4, b"4"), (5, b"5")]
    assert (len(spool), spool.figures()["on_disk"], set(spool.drops.values())) == (3, True, {0})
    assert caplog.text.count("under this process") == 1


def test_a_file_that_is_put_in_place_of_the_one_in_use_is_used_and_nothing_of_either_is_lost(
    tmp_path: Path, open_spool
) -> None:
    folder = tmp_path / "state"
    kept_earlier(tmp_path / "other", 3)
    spool = open_spool(folder=folder)
    for text in "abcd":
        spool.append(TOPIC, text)
    spool.flush(10)
    seen = spool.after(0, 2)
    shutil.rmtree(folder)
    (tmp_path / "other").rename(folder)
    spool.append(TOPIC, "new")
    everything = [*"abcd", *"123", "new"]
    wait_for(lambda: texts(spool) == everything, "what was there first, what was found, and what came then")
    assert texts(spool, seen[-1].number) == everything[2:]
    spool.append(TOPIC, "newest")
    spool.flush(10)
    spool.__exit__()
    assert texts_on_disk(folder, tmp_path / "copy") == [*everything, "newest"]
    assert set(spool.drops.values()) == {0}


def test_where_deleted_files_cannot_be_written_anew_events_wait_in_memory(tmp_path: Path, caplog, open_spool) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "state"
    spool = open_spool(folder=folder)
    spool.append(TOPIC, "a")
    spool.flush(10)
    shutil.rmtree(folder)
    folder.write_text("")
    spool.append(TOPIC, "b")
    wait_for(lambda: not spool.figures()["on_disk"], "it is said")
    wait_for(lambda: texts(spool) == ["a", "b"], "both are sent")
    for row in spool.after(0, 1):
        spool.remove(row.number)
    time.sleep(0.3)
    folder.unlink()
    wait_for(lambda: spool.figures()["on_disk"], "it works again")
    wait_for(lambda: texts_on_disk(folder, tmp_path / "copy") == ["b"], "what waits is there")
    assert caplog.text.count("events wait in memory") == caplog.text.count(f"{folder} works again") == 1


def test_a_folder_that_cannot_be_used_is_said_and_memory_serves(tmp_path: Path, caplog, open_spool) -> None:
    (tmp_path / "file").write_text("")
    spool = open_spool(folder=tmp_path / "file/state")
    spool.append(TOPIC, "a")
    assert texts(spool) == ["a"]
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize("sent", [0, 2, 5])
def test_a_folder_that_can_be_used_later_is_and_what_waits_there_is_sent(
    tmp_path: Path, sent: int, caplog, open_spool, soon
) -> None:
    caplog.set_level("INFO")
    with Spool(SpoolConfig(folder=tmp_path / "away")) as earlier:
        for number in range(300):
            earlier.append(TOPIC, f"old {number}")
        earlier.flush(10)
        for number in range(1, 300, 2):
            earlier.remove(number)
    old = [f"old {number}" for number in range(1, 300, 2)]
    (tmp_path / "state").write_text("")  # as a file system that is not mounted yet
    told = threading.Event()
    spool = open_spool(folder=tmp_path / "state")
    spool.on_stored = told.set
    for number in range(5):
        spool.append(TOPIC, f"new {number}")
    new = [f"new {number}" for number in range(5)]
    seen = spool.after(0, sent) if sent else []
    wait_for(lambda: spool.figures()["write_failures"] > 2, "it is tried again")
    told.clear()
    (tmp_path / "state").unlink()
    (tmp_path / "away").rename(tmp_path / "state")
    wait_for(lambda: spool.figures()["on_disk"] and not spool._fresh, "all is on disk")
    assert told.wait(10)
    # What is under way keeps its numbers; behind it all goes in the order in which it was.
    last = seen[-1].number if seen else 0
    assert texts(spool, last) == old + new[sent:]
    for row in seen[:1]:
        spool.remove(row.number)
    spool.append(TOPIC, "newest")
    spool.flush(10)
    rest = new[1:sent] + old + new[sent:] + ["newest"]
    wait_for(lambda: texts(spool) == rest, "what is acknowledged is gone, and nothing else")
    assert (len(spool), set(spool.drops.values())) == (len(rest), {0})
    assert caplog.text.count("cannot be used") == caplog.text.count(f"{tmp_path / 'state'} works again") == 1
    spool.__exit__()
    with Spool(SpoolConfig(folder=tmp_path / "state")) as following:
        assert texts(following) == rest


def test_a_late_folder_holds_to_its_limits(tmp_path: Path, open_spool, soon) -> None:
    (tmp_path / "state").write_text("")
    spool = open_spool(folder=tmp_path / "state", max_events=3)
    for letter in "abcde":
        spool.append(TOPIC, letter)
    (tmp_path / "state").unlink()
    wait_for(lambda: spool.figures()["on_disk"] and not spool._fresh, "all is on disk")
    assert texts(spool) == ["c", "d", "e"]
    assert spool.drops["events_overflowed"] == 2


def test_a_folder_that_can_be_used_only_at_the_end_gets_all(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with Spool(SpoolConfig(folder=tmp_path / "state")) as spool:
        spool.append(TOPIC, "a")
        (tmp_path / "state").unlink()
    with Spool(SpoolConfig(folder=tmp_path / "state")) as following:
        assert texts(following) == ["a"]


def test_a_damaged_file_that_cannot_be_put_aside_ends_nothing(
    tmp_path: Path, open_spool, monkeypatch: pytest.MonkeyPatch, soon
) -> None:
    spool = open_spool(folder=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(EventFile, "__init__", _read_only)
        patched.setattr("edge.spool.put_aside", _read_only)
        patched.setattr(EventFile, "add", _damaged)
        spool.append(TOPIC, "a")
        wait_for(lambda: spool.figures()["write_failures"] > 1, "it is tried again")
        assert texts(spool) == ["a"]
    wait_for(lambda: spool.figures()["on_disk"] and not spool._fresh, "it is written")
    assert texts(spool) == ["a"]
    assert spool.failure is None


def _read_only(*_: object) -> None:
    raise OSError("read-only")


def _damaged(*_: object) -> None:
    raise DamagedError("malformed")


def test_appending_does_not_wait_for_the_disk(tmp_path: Path, open_spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = open_spool(folder=tmp_path)
    stuck, released = threading.Event(), threading.Event()

    def hang(self: EventFile, rows: list[Row]) -> None:
        stuck.set()
        released.wait(30)

    monkeypatch.setattr(EventFile, "add", hang)
    spool.append(TOPIC, "a")
    assert stuck.wait(10)
    for number in range(100):
        spool.append(TOPIC, str(number))  # would never come back
    assert len(spool) == 101
    released.set()


def test_the_medium_is_synced_at_most_once_in_its_time(tmp_path: Path, open_spool) -> None:
    spool = open_spool(folder=tmp_path, sync_s=0.5)
    spool.figures()
    began_at = time.monotonic()
    while time.monotonic() < began_at + 2:
        spool.append(TOPIC, "x" * 600)
        time.sleep(0.005)
    figures = spool.figures()
    assert 0 < figures["syncs_per_s"] <= 2.6
    assert figures["written_bytes_per_s"] > 0


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_the_medium_is_told_to_keep_new_events_and_the_names_of_their_files(
    tmp_path: Path, open_spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else outlives a power cut."""
    kept: dict[str, int] = {}  # path to bytes

    def spy(sync: Callable[[int], None]) -> Callable[[int], None]:
        def called(descriptor: int) -> None:
            sync(descriptor)
            kept[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = os.fstat(descriptor).st_size

        return called

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, spy(getattr(os, name)))
    spool = open_spool(folder=tmp_path)
    assert str(tmp_path) in kept
    spool.append(TOPIC, "x" * 5000)
    wait_for(lambda: kept.get(f"{tmp_path}/events.db-wal", 0) > 5000, "the event is on the medium")


def test_what_is_acknowledged_while_it_is_written_is_not_kept(
    tmp_path: Path, open_spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = EventFile.add

    def slow(file: EventFile, rows: list[Row]) -> None:
        add(file, rows)
        spool.remove(rows[0].number)

    monkeypatch.setattr(EventFile, "add", slow)
    spool = open_spool(folder=tmp_path)
    spool.append(TOPIC, "a")
    spool.flush(10)
    wait_for(lambda: len(spool) == 0, "it is gone")
    assert texts(spool) == []


def test_what_arrived_is_not_counted_as_pushed_out_by_what_came_later(tmp_path: Path, open_spool) -> None:
    spool = open_spool(folder=tmp_path, max_events=5, sync_s=60)
    for number in range(1, 21):
        spool.append(TOPIC, "a")
        spool.flush(10)
        spool.remove(number)
    assert (len(spool), spool.drops["events_overflowed"]) == (0, 0)


def test_a_device_keeps_only_some_megabytes_in_memory_whatever_the_settings_say(open_spool) -> None:
    spool = open_spool(max_mb=1000)
    for _ in range(20):
        spool.append(TOPIC, "x" * 1_000_000)
    assert (len(spool), spool.drops["events_overflowed"]) == (8, 12)


def test_nobody_else_may_read_what_is_kept(tmp_path: Path, lax_umask, open_spool) -> None:
    open_spool(folder=tmp_path / "site/state").append(TOPIC, "who was in view, and when")
    assert {mode(tmp_path / "site"), mode(tmp_path / "site/state")} == {"0o700"}
    assert {mode(tmp_path / "site/state" / name) for name in ("events.db", "events.db-wal")} == {"0o600"}


def test_a_folder_that_is_there_keeps_its_mode_and_files_of_an_earlier_version_do_not(
    tmp_path: Path, lax_umask, open_spool
) -> None:
    kept_earlier(tmp_path / "earlier", 3)
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    for name in ("events.db", "events.db-wal"):
        (folder / name).touch(mode=0o644)
    shutil.copyfile(tmp_path / "earlier/events.db", folder / "events.db")
    spool = open_spool(folder=folder)
    assert texts(spool) == ["1", "2", "3"]
    assert (mode(folder), mode(folder / "events.db"), mode(folder / "events.db-wal")) == ("0o755", "0o600", "0o600")


def test_the_file_is_a_plain_database(tmp_path: Path) -> None:
    """Whoever has to rescue events can read them with sqlite3."""
    with Spool(SpoolConfig(folder=tmp_path)) as spool:
        spool.append(TOPIC, "{}")
    with sqlite3.connect(tmp_path / "events.db") as connection:
        assert connection.execute("SELECT number, topic, payload FROM events").fetchall() == [(1, TOPIC, b"{}")]
    connection.close()
