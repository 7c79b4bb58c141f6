"""The history outlives the dashboard: in a file that is bounded, and told of when it cannot be used."""

import contextlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Broker, Daemon, Subscriber, free_port, plain, wait_for

pytest.importorskip("nicegui", reason="the extra `web` is not installed")

from edge.errors import ConfigError
from edge.labels import EMOTIONS
from edge.web import historyfile
from edge.web.fleet import COARSE_S, FINE_S, Fleet
from edge.web.historyfile import HistoryFile

NOW = 1_800_000_000.0
HAPPY = {emotion: float(emotion == "happy") for emotion in EMOTIONS}
LONG_S = 300.0


def see(fleet: Fleet, camera: str, at: float) -> None:
    face = {"track": 1, "emotion": "happy", "confidence": 1.0, "scores": HAPPY, "box": [64, 48, 128, 128]}
    fleet.take(f"emotiond/pi/{camera}/faces", json.dumps({"v": 1, "frame": [640, 480], "faces": [face]}), at)


def series(fleet: Fleet, camera: str, span_s: int = 604_800) -> list[float]:
    """The times at which somebody was seen, after `NOW`."""
    fleet.take(f"emotiond/pi/{camera}/status", "online", NOW)
    (view,) = [view for view in fleet.cameras() if view.name == camera]
    return [at - NOW for at, means in view.history.series(NOW, span_s) if means is not None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that it is for the file; its thread stays out of the way."""
    now = [NOW]
    monkeypatch.setattr(historyfile.time, "time", lambda: now[0])
    monkeypatch.setattr(historyfile, "SAVE_EVERY_S", 3600.0)
    return now


def test_what_was_seen_is_there_again_and_goes_on(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "history.sqlite"
    before = Fleet()
    clock[0] = NOW - 90_000
    with HistoryFile(path, before):
        see(before, "front", NOW - 86_400)
        see(before, "front", NOW - 20)
        clock[0] = NOW - 20
    after = Fleet()
    with HistoryFile(path, after):
        see(after, "front", NOW - 15)  # the same bin
        see(after, "front", NOW)
        assert series(after, "front", 900) == [-20, 0]
        assert series(after, "front") == [-86_400, -COARSE_S, 0]
    rows = sqlite3.connect(path).execute(f"SELECT start, count, happy FROM bins WHERE width = {FINE_S} ORDER BY start")
    assert [tuple(row) for row in rows][-2:] == [(NOW - 20, 2, 2.0), (NOW, 1, 1.0)]


def test_old_bins_go_and_so_do_the_oldest_of_too_many(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fleet = tmp_path / "history.sqlite", Fleet()
    clock[0] = NOW - 604_000
    with HistoryFile(path, fleet):
        see(fleet, "front", NOW - 604_000)
        see(fleet, "front", NOW)
        clock[0] = NOW
    clock[0] = NOW + 7200
    with HistoryFile(path, Fleet()):
        pass
    widths = [row[0] for row in sqlite3.connect(path).execute("SELECT width FROM bins")]
    assert widths == [COARSE_S]  # of now; what is older than an hour has no fine bins, and a week is over
    monkeypatch.setattr(historyfile, "ROWS_MAX", 10)
    with HistoryFile(path, fleet := Fleet()):
        for number in range(40):
            see(fleet, "front", clock[0] - 1000 + COARSE_S * number)
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM bins").fetchone()[0] <= 10


def test_a_clock_that_was_ahead_stops_neither_the_history_nor_its_bounds(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before, after = tmp_path / "history.sqlite", Fleet(), Fleet()
    ahead = clock[0] = NOW + 31_536_000
    with HistoryFile(path, before):
        see(before, "front", ahead)
    clock[0] = NOW
    with HistoryFile(path, after):
        see(after, "front", NOW)
        assert series(after, "front", 900) == [0]
    assert (FINE_S, NOW) in list(sqlite3.connect(path).execute("SELECT width, start FROM bins"))

    monkeypatch.setattr(historyfile, "ROWS_MAX", 10)
    monkeypatch.setattr(historyfile, "PRUNE_EVERY_S", 0.0)
    with HistoryFile(path, fleet := Fleet()) as file:
        file._save(ahead)
        for number in range(40):
            see(fleet, "front", NOW + COARSE_S * number)
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM bins").fetchone()[0] <= 10


def test_what_the_broker_was_made_to_forget_is_forgotten_here(tmp_path: Path, clock: list[float]) -> None:
    path, before, after = tmp_path / "history.sqlite", Fleet(), Fleet()
    with HistoryFile(path, before):
        for camera in ("front", "garden"):
            see(before, camera, NOW)
    with HistoryFile(path, after):
        after.take("emotiond/pi/front/status", "", NOW)
        assert series(after, "front") == []
        assert series(after, "garden") == [0]
    assert {row[0] for row in sqlite3.connect(path).execute("SELECT camera FROM bins")} == {"garden"}
    with HistoryFile(path, fleet := Fleet()):
        fleet.take("emotiond/pi/status", "", NOW)
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM bins").fetchone() == (0,)


def test_what_was_forgotten_is_not_to_be_read_in_any_file(tmp_path: Path, clock: list[float]) -> None:
    with HistoryFile(tmp_path / "history.sqlite", fleet := Fleet()) as file:
        for camera in ("front", "garden"):
            see(fleet, camera, NOW)
        file._save(NOW)
        assert b"garden" in (tmp_path / "history.sqlite").read_bytes()
        fleet.take("emotiond/pi/garden/status", "", NOW)
        file._save(NOW)
        assert [path.name for path in tmp_path.iterdir() if b"garden" in path.read_bytes()] == []
        see(fleet, "front", NOW + 20)
    with HistoryFile(tmp_path / "history.sqlite", fleet := Fleet()):
        assert series(fleet, "front") == [0]


def test_a_file_that_is_in_use_or_is_none_of_ours_is_told(tmp_path: Path) -> None:
    with HistoryFile(tmp_path / "history.sqlite", Fleet()):
        with pytest.raises(ConfigError, match="database is locked; does another dashboard use it"):
            HistoryFile(tmp_path / "history.sqlite", Fleet()).__enter__()
    (tmp_path / "notes.txt").write_text("no database, but a text that is long enough to be taken for one" * 10)
    with pytest.raises(ConfigError, match="notes.txt: file is not a database"):
        HistoryFile(tmp_path / "notes.txt", Fleet()).__enter__()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "edge", "web", "--port", str(free_port()), "--history", "missing/history.sqlite"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=LONG_S)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "emotiond: --history missing/history.sqlite: No such file or directory\n"


DAMAGE = {
    "a count of nobody": "UPDATE bins SET count = 0 WHERE camera = 'front'",
    "a text for a number": "UPDATE bins SET happy = 'x' WHERE camera = 'front'",
    "no number": "UPDATE bins SET start = 'x', happy = NULL WHERE camera = 'front'",
    "endless": "UPDATE bins SET happy = 9e999 WHERE camera = 'front'",
    "not UTF-8": "UPDATE bins SET camera = CAST(x'ff41' AS TEXT) WHERE camera = 'front'",
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_row_costs_that_row_alone(tmp_path: Path, clock: list[float], change: str) -> None:
    path, before, after = tmp_path / "history.sqlite", Fleet(), Fleet()
    with HistoryFile(path, before):
        for camera in ("front", "garden"):
            see(before, camera, NOW)
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute(change)
    with HistoryFile(path, after):
        assert series(after, "front") == []
        assert series(after, "garden") == [0]


@pytest.mark.parametrize("at", [0, 4096, 3 * 4096], ids=["its head", "a root", "rows"])
def test_a_damaged_file_is_put_aside_and_the_dashboard_starts(
    tmp_path: Path, start: Callable[..., Daemon], broker: Broker, clock: list[float], at: int
) -> None:
    path, before = tmp_path / "history.sqlite", Fleet()
    with HistoryFile(path, before):
        for number in range(400):
            see(before, f"camera {number}", NOW)
    content = bytearray(path.read_bytes())
    content[at : at + 4096] = bytes(4096)  # as a power cut leaves pages
    path.write_bytes(content)
    options = ["--set", "mqtt.broker=127.0.0.1", "--set", f"mqtt.port={broker.port}"]
    web = start("web", "--port", str(free_port()), *options, env={"STATE_DIRECTORY": str(tmp_path)})
    assert web.process.stdout is not None
    assert web.process.stdout.readline().startswith("http://")
    web.process.terminate()
    code, _, log = web.finish(LONG_S)
    assert code == 0
    assert f"--history {path} is damaged" in log
    assert path.with_name("history.sqlite.damaged").read_bytes() == content
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM bins").fetchone() == (0,)


def test_sigterm_while_it_starts_ends_it_without_a_word(start: Callable[..., Daemon], broker: Broker) -> None:
    options = ["--set", "mqtt.broker=127.0.0.1", "--set", f"mqtt.port={broker.port}"]
    for _ in range(3):
        web = start("web", "--port", str(free_port()), *options)
        assert web.process.stdout is not None
        assert web.process.stdout.readline().startswith("http://")
        web.process.terminate()
        code, _, log = web.finish(LONG_S)
        assert (code, log) == (0, "")


def test_nobody_else_may_read_it(tmp_path: Path, lax_umask) -> None:
    path = tmp_path / "history.sqlite"
    for _ in range(2):
        with HistoryFile(path, Fleet()):
            assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)  # as an earlier version left it
    (tmp_path / "notes.txt").write_text("another's file, which is not touched for a slip of the hand" * 10)
    with pytest.raises(ConfigError):
        HistoryFile(tmp_path / "notes.txt", Fleet()).__enter__()
    assert (tmp_path / "notes.txt").stat().st_mode & 0o777 == 0o666


def test_a_disk_that_takes_nothing_is_told_once_and_tried_again(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path, fleet = tmp_path / "history.sqlite", Fleet()
    with HistoryFile(path, fleet) as file:
        file._file.execute("PRAGMA query_only=ON")
        see(fleet, "front", NOW)
        for _ in range(3):
            file._save(NOW)
        assert caplog.text.count("kept in memory, and tried again") == 1
        file._file.execute("PRAGMA query_only=OFF")
    with HistoryFile(path, after := Fleet()):
        assert series(after, "front") == [0]


def test_what_was_forgotten_while_the_disk_took_nothing_goes_when_it_does(tmp_path: Path, clock: list[float]) -> None:
    path, fleet = tmp_path / "history.sqlite", Fleet()
    with HistoryFile(path, fleet) as file:
        see(fleet, "front", NOW)
        file._save(NOW)
        file._file.execute("PRAGMA query_only=ON")
        fleet.take("emotiond/pi/front/status", "", NOW)
        file._save(NOW)
        see(fleet, "garden", NOW)
        file._file.execute("PRAGMA query_only=OFF")
    assert {row[0] for row in sqlite3.connect(path).execute("SELECT camera FROM bins")} == {"garden"}


def test_what_is_forgotten_while_it_is_saved_does_not_come_back(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fleet = tmp_path / "history.sqlite", Fleet()
    asked = fleet.bins_after

    def forget_meanwhile(at: float) -> list[tuple[tuple[str, str], int, list[float]]]:
        bins = asked(at)
        fleet.take("emotiond/pi/front/status", "", NOW)
        return bins

    with HistoryFile(path, fleet) as file:
        see(fleet, "front", NOW)
        monkeypatch.setattr(fleet, "bins_after", forget_meanwhile)
        file._save(NOW)
        monkeypatch.undo()
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM bins").fetchone() == (0,)


def test_a_real_dashboard_keeps_it_and_by_default_in_systemds_folder(
    start: Callable[..., Daemon], broker: Broker, subscribe: Callable[..., Subscriber], tmp_path: Path
) -> None:
    options = ["--set", "mqtt.broker=127.0.0.1", "--set", f"mqtt.port={broker.port}"]
    web = start("web", "--port", str(free_port()), *options, env={"STATE_DIRECTORY": str(tmp_path)})
    assert web.process.stdout is not None
    assert web.process.stdout.readline().startswith("http://")
    viewer = subscribe(broker.port)
    start("run", *plain(broker.port))
    wait_for(lambda: len([text for text in viewer.texts("emotiond/pi/camera/faces") if "track" in text]) > 5, "faces")
    web.process.terminate()
    assert web.finish(LONG_S)[0] == 0
    rows = sqlite3.connect(tmp_path / "history.sqlite").execute("SELECT device, camera, SUM(count) FROM bins")
    device, camera, count = rows.fetchone()
    assert (device, camera) == ("pi", "camera")
    assert count > 5
