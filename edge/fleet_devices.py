"""Simulated devices of `fleet-sim`, in a process of their own: the daemon's dialer, link and spool, and no camera."""

import contextlib
import random
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection as Pipe

import numpy as np

from edge.config import MqttConfig, SpoolConfig
from edge.connection import CONNACK_TIMEOUT_S, Connection, Dialer, Prepare
from edge.console import set_up_logging
from edge.errors import EmotiondError, ServiceUnavailableError
from edge.labels import EMOTIONS
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.policy import uuid7
from edge.records import Box, Event, Reading, Scores, Track
from edge.spool import Spool

MODEL = "0" * 12
CAMERA = "camera"
START_S = 600.0  # a cluster may take a tenth of a second for each new session


@dataclass(frozen=True)
class Plan:
    """What the whole fleet does: so many `devices` with `rate` events/s each, for `seconds`, below the topic `base`."""

    config: MqttConfig
    base: str
    devices: int
    rate: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How it went for the devices of one process."""

    outages: list[tuple[float, float]]
    """Monotonic seconds: connection lost at, and connected again at."""
    offline: int
    queued: int
    drops: int
    cpu_s: float


def run(pipe: Pipe, plan: Plan, numbers: Sequence[int], log_level: str) -> None:
    """Be the devices of these numbers, in step with the process at the other end of the pipe.

    Sends True when all are connected, and takes the monotonic time to begin at; sends when each event was left with its
    link (monotonic seconds, by id), and takes until when to wait for acknowledgements; sends the Outcome. In place of
    any of them an EmotiondError is sent. Ends early when the other end is closed.
    """
    set_up_logging(log_level)
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        try:
            _run(pipe, plan, numbers)
        except EmotiondError as error:
            pipe.send(error)


def _run(pipe: Pipe, plan: Plan, numbers: Sequence[int]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    dialers: list[_TimedDialer] = []
    links: dict[int, MqttLink] = {}
    with ExitStack() as stack:
        stack.callback(_clean, plan, numbers)
        for number in numbers:
            name = _name(number)
            dialers.append(_TimedDialer(plan.config, f"{plan.base}-{name}"))
            spool = stack.enter_context(Spool(SpoolConfig()))
            link = MqttLink(plan.config, dialers[-1], Topics(plan.base, name), [CAMERA], spool, lambda *_: None)
            links[number] = stack.enter_context(link)
        if not wait(lambda: pipe.poll() or all(dialer.connections for dialer in dialers), START_S):
            raise ServiceUnavailableError(f"fleet-sim: waited {START_S:g} s: not all devices connect")
        pipe.send(True)
        pipe.send(_publish(pipe, links, plan, pipe.recv()))
        wait(lambda: not any(link.queued for link in links.values()), pipe.recv() - time.monotonic())
        after = resource.getrusage(resource.RUSAGE_SELF)
        outcome = Outcome(
            outages=[outage for dialer in dialers for outage in dialer.outages],
            offline=sum(dialer.offline for dialer in dialers),
            queued=sum(link.queued for link in links.values()),
            drops=sum(sum(link.drops.values()) - link.drops["live_dropped"] for link in links.values()),
            cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        )
        pipe.send(outcome)


def _publish(pipe: Pipe, links: dict[int, MqttLink], plan: Plan, began_at: float) -> dict[str, float]:
    """Every device's events at its own regular moments; id to when it was left with the link."""
    published: dict[str, float] = {}
    readings = [Reading(Track(1, Box(200, 100, 120, 120), 5, 0), _scores(each), each) for each in EMOTIONS]
    for turn in range(max(1, round(plan.rate * plan.seconds))):
        if pipe.poll():  # nothing is said meanwhile: the other end is closed
            raise EOFError
        for number, link in links.items():
            due_at = began_at + (turn + number / plan.devices) / plan.rate
            if (early_s := due_at - time.monotonic()) > 0:
                time.sleep(early_s)
            now = datetime.now(timezone.utc)
            reading, previous = random.choice(readings), random.choice(EMOTIONS)
            event = Event(uuid7(), "update", reading, previous, (640, 480), now, now, 10.0)
            published[event.id] = time.monotonic()
            link.publish(event, Origin(_name(number), CAMERA, MODEL))
            link.raise_failure()
    return published


def _name(number: int) -> str:
    return f"device-{number:04}"


def _scores(emotion: str) -> Scores:
    return Scores(np.array([0.88 if each == emotion else 0.02 for each in EMOTIONS], np.float32))


def _clean(plan: Plan, numbers: Sequence[int]) -> None:
    """Leave nothing retained: a broker would keep it for ever."""
    with contextlib.suppress(ServiceUnavailableError):
        connection = Dialer(plan.config, f"{plan.base}-clean-{numbers[0]}").dial()
        for number in numbers:
            topics = Topics(plan.base, _name(number))
            for topic in (topics.status, topics.of_camera(CAMERA, "status")):
                connection.client.publish(topic, "", qos=1, retain=True).wait_for_publish(CONNACK_TIMEOUT_S)
        connection.close()


def wait(condition: Callable[[], bool], patience_s: float) -> bool:
    """Whether it came to hold within so many seconds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class _TimedDialer(Dialer):
    """Notes when the device lost a connection, and for how long it had none."""

    def __init__(self, config: MqttConfig, client_id: str) -> None:
        super().__init__(config, client_id)
        self.connections = 0
        self.outages: list[tuple[float, float]] = []
        """Monotonic seconds: lost at, and connected again at."""
        self._lost_at: float | None = None

    @property
    def offline(self) -> bool:
        """Whether it has no connection now."""
        return self._lost_at is not None

    def dial(
        self,
        prepare: Prepare = lambda client, protocol: None,
        wake: Callable[[], None] = lambda: None,
        patience_s: float | None = None,
    ) -> Connection:
        found: list[Connection] = []

        def noting() -> None:
            if self._lost_at is None and found and found[0].lost:
                self._lost_at = time.monotonic()
            wake()

        found.append(super().dial(prepare, noting, patience_s))
        self.connections += 1
        if self._lost_at is not None:
            self.outages.append((self._lost_at, time.monotonic()))
            self._lost_at = None
        return found[0]
