"""A camera that gives something else than pictures, or comes and goes for ever: nothing ends, nothing leaks."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import QUICK, Broker, Daemon, Subscriber, plain, wait_for
from edge.camera import LiveSource
from edge.config import CameraConfig
from mjpeg_server import MjpegCamera

CAMERA_STATUS, FACES = "emotiond/pi/camera/status", "emotiond/pi/camera/faces"


@pytest.fixture
def seeing(camera: MjpegCamera, broker: Broker, subscribe, start: Callable[..., Daemon]) -> tuple[Subscriber, Daemon]:
    """A daemon that has found a face on the camera, and who hears it."""
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", camera.url, *plain(broker.port, **QUICK))
    wait_for(lambda: subscriber.events(), "a face")
    return subscriber, daemon


def since_online(subscriber) -> list[str]:
    """What the camera was said to be since it was first online."""
    texts = subscriber.texts(CAMERA_STATUS)
    return texts[texts.index("online") :]


def test_black_pictures_show_nobody_and_are_no_less_online(camera: MjpegCamera, seeing) -> None:
    subscriber, daemon = seeing
    camera.mode = "black"
    wait_for(lambda: subscriber.events()[-1]["type"] == "end", "nobody is there")
    camera.mode = "run"
    wait_for(lambda: subscriber.events()[-1]["type"] != "end", "a face again")
    assert "offline" not in since_online(subscriber)
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False)


def test_pictures_of_another_size_are_gone_on_with(camera: MjpegCamera, seeing) -> None:
    """OpenCV scales them to the size at which the stream was opened, and takes the new one when it is opened again."""
    subscriber, daemon = seeing
    camera.mode = "resize"
    seen = len(subscriber.texts(FACES))
    wait_for(lambda: len(subscriber.texts(FACES)) > seen + 5, "faces all the same")
    assert "offline" not in since_online(subscriber)
    camera.mode = "drop"
    wait_for(lambda: not camera.clients, "the connection ends")
    camera.mode = "resize"
    wait_for(lambda: subscriber.events()[-1]["frame"] == [800, 600], "a face in the new size")
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False)


@pytest.mark.parametrize("fault", ["garbage", "slow"])
def test_what_is_no_stream_any_more_is_offline_and_comes_back(camera: MjpegCamera, seeing, fault: str) -> None:
    subscriber, daemon = seeing
    camera.mode = fault
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "offline", "the camera is reported offline")
    time.sleep(0.5)  # why is logged with the next picture that is none
    camera.mode = "run"
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "online", "the camera is reported online again")
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False)
    assert f"camera {camera.url} gives no" in err, "the log says why it was offline"
    assert f"camera {camera.url} is back" in err


def test_garbage_is_offline_also_where_most_frames_are_passed_over(
    camera: MjpegCamera, broker: Broker, subscribe, start
) -> None:
    subscriber = subscribe(broker.port)
    daemon = start("run", "--source", camera.url, *plain(broker.port, **QUICK, **{"camera.max_fps": 5.0}))
    wait_for(lambda: subscriber.events(), "a face")
    camera.mode = "garbage"
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "offline", "the camera is reported offline")
    daemon.stop()


def test_pictures_without_a_byte_are_passed_over(camera: MjpegCamera, broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    camera.mode = "gaps"
    daemon = start("run", "--source", camera.url, *plain(broker.port, **QUICK))
    wait_for(lambda: daemon.process.poll() or len(subscriber.texts(FACES)) > 20, "a face between them")
    code, _, err = daemon.stop()
    assert (code, err.count("bug")) == (0, 0)


def left_open() -> tuple[int, int]:
    """Threads and descriptors of this process."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("cycles", [15, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_camera_that_comes_and_goes_leaves_nothing_behind(clip_frames: list[np.ndarray], cycles: int) -> None:
    """Turned away, and the connection ended, in turn."""
    camera = MjpegCamera([clip_frames[60][::4, ::4]], fps=100)
    settings = CameraConfig(source=camera.url, timeout_s=2, stale_after_s=0.1, retry_min_s=0.05, retry_max_s=0.05)
    began_at, before = time.monotonic(), (0, 0)
    with LiveSource(settings) as source:

        def streams() -> bool:
            # A frame of the connection before may still wait to be taken.
            return camera.clients == 1 and source.take(0.1) is not None and source.online

        for cycle in range(cycles + 3):
            wait_for(streams, f"a frame in cycle {cycle}")
            if cycle == 3:  # FFmpeg has made what it keeps
                before = left_open()
            camera.mode = "refuse" if cycle % 2 else "drop"
            wait_for(lambda: not camera.clients and not source.online, f"offline in cycle {cycle}")
            camera.mode = "run"
        wait_for(streams, "a frame at the end")
        wait_for(lambda: max(map(int.__sub__, left_open(), before)) <= 0, f"not more open than {before}")
    print(
        f"{cycles} cycles in {time.monotonic() - began_at:.0f} s: {before} threads and descriptors, {left_open()} after"
    )
    camera.close()
    wait_for(lambda: "capture" not in {thread.name for thread in threading.enumerate()}, "the capture thread ends")


def test_a_camera_that_ends_with_each_picture_does_not_fill_the_log(camera: MjpegCamera, seeing) -> None:
    subscriber, daemon = seeing
    camera.mode = "single"  # as the address of a snapshot
    seen, served = len(subscriber.texts(FACES)), camera.served
    wait_for(lambda: camera.served > served + 10 and len(subscriber.texts(FACES)) > seen + 5, "many pictures")
    camera.mode = "refuse"
    wait_for(lambda: subscriber.texts(CAMERA_STATUS)[-1] == "offline", "it has gone")
    time.sleep(1)
    code, _, err = daemon.stop()
    said = [line for line in err.splitlines() if camera.url in line]
    assert (code, len(said) < 6) == (0, True), said
    assert said[-1].endswith("trying again"), "that it has gone is told"


def test_a_service_waits_for_its_only_camera(camera: MjpegCamera, service, broker, subscribe) -> None:
    subscriber = subscribe(broker.port)
    camera.mode = "refuse"  # it still boots
    running = service(camera={"source": camera.url})
    # Once for the process before and once for the camera, or, where the connection comes late, once for both.
    wait_for(lambda: set(subscriber.texts("emotiond/pi/camera/status")) == {"offline"}, "the camera's state")
    camera.mode = "run"
    wait_for(lambda: subscriber.texts("emotiond/pi/camera/status")[-1] == "online", "the camera is found")
    assert set(subscriber.texts("emotiond/pi/status")) == {"online"}
    said = running.stop()
    assert said.count("cannot be opened; trying again; is it on, and are its address, user and password right?") == 1
