"""No event is lost, whatever breaks: the broker is killed, the network is cut, the process is killed.

The short form belongs to the ordinary tests; `make soak` runs the long one.
"""

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import PATIENCE_S, ROOT, Broker, Subscriber, wait_for
from proxy import Proxy

MARKER = "emotiond/marker/marker/events"
UNLIMITED = "allow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0"
KINDS = ["reset", "truncated", "blackhole"]


class Publisher:
    """tests/publisher.py, and what it said."""

    def __init__(self, port: int, folder: Path, first: int, last: int, rate: float = 250) -> None:
        self.made, self.kept, self.sent = first - 1, first - 1, False
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests/publisher.py", *map(str, (port, folder, first, last, rate))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            word, _, number = line.strip().partition(" ")
            if word == "made":
                self.made = int(number)
            elif word == "kept":
                self.kept = int(number)
            self.sent |= word == "sent"

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> str:
        """kill -9; returns what it said on standard error."""
        self.process.kill()
        self._reader.join()  # what it said before is all read
        error = self.process.stderr.read()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        return error


class Scene:
    """Publisher -> proxy -> broker -> subscriber, and what happens to them."""

    def __init__(self, broker: Broker, folder: Path, subscribe: Callable[..., Subscriber], last: int) -> None:
        self.broker, self.folder, self._subscribe, self.last = broker, folder, subscribe, last
        self.proxy = Proxy(broker.port)
        self.subscriber = subscribe(broker.port, "emotiond/+/+/events")
        self.kept: set[int] = set()
        self.first = 1
        self._arrived: list[dict] = []
        self._looked_at = 0
        self.publisher = Publisher(self.proxy.port, folder, 1, last)

    def wait_for_events(self, count: int) -> None:
        """Until `count` more are kept, or all are."""
        goal = min(self.publisher.kept + count, self.last)
        wait_for(lambda: self.publisher.kept >= goal or not self.publisher.alive(), f"event {goal} is kept", 300)
        assert self.publisher.alive(), self.publisher.kill()

    def kill_the_broker(self) -> None:
        # What a broker acknowledged and then loses before the subscriber has it is the broker's loss. So it is killed
        # with messages under way whose acknowledgement the publisher has not seen, and no others.
        self.proxy.swallow_replies = True
        before = len(self.subscriber.texts(MARKER))
        self.subscriber.publish(MARKER, "")
        wait_for(lambda: len(self.subscriber.texts(MARKER)) > before, "the subscriber is up to date")
        self.proxy.refusing = True
        self.broker.kill()
        self.proxy.swallow_replies = False
        assert self.subscriber.lost.wait(PATIENCE_S)
        self.broker.start()
        before, self.subscriber = self.subscriber, self._subscribe(self.broker.port, "emotiond/+/+/events")
        before.close()
        self.subscriber.messages[:0] = before.messages  # nothing comes before the proxy lets the publisher in
        self.proxy.refusing = False

    def cut_the_network(self, kind: str) -> None:
        if kind == "truncated":
            self.proxy.truncate(random.randrange(1, 4000))
        else:
            self.proxy.blackhole = kind == "blackhole"
            self.wait_for_events(20)
            self.proxy.blackhole = False
            self.proxy.cut()

    def kill_the_publisher(self) -> None:
        self._take_leave()
        self.first = self.publisher.made + 1
        self.publisher = Publisher(self.proxy.port, self.folder, self.first, self.last)

    def _take_leave(self) -> None:
        error = self.publisher.kill()
        assert "Traceback" not in error, error
        self.kept |= set(range(self.first, self.publisher.kept + 1))

    def finish(self) -> list[dict]:
        """Everything that arrived, in order, once all was acknowledged."""
        wait_for(lambda: self.publisher.sent or not self.publisher.alive(), "all is acknowledged", 300)
        self._take_leave()
        with contextlib.suppress(AssertionError):  # what is missing is told better by the caller
            wait_for(self._all_arrived, "all arrived", 60)
        return self._arrived

    def _all_arrived(self) -> bool:
        for topic, text, _ in self.subscriber.messages[self._looked_at :]:
            self._looked_at += 1
            if topic != MARKER:
                self._arrived.append(json.loads(text))
        return self.kept <= {event["frame"][0] for event in self._arrived}


@pytest.fixture
def scene(broker_at, tmp_path: Path, subscribe) -> Iterator[Callable[[int], Scene]]:
    running: list[Scene] = []

    def begin(last: int) -> Scene:
        running.append(Scene(broker_at(UNLIMITED), tmp_path / "state", subscribe, last))
        return running[-1]

    yield begin
    for each in running:
        if not each.publisher.process.stderr.closed:
            each.publisher.kill()
        each.proxy.close()


