"""What the daemon says about itself: to systemd, and as figures."""

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge import __version__
from edge.contract import SCHEMA_VERSION
from edge.messages import Origin, timestamp

LATENCIES_KEPT = 4096  # of the newest frames between two stats messages
FRAME_DROPS = ("superseded", "undecodable", "over_max_fps", "too_hot")  # by the camera; the other drops are messages
THERMAL_ZONE = Path("/sys/class/thermal/thermal_zone0/temp")  # m°C; the processor's on a Raspberry Pi


def is_service() -> bool:
    """Whether systemd started this process, and waits for its word (`Type=notify`)."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


class Notifier:
    """Tells systemd how it goes (sd_notify(3)); does nothing where nobody asked."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in Linux's abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        self._watchdog_s = int(watchdog_us) / 1e6 / 2 if watchdog_us.isdecimal() else None
        self._alive_due_at = 0.0

    def say(self, *lines: str) -> None:
        """`READY=1`, `STATUS=...`, `STOPPING=1`."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(lines).encode(), self._address)

    def reloading(self) -> None:
        """New settings are read; `READY=1` ends it."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self) -> None:
        """Feed the watchdog; call it from the loop only, as often as you like."""
        now = time.monotonic()
        if self._watchdog_s is not None and now >= self._alive_due_at:
            self._alive_due_at = now + self._watchdog_s
            self.say("WATCHDOG=1")


class Counters:
    """The loop's figures since the last stats message."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._began_at = self._started_at
        self._frames, self._drops_before = 0, 0
        self.done = 0
        """Frames since the start."""
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def source_changed(self) -> None:
        """Another source's drops are counted from now on: they begin at 0."""
        self._drops_before = 0

    def frame_done(self, captured_at: float) -> None:
        """A frame's events were handed on."""
        self._frames += 1
        self.done += 1
        self._latencies_ms.append((time.monotonic() - captured_at) * 1000)

    def stats_message(
        self, origin: Origin, runtime: str, drops: Mapping[str, int], queued: int, work: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The figures since the last call; drops are totals since the start, by cause.

        work: what the search says of itself and how it is slowed down, as it is.
        """
        now = time.monotonic()
        seconds = max(now - self._began_at, 1e-3)
        not_processed = sum(drops.get(cause, 0) for cause in FRAME_DROPS)
        arrived = self._frames + not_processed - self._drops_before
        latency_ms = None
        if self._latencies_ms:
            p50, p95, p99 = np.percentile(list(self._latencies_ms), [50, 95, 99])
            latency_ms = {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "p99": round(float(p99), 1)}
        message = {
            "v": SCHEMA_VERSION,
            "device": origin.device,
            "camera": origin.camera,
            "fps_in": round(arrived / seconds, 1),
            "fps_out": round(self._frames / seconds, 1),
            "latency_ms": latency_ms,
            "drops": dict(drops),
            **work,
            "queue": queued,
            "temperature_c": temperature_c(),
            "uptime_s": round(now - self._started_at),
            "version": __version__,
            "model": origin.model,
            "runtime": runtime,
            "at": timestamp(datetime.now(timezone.utc)),
        }
        self._began_at, self._frames, self._drops_before = now, 0, not_processed
        self._latencies_ms.clear()
        return message


def temperature_c() -> float | None:
    """The processor's, in degrees Celsius; None where it is not told."""
    try:
        return int(THERMAL_ZONE.read_text()) / 1000
    except (OSError, ValueError):
        return None
