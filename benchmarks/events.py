"""Events end to end: the daemon's own spool and link in a process, a broker, a subscriber.

    python -m benchmarks.events PORT RATE SECONDS [FOLDER]

is the process that publishes; it prints when it left which event with the link.
"""

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.daemon import PATIENCE_S, Inbox
from benchmarks.measure import ROOT, percentiles, stamp
from edge.broker import EmbeddedBroker
from edge.config import MqttConfig, SpoolConfig
from edge.connection import Dialer
from edge.errors import EmotiondError, ServiceUnavailableError, UsageError
from edge.labels import EMOTIONS
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.policy import uuid7
from edge.records import Box, Event, Reading, Scores, Track
from edge.spool import Spool
from edge.watch import Subscriber

RATE, SECONDS = 200.0, 20.0
WARM_UP_S = 1.0
EVENTS_MIN = 2  # that count: one has no rate


def run(rate: float = RATE, seconds: float = SECONDS) -> dict[str, Any]:
    """`rate` events a second for `seconds`, with the spool on disk and in memory: delays from the moment an event is
    left with the link until the subscriber has it, in ms.
    """
    if rate * seconds < EVENTS_MIN:
        raise UsageError(f"events: fewer than two in {seconds:g} s at {rate:g} a second: raise --rate or --seconds")
    with EmbeddedBroker(None) as broker, tempfile.TemporaryDirectory() as folder:
        settings = broker.settings(MqttConfig())
        inbox = Inbox()
        with Subscriber(settings, inbox.write, raw=True):
            rows = [_measure(spool, inbox, settings, rate, seconds, folder) for spool in ("disk", "memory")]
        return {**stamp(), "broker": broker.kind, "rate": rate, "rows": rows}


def _measure(spool: str, inbox: Inbox, broker: MqttConfig, rate: float, seconds: float, folder: str) -> dict[str, Any]:
    inbox.clear()
    command = [sys.executable, "-m", "benchmarks.events", broker.port, rate, seconds + WARM_UP_S]
    command += [folder] if spool == "disk" else []
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ServiceUnavailableError(f"the publisher ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    said = json.loads(done.stdout)
    left_at: dict[str, float] = said["left_at"]
    arrived_at: dict[str, float] = {}
    repeats, deadline = 0, time.monotonic() + PATIENCE_S
    with contextlib.suppress(queue.Empty):
        while len(arrived_at) < len(left_at) and time.monotonic() < deadline:
            at, topic, text = inbox.get(PATIENCE_S)
            if topic.endswith("/events"):
                identity = json.loads(text)["id"]
                repeats += identity in arrived_at
                arrived_at.setdefault(identity, at)
    counted = counting(left_at, arrived_at)
    delays = percentiles([1000 * (arrived_at[one] - at) for one, at in counted.items() if one in arrived_at])
    return {
        "spool": spool,
        "events": len(counted),
        "events_per_s": (len(counted) - 1) / (max(counted.values()) - min(counted.values())),
        "lost": len(left_at.keys() - arrived_at.keys()),
        "repeats": repeats,
        **{f"{name}_ms": value for name, value in delays.items()},
        "cpu_ms_per_event": said["cpu_ms_per_event"],
    }


def counting(left_at: dict[str, float], arrived_at: dict[str, float]) -> dict[str, float]:
    """Those events that were left after the warm-up. Raises EmotiondError if fewer than two of them arrived."""
    began_at = min(left_at.values()) + WARM_UP_S
    counted = {identity: at for identity, at in left_at.items() if at >= began_at}
    if len(counted.keys() & arrived_at.keys()) < EVENTS_MIN:
        raise EmotiondError(f"events: fewer than two that count arrived, of {len(left_at)}: raise --rate or --seconds")
    return counted


def publish(port: int, rate: float, seconds: float, folder: Path | None) -> dict[str, Any]:
    """Events at regular moments, until all are acknowledged; when each was left, and what one cost."""
    config = MqttConfig(broker="127.0.0.1", port=port)
    origin, topics = Origin("bench", "camera", "0" * 12), Topics(config.base_topic, "bench")
    scores = Scores(np.array([0.88 if each == "happy" else 0.02 for each in EMOTIONS], np.float32))
    reading = Reading(Track(1, Box(200, 100, 120, 120), 5, 0), scores, "happy")
    left_at: dict[str, float] = {}
    with Spool(SpoolConfig(folder=folder)) as spool:
        dialer = Dialer(config, "emotiond-bench")
        with MqttLink(config, dialer, topics, ["camera"], spool, lambda *_: None) as link:
            began_at, cpu_s = time.monotonic(), time.process_time()
            for number in range(round(rate * seconds)):
                time.sleep(max(0.0, began_at + number / rate - time.monotonic()))
                now = datetime.now(timezone.utc)
                event = Event(uuid7(), "update", reading, "neutral", (640, 480), now, now, 10.0)
                left_at[event.id] = time.monotonic()
                link.publish(event, origin)
                link.raise_failure()
            while link.queued:
                link.raise_failure()
                time.sleep(0.01)
            cpu_s = time.process_time() - cpu_s
    return {"left_at": left_at, "cpu_ms_per_event": 1000 * cpu_s / len(left_at)}


if __name__ == "__main__":
    place = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    sys.stdout.write(json.dumps(publish(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), place)))
