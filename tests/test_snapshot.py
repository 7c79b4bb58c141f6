"""Pictures for who asks: from the real daemon over a real broker, only where the settings allow them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from conftest import Broker, Daemon, Subscriber, plain, wait_for
from edge import snapshot
from edge.config import MqttConfig
from edge.messages import Topics
from edge.snapshot import ASKED_FOR_S, Snapshots, as_jpeg
from fakes import frame
from mjpeg_server import MjpegCamera

LOOK, SNAPSHOT = "emotiond/pi/camera/look", "emotiond/pi/camera/snapshot"
CORNERS = {(0, 0): (20, 40, 220), (0, 1): (30, 200, 40), (1, 0): (210, 60, 30), (1, 1): (240, 240, 240)}  # BGR


def scene() -> np.ndarray:
    """A colour in each corner."""
    image = np.zeros((480, 640, 3), np.uint8)
    for (row, column), colour in CORNERS.items():
        image[row * 240 : row * 240 + 240, column * 320 : column * 320 + 320] = colour
    return image


def shows_the_scene(picture: bytes, width: int) -> bool:
    """Whether it decodes, is so wide, and has the colours where they belong."""
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.resize(scene(), (width, width * 3 // 4), interpolation=cv2.INTER_AREA)
    return image.shape == expected.shape and float(np.abs(image.astype(int) - expected).mean()) < 4


def pictures(subscriber: Subscriber) -> list[bytes]:
    return [text.encode(errors="surrogateescape") for text in subscriber.texts(SNAPSHOT)]


@pytest.fixture
def watched(start: Callable[..., Daemon], broker: Broker, tmp_path: Path) -> Callable[..., None]:
    """Starts the daemon on the scene."""
    folder = tmp_path / "scene"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), scene())
    files = {"camera.loop": True, "camera.realtime": True, "mqtt.live_rate_hz": 50.0}

    def run(**extra: object) -> None:
        mqtt = {f"mqtt.{key}": value for key, value in extra.items()}
        start("run", "--source", str(folder), *plain(broker.port, **files, **mqtt))

    return run


def wait_for_frames(subscriber: Subscriber, count: int) -> None:
    """Until the daemon has looked at so many more."""
    faces = "emotiond/pi/camera/faces"
    seen = len(subscriber.texts(faces))
    wait_for(lambda: len(subscriber.texts(faces)) >= seen + count, f"{count} frames")


@pytest.mark.parametrize("allowed", [True, False])
def test_who_asks_sees_the_frame_only_if_the_device_allows_it(
    watched: Callable[..., None], broker: Broker, subscribe: Callable[..., Subscriber], allowed: bool
) -> None:
    viewer = subscribe(broker.port)
    watched(commands=True, stats_interval_s=0.5, **({"snapshots": True, "snapshot_width": 320} if allowed else {}))
    wait_for_frames(viewer, 3)
    assert pictures(viewer) == []  # nobody asked
    viewer.publish(LOOK, "")
    wait_for_frames(viewer, 30)
    if allowed:
        wait_for(lambda: len(pictures(viewer)) >= 2, "pictures")
    assert bool(pictures(viewer)) == allowed
    assert all(shows_the_scene(picture, 320) for picture in pictures(viewer))
    wait_for(lambda: viewer.texts("emotiond/pi/stats"), "stats")
    assert f'"snapshots":{str(allowed).lower()}' in viewer.texts("emotiond/pi/stats")[-1]
    assert SNAPSHOT not in {topic for topic, _, retained in subscribe(broker.port).messages if retained}


def test_pictures_come_no_faster_than_the_settings_say(
    watched: Callable[..., None], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    viewer = subscribe(broker.port)
    watched(snapshots=True, snapshot_rate_hz=0.001)
    wait_for_frames(viewer, 1)
    for _ in range(5):
        viewer.publish(LOOK, "")
    wait_for_frames(viewer, 40)
    assert len(pictures(viewer)) == 1


def test_a_retained_question_is_not_answered_for_ever(
    watched: Callable[..., None], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    viewer = subscribe(broker.port)
    viewer.publish(LOOK, "x", retain=True)
    watched(snapshots=True)
    wait_for_frames(viewer, 30)
    assert pictures(viewer) == []
    viewer.publish(LOOK, "")
    wait_for(lambda: pictures(viewer), "a picture for who asks now")


class Connection:
    """What is published and subscribed to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.client = SimpleNamespace(subscribe=lambda topic, qos: None)

    def pass_on(self, topic: str, payload: bytes) -> int:
        self.sent.append((topic, payload))
        return len(self.sent)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(snapshot, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_pictures_end_when_nobody_asks_any_more_and_wait_for_a_slow_network(clock: list[float]) -> None:
    snapshots, connection = Snapshots(MqttConfig(snapshots=True), Topics("emotiond", "pi"), "camera"), Connection()
    snapshots.begin(connection)
    assert not snapshots.offer(frame())
    assert snapshots.hears(SimpleNamespace(topic=LOOK, retain=False))
    assert snapshots.offer(frame())
    assert not snapshots.offer(frame())  # one is on its way
    snapshots.send(connection)
    clock[0] += 5
    assert not snapshots.offer(frame())  # and not written yet
    snapshots.written(7)
    assert not snapshots.offer(frame())
    snapshots.written(1)
    assert snapshots.offer(frame())
    snapshots.send(connection)
    clock[0] += 1
    snapshots.begin(connection)
    assert snapshots.offer(frame())  # what was on its way went with the connection before
    snapshots.send(connection)
    snapshots.written(3)
    clock[0] += ASKED_FOR_S - 6
    assert not snapshots.offer(frame())
    assert [topic for topic, _ in connection.sent] == [SNAPSHOT] * 3


@pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640), (3000, 20, 3), (1, 5000, 3), (16, 16, 3)])
def test_every_frame_becomes_a_small_picture(shape: tuple[int, ...]) -> None:
    image = cv2.imdecode(np.frombuffer(as_jpeg(np.full(shape, 90, np.uint8), 480), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] == min(480, shape[1])


def test_pictures_that_a_reload_allows_have_their_colours(service, broker: Broker, subscribe) -> None:
    """Without them a camera's frames are grey from where they come."""
    server, viewer = MjpegCamera([scene()]), subscribe(broker.port)
    running = service(camera={"source": server.url})
    wait_for(lambda: "online" in viewer.texts("emotiond/pi/camera/status"), "frames")
    running.reload(camera={"source": server.url}, mqtt={"snapshots": True, "snapshot_width": 320})

    def arrives() -> bool:
        viewer.publish(LOOK, "")
        return bool(pictures(viewer))

    wait_for(arrives, "a picture")
    assert shows_the_scene(pictures(viewer)[0], 320)
    running.stop()
    server.close()
