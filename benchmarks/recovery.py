"""How soon the real daemon, with its shipped settings, works again once its camera or its broker is back."""

import os
import queue
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import clips
from benchmarks.daemon import DEVICE, PATIENCE_S, Daemon, Inbox
from benchmarks.measure import free_port, stamp
from benchmarks.stream import Stream
from edge.config import MqttConfig
from edge.errors import ConfigError, ServiceUnavailableError
from edge.watch import Subscriber

CYCLES, AWAYS_S = 3, (2.0, 20.0, 50.0)
STREAM_FPS = 15.0
LOOK_S = 0.02
SETTLE_S = 4.0  # before the next loss: a connection that stood for less than two seconds counts as the same outage


def run(overrides: Sequence[str] = (), cycles: int = CYCLES, aways_s: Sequence[float] | None = None) -> dict[str, Any]:
    """Take the camera, then the broker, away for each of `aways_s`, `cycles` times; seconds from the moment that it
    takes connections again until the daemon says `online` to a subscriber. The camera is away until it is missed at
    least.
    """
    with ExitStack() as stack:
        clip = stack.enter_context(clips.opened([]))[0].path
        broker = stack.enter_context(_Broker())
        camera = stack.enter_context(_Camera(clip))
        inbox = Inbox()
        # The subscriber comes back at once: what is measured is the daemon.
        seen = MqttConfig(broker="127.0.0.1", port=broker.port, retry_min_s=0.1, retry_max_s=0.1)
        stack.enter_context(Subscriber(seen, inbox.write, raw=True))
        stack.enter_context(Daemon(camera.url, seen, inbox, overrides))
        _wait_for(inbox, "camera/status")
        rows = []
        for part, what in ((camera, "camera"), (broker, "broker")):
            for away_s in aways_s or AWAYS_S:
                taken = [_cycle(part, what, away_s, inbox) for _ in range(cycles)]
                rows.append(
                    {
                        "lost": what,
                        "away_s": away_s,
                        "cycles": cycles,
                        "median_s": float(np.median(taken)),
                        "max_s": max(taken),
                    }
                )
    return {**stamp(), "overrides": list(overrides), "rows": rows}


def _cycle(part: "_Camera | _Broker", what: str, away_s: float, inbox: Inbox) -> float:
    if what == "broker":
        time.sleep(SETTLE_S)
    part.stop()
    gone_at = time.monotonic()
    if what == "camera":  # one that is back before it is missed is never said to be online again
        _wait_for(inbox, "camera/status", "offline")
    time.sleep(max(0.0, gone_at + away_s - time.monotonic()))
    inbox.clear()
    part.start()
    back_at = time.monotonic()
    online_at = _wait_for(inbox, "camera/status" if what == "camera" else "status")
    return max(0.0, online_at - back_at)


def _wait_for(inbox: Inbox, topic: str, status: str = "online") -> float:
    """When the next such status came there. Raises ServiceUnavailableError."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < deadline:
        try:
            at, heard, text = inbox.get(1.0)
        except queue.Empty:
            continue
        if heard == f"{MqttConfig().base_topic}/{DEVICE}/{topic}" and text == status:
            return at
    raise ServiceUnavailableError(f"the daemon did not say {status} on {topic} within {2 * PATIENCE_S:.0f} s")


class _Camera:
    """A stream that can be taken away; it comes back at its address."""

    def __init__(self, clip: Path) -> None:
        self._stream = Stream(clip, STREAM_FPS, free_port())

    def __enter__(self) -> "_Camera":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it takes connections."""
        self._stream.__enter__()
        self.url = self._stream.url

    def stop(self) -> None:
        self._stream.__exit__()


class _Broker:
    """A mosquitto that can be killed; it comes back on its port and has forgotten everything."""

    def __enter__(self) -> "_Broker":
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        if program is None:
            raise ConfigError("recovery: mosquitto is not installed: sudo apt-get install mosquitto")
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        config = Path(self._folder.name) / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n")
        self._command = [program, "-c", str(config)]
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Returns when it takes connections."""
        self._child = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise ServiceUnavailableError(f"mosquitto does not listen on port {self.port}")
            time.sleep(LOOK_S)

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()
