"""The daemon for a long time at a quick pace: everything comes and goes, and memory, threads and descriptors stay.

Time is accelerated: the clip plays three times as fast, and what happens in months happens in every round.
"""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from conftest import Broker, Daemon, Subscriber, plain, wait_for
from mjpeg_server import MjpegCamera
from proxy import Proxy

DEVICE_STATUS, CAMERA_STATUS = "emotiond/pi/status", "emotiond/pi/camera/status"
WARM_UP = 3  # rounds in which libraries make what they keep
GROWTH_MAX_MB = 5.0  # in a whole run: the allocator's grain, not a leak's slope
ROWS = 10  # of the curve that is printed


class Open(NamedTuple):
    """What a process holds."""

    minute: float
    memory_mb: float
    threads: int
    descriptors: int


def held(process: subprocess.Popen, began_at: float) -> Open:
    proc = Path(f"/proc/{process.pid}")
    anonymous_kb = int((proc / "status").read_text().partition("RssAnon:")[2].split()[0])
    counts = (len(list((proc / name).iterdir())) for name in ("task", "fd"))
    return Open((time.monotonic() - began_at) / 60, anonymous_kb / 1000, *counts)


class Round:
    """A camera, a network and a broker, all of which fail in turn before the daemon."""

    def __init__(self, frames: list, broker: Broker, subscribe: Callable[..., Subscriber], folder: Path) -> None:
        self.camera, self.broker, self.proxy = MjpegCamera(frames[::3]), broker, Proxy(broker.port)
        self._subscribe, self.subscriber = subscribe, subscribe(broker.port)
        self.settings = folder / "config.yaml"
        self.write_settings(threads=1)

    def write_settings(self, threads: int) -> None:
        camera = {"source": self.camera.url, "timeout_s": 2.0, "stale_after_s": 0.7}
        camera |= {"retry_min_s": 0.1, "retry_max_s": 0.2}
        self.settings.write_text(json.dumps({"camera": camera, "model": {"threads": threads}}))

    def close(self) -> None:
        self.camera.close()
        self.proxy.close()

    def said_last(self, topic: str) -> str | None:
        return (self.subscriber.texts(topic) or [None])[-1]

    def wait_until_all_is_well(self) -> None:
        wait_for(lambda: self.said_last(DEVICE_STATUS) == self.said_last(CAMERA_STATUS) == "online", "all is well")
        seen = len(self.subscriber.events())
        wait_for(lambda: len(self.subscriber.events()) > seen, "an event")

    def lose_the_camera(self, number: int) -> None:
        self.camera.mode = ("drop", "stall", "refuse", "garbage")[number % 4]
        wait_for(lambda: self.said_last(CAMERA_STATUS) == "offline", "the camera is offline")
        self.camera.mode = "run"
        wait_for(lambda: self.said_last(CAMERA_STATUS) == "online", "the camera is online")

    def lose_the_broker(self, number: int) -> None:
        accepted = self.proxy.accepted
        if number % 3:
            self.proxy.cut()
        else:
            self.broker.kill()
            assert self.subscriber.lost.wait(60)
            self.broker.start()
            self.subscriber.close()
            self.subscriber = self._subscribe(self.broker.port)
        wait_for(lambda: self.proxy.accepted > accepted, "the broker is called again")

    def command(self, process: subprocess.Popen) -> None:
        """Pause, resume, and a network that is exchanged and comes back."""
        self.subscriber.publish("emotiond/pi/cmd/pause", "")
        wait_for(lambda: self.said_last(CAMERA_STATUS) == "paused", "it pauses")
        self.subscriber.publish("emotiond/pi/cmd/resume", "")
        wait_for(lambda: self.said_last(CAMERA_STATUS) == "online", "it resumes")
        for threads in (2, 1):
            self.write_settings(threads)
            process.send_signal(signal.SIGHUP)
            seen = len(self.subscriber.texts("emotiond/pi/stats"))
            wait_for(lambda: len(self.subscriber.texts("emotiond/pi/stats")) > seen + 2, "it runs on")  # noqa: B023


@pytest.fixture
def scene(clip_frames, broker: Broker, subscribe, tmp_path: Path) -> Iterator[Round]:
    stage = Round(clip_frames, broker, subscribe, tmp_path)
    yield stage
    stage.close()


@pytest.mark.parametrize("minutes", [0.0, pytest.param(20.0, marks=pytest.mark.soak)])
def test_what_comes_and_goes_for_long_leaves_nothing_behind(
    scene: Round, start: Callable[..., Daemon], tmp_path: Path, minutes: float
) -> None:
    options = {"mqtt.commands": True, "mqtt.stats_interval_s": 0.3, "log.level": "error"}
    options |= {"mqtt.retry_max_s": 0.3, "spool.folder": str(tmp_path / "state"), "spool.sync_s": 0.1}
    daemon = start("run", "--config", str(scene.settings), *plain(scene.proxy.port, **options))
    began_at = time.monotonic()
    curve: list[Open] = []
    while len(curve) < WARM_UP + 2 or time.monotonic() < began_at + 60 * minutes:
        scene.wait_until_all_is_well()
        number = len(curve)
        scene.lose_the_camera(number)
        scene.lose_the_broker(number)
        scene.wait_until_all_is_well()
        scene.command(daemon.process)
        scene.wait_until_all_is_well()
        curve.append(held(daemon.process, began_at))
        with (tmp_path / "curve.jsonl").open("a") as file:
            file.write(json.dumps(curve[-1]) + "\n")
    code, _, err = daemon.stop()
    assert (code, "Traceback" in err) == (0, False), err

    warm = curve[WARM_UP:]
    slope_mb, _ = np.polyfit([one.minute for one in warm], [one.memory_mb for one in warm], 1)
    print(f"\n{len(curve)} rounds in {curve[-1].minute:.1f} minutes; memory by {1000 * slope_mb:+.1f} kB a minute")
    for one in curve[:: max(1, len(curve) // ROWS)]:
        print(f"{one.minute:5.1f} min {one.memory_mb:7.2f} MB {one.threads:3} threads {one.descriptors:3} descriptors")
    early, late = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    assert min(one.threads for one in late) <= max(one.threads for one in early)
    assert min(one.descriptors for one in late) <= max(one.descriptors for one in early)
    assert np.median([one.memory_mb for one in late]) - np.median([one.memory_mb for one in early]) < GROWTH_MAX_MB
