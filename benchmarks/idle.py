"""What the daemon takes while nothing happens: a still room without anybody in it, seen by a noisy camera."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.daemon import Daemon, Inbox
from benchmarks.measure import stamp
from benchmarks.stream import Stream
from benchmarks.worker import Worker
from edge.broker import EmbeddedBroker
from edge.config import MqttConfig
from edge.errors import EmotiondError
from edge.watch import Subscriber

FPS, SECONDS = 15.0, 20.0
SIZE = (640, 480)
NOISE = 3.0  # grey levels, standard deviation: a webcam's in a lit room
NOISY_FRAMES = 30


def run(overrides: Sequence[str] = (), seconds: float = SECONDS) -> dict[str, Any]:
    """Processor time of the daemon on a still stream, in percent of one core, and of only reading that stream.

    seconds: that count; as many before them do not. Raises EmotiondError.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emotiond-bench-")))
        stream = stack.enter_context(Stream(_write_room(folder / "room.avi"), FPS))
        reader = stack.enter_context(Worker("reader"))
        broker = stack.enter_context(EmbeddedBroker(None)).settings(MqttConfig())
        inbox = Inbox()
        stack.enter_context(Subscriber(broker, inbox.write, everything=True, raw=True))
        alone = reader.turn(url=stream.url, seconds=seconds)
        fixed = [f"mqtt.stats_interval_s={seconds}", *overrides]
        daemon = stack.enter_context(Daemon(stream.url, broker, inbox, fixed))
        before = daemon.message("stats", seconds)
        cpu_before_s = daemon.cpu_s()
        after = daemon.message("stats", seconds)
        cpu_s = daemon.cpu_s() - cpu_before_s
    if before is None or after is None:
        raise EmotiondError("the daemon ended before its stream did")
    took_s = after[0] - before[0]
    if not after[1]["fps_out"]:
        raise EmotiondError("the daemon took no frame of the stream")
    return {
        **stamp(),
        "overrides": list(overrides),
        "idle": {
            "fps": after[1]["fps_out"],
            "core_percent": 100 * cpu_s / took_s,
            "reading_core_percent": 100 * alone["cpu_s"] / (alone["frames"] / FPS),
            "still_frames": after[1]["still_frames"] - before[1]["still_frames"],
            "sweeps": after[1]["sweeps"] - before[1]["sweeps"],
        },
    }


def _write_room(path: Path) -> Path:
    """A wall with a window and a shelf, as Motion JPEG."""
    random = np.random.default_rng(0)
    width, height = SIZE
    room = np.linspace(110, 150, width, dtype=np.float32)[None, :].repeat(height, 0)
    room[60:240, 80:260] = 205
    room[300:320, 340:600] = 70
    for left in range(350, 590, 24):
        room[230:300, left : left + 18] = random.uniform(50, 180)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, SIZE)
    for _ in range(NOISY_FRAMES):
        writer.write(_noisy(room, random))
    writer.release()
    return path


def _noisy(room: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    grey = np.clip(room + random.normal(0, NOISE, room.shape), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