def endure(scene: Scene, broker_kills: int, cuts: int, process_kills: int) -> None:
    faults: list[Callable[[], None]] = [scene.kill_the_broker] * broker_kills
    faults += [lambda kind=KINDS[n % 3]: scene.cut_the_network(kind) for n in range(cuts)]
    faults += [scene.kill_the_publisher] * process_kills
    random.Random(6).shuffle(faults)
    for fault in faults:
        scene.wait_for_events(max(1, (scene.last - scene.publisher.kept) // (2 * len(faults))))
        fault()
    arrived = scene.finish()

    numbers = [event["frame"][0] for event in arrived]
    lost = scene.kept - set(numbers)
    firsts = list(dict.fromkeys(numbers))  # each number where it came first
    by_face: dict[int, list[int]] = {}
    for number in firsts:
        by_face.setdefault(number % 5, []).append(number)
    by_number: dict[int, set[str]] = {}
    for event in arrived:
        by_number.setdefault(event["frame"][0], set()).add(json.dumps(event))
    print(
        f"{len(scene.kept)} kept, {len(set(numbers))} arrived, {len(lost)} lost, {len(numbers) - len(firsts)} repeats,"
        f" {scene.last - len(set(numbers))} never kept in {process_kills} kills of the process,"
        f" {scene.proxy.accepted} connections"
    )
    assert lost == set(), sorted(lost)
    assert all(face == sorted(face) for face in by_face.values())
    assert all(len(texts) == 1 for texts in by_number.values()), "a repeat differs from the first"
    ids = [next(iter(texts)) for texts in by_number.values()]
    assert len({json.loads(text)["id"] for text in ids}) == len(ids)
    # What was made and never kept is what a kill -9 may take: the events since the last look at the file.
    assert scene.last - len(set(numbers)) <= 10 * process_kills


def test_no_event_is_lost_and_none_overtakes_another(scene: Callable[[int], Scene]) -> None:
    endure(scene(400), broker_kills=3, cuts=3, process_kills=2)


@pytest.mark.soak
def test_no_event_of_ten_thousand_is_lost(scene: Callable[[int], Scene], capsys: pytest.CaptureFixture) -> None:
    with capsys.disabled():
        endure(scene(10_000), broker_kills=50, cuts=50, process_kills=20)


def test_what_an_earlier_process_left_is_sent_before_anything_new(scene: Callable[[int], Scene]) -> None:
    stage = scene(60)
    stage.proxy.blackhole = True
    stage.wait_for_events(60)
    stage.publisher.process.send_signal(signal.SIGKILL)
    stage.publisher.process.wait(PATIENCE_S)
    stage.proxy.blackhole = False
    stage.last = 80
    stage.kill_the_publisher()
    assert [event["frame"][0] for event in stage.finish()] == list(range(1, 81))


def test_a_damaged_row_costs_one_event_and_not_the_service(scene: Callable[[int], Scene], tmp_path: Path) -> None:
    stage = scene(60)
    stage.proxy.blackhole = True
    stage.wait_for_events(60)
    stage.publisher.kill()
    connection = sqlite3.connect(tmp_path / "state/events.db")
    with connection:
        connection.execute("UPDATE events SET topic = replace(topic, '/', '+') WHERE number = 7")
        connection.execute("UPDATE events SET topic = CAST(x'ff' || topic AS TEXT) WHERE number = 17")
    connection.close()
    stage.proxy.blackhole = False
    stage.first, stage.last = 61, 80
    stage.publisher = Publisher(stage.proxy.port, stage.folder, stage.first, stage.last)
    assert [event["frame"][0] for event in stage.finish()] == sorted({*range(1, 81)} - {7, 17})


def test_files_that_are_deleted_under_the_process_cost_no_event(scene: Callable[[int], Scene]) -> None:
    stage = scene(60)
    stage.proxy.blackhole = True
    stage.wait_for_events(20)
    shutil.rmtree(stage.folder)
    stage.wait_for_events(60)
    wait_for((stage.folder / "events.db").exists, "they are there again")
    stage.publisher.process.kill()
    stage.publisher.process.wait(PATIENCE_S)
    stage.proxy.blackhole = False
    stage.last = 80
    stage.kill_the_publisher()
    assert [event["frame"][0] for event in stage.finish()] == list(range(1, 81))


def resident_mb(process: subprocess.Popen) -> float:
    """Memory of the process alone, without the pages of files that the kernel may drop."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1000


@pytest.mark.soak
def test_an_hour_without_a_broker_costs_disk_and_not_memory(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """36,000 events, as an hour brings at 10 a second, made as fast as they can be kept."""
    proxy = Proxy(broker.port)
    proxy.refusing = True
    publisher = Publisher(proxy.port, tmp_path / "state", 1, 36_000, rate=0)
    try:
        wait_for(lambda: publisher.kept >= 1000, "the first thousand is kept", 300)
        before = resident_mb(publisher.process)
        wait_for(lambda: publisher.kept == 36_000, "all are kept", 600)
        grown = resident_mb(publisher.process) - before
        proxy.refusing = False
        began_at = time.monotonic()
        wait_for(lambda: publisher.sent, "all are delivered", 600)
        with capsys.disabled():
            took_s = time.monotonic() - began_at
            print(f"36,000 events without a broker: memory grew by {grown:.1f} MB; delivered in {took_s:.1f} s")
        assert grown < 5
    finally:
        publisher.kill()
        proxy.close()
