"""`emotiond fleet-sim`: many devices with the daemon's own publishing code against a broker, and what came of it.

A reader with a session that outlives its connections counts what arrives. Kill brokers meanwhile: the report says
what was lost, and when whose connection stood again.
"""

import contextlib
import itertools
import json
import logging
import random
import resource
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.config import MqttConfig, SpoolConfig
from edge.connection import CONNACK_TIMEOUT_S, PROTOCOLS, Connection, Dialer, broker_addresses, tls_context
from edge.errors import ServiceUnavailableError
from edge.labels import EMOTIONS
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.policy import uuid7
from edge.records import Box, Event, Reading, Scores, Track
from edge.spool import Spool

log = logging.getLogger(__name__)

MODEL = "0" * 12
READER_SESSION_S = 3600  # for which the broker keeps what a reader misses (MQTT 5)
START_S = 600.0  # a cluster may take a tenth of a second for each new session
BIN_S = 1.0  # of the histogram of reconnects


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

    def dial(self, prepare: Callable[[paho.Client, str], None], wake: Callable[[], None]) -> Connection:
        found: list[Connection] = []

        def noting() -> None:
            if self._lost_at is None and found and found[0].lost:
                self._lost_at = time.monotonic()
            wake()

        found.append(super().dial(prepare, noting))
        self.connections += 1
        if self._lost_at is not None:
            self.outages.append((self._lost_at, time.monotonic()))
            self._lost_at = None
        return found[0]


class _Reader:
    """Counts events by id, on a connection that it makes again, in a session that the broker keeps meanwhile."""

    def __init__(self, config: MqttConfig, filter_: str, name: str, protocol: str) -> None:
        self.arrived: dict[str, tuple[int, float]] = {}
        """Id to how often, and when first (monotonic seconds)."""
        self.bytes = 0
        self.subscribed = threading.Event()
        self._addresses = itertools.cycle(broker_addresses(config))
        self._config, self._filter, self._stop = config, filter_, threading.Event()
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            name,
            clean_session=None if protocol == "5" else False,
            protocol=PROTOCOLS[protocol],
            reconnect_on_failure=False,
        )
        self._options: dict[str, Any] = {}
        if protocol == "5":
            session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            session.SessionExpiryInterval = READER_SESSION_S
            self._options = {"clean_start": False, "properties": session}
        if config.username is not None:
            client.username_pw_set(config.username, config.password)
        if config.use_tls:
            client.tls_set_context(tls_context(config))
        client.connect_timeout = CONNACK_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = self._on_message
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def __enter__(self) -> "_Reader":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._client.unsubscribe(self._filter)  # the session stays for its time; it should not fill
        time.sleep(0.2)
        self._client.disconnect()
        self._thread.join(timeout=CONNACK_TIMEOUT_S)

    def _run(self) -> None:
        for host, port in self._addresses:
            if self._stop.is_set():
                return
            with contextlib.suppress(OSError):
                self._client.connect(host, port, self._config.keepalive_s, **self._options)
                self._client.loop_forever()
            self._stop.wait(random.uniform(0.2, 0.6))

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        client.subscribe(self._filter, qos=1)

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        now = time.monotonic()
        identity = str(json.loads(message.payload)["id"])
        times, first = self.arrived.get(identity, (0, now))
        self.arrived[identity] = (times + 1, first)
        self.bytes += len(message.payload)


def simulate(
    config: MqttConfig, devices: int, rate: float, seconds: float, patience_s: float, readers: int = 1
) -> dict[str, Any]:
    """Run so many devices with `rate` events/s each, for `seconds`; then wait until all have arrived, for at most
    `patience_s`. readers: so many share the events (MQTT 5).

    Returns the report: what was published, arrived and lost, the delays, and the outages. Below
    `<base_topic>-sim-<number>`, so that it disturbs nobody; nothing retained stays. Raises ServiceUnavailableError if
    a broker is not there at the beginning.
    """
    base = f"{config.base_topic}-sim-{secrets.token_hex(3)}"
    probe = Dialer(config, f"{base}-probe").dial(lambda *_: None, lambda: None)
    protocol = probe.protocol
    probe.close()
    with ExitStack() as stack:
        share = f"$share/{base}/" if readers > 1 else ""
        counting = [
            stack.enter_context(_Reader(config, f"{share}{base}/+/+/events", f"{base}-reader-{number}", protocol))
            for number in range(readers)
        ]
        if not all(reader.subscribed.wait(CONNACK_TIMEOUT_S * 2) for reader in counting):
            raise ServiceUnavailableError("fleet-sim: the reader cannot subscribe; may it read there?")
        dialers: list[_TimedDialer] = []
        links: list[MqttLink] = []
        origins: list[Origin] = []
        before = resource.getrusage(resource.RUSAGE_SELF)
        stack.callback(_clean, config, base, devices)
        for number in range(devices):
            name = f"device-{number:04}"
            dialers.append(_TimedDialer(config, f"{base}-{name}"))
            origins.append(Origin(name, "camera", MODEL))
            topics = Topics(base, name)
            spool = stack.enter_context(Spool(SpoolConfig()))
            links.append(stack.enter_context(MqttLink(config, dialers[-1], topics, ["camera"], spool, lambda *_: None)))
        _wait(lambda: all(dialer.connections for dialer in dialers), START_S, "devices connect")
        began_at = time.monotonic()
        log.warning("%d devices are connected; events come for %g s", devices, seconds)
        published = _publish(links, origins, rate, seconds)
        took_s = time.monotonic() - began_at

        def missing() -> int:
            return len(published) - sum(len(reader.arrived) for reader in counting)

        _wait(lambda: not missing() and not any(link.queued for link in links), patience_s, None)
        after = resource.getrusage(resource.RUSAGE_SELF)
        offline = sum(dialer.offline for dialer in dialers)
        queued = sum(link.queued for link in links)
    arrived = [entry for reader in counting for entry in reader.arrived.items()]
    delays_s = [first - published[identity] for identity, (_, first) in arrived if identity in published]
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "devices": devices,
        "brokers": [f"{host}:{port}" for host, port in broker_addresses(config)],
        "protocol": protocol,
        "seconds": round(took_s, 1),
        "published": len(published),
        "arrived": len(arrived),
        "lost": len(published.keys() - {identity for identity, _ in arrived}),
        "repeats": sum(times - 1 for _, (times, _) in arrived),
        "by_reader": [len(reader.arrived) for reader in counting],
        "events_per_s": round(len(published) / max(took_s, 1e-3), 1),
        "bytes_per_event": round(sum(reader.bytes for reader in counting) / max(1, sum(t for _, (t, _) in arrived))),
        "client_cpu_ms_per_event": round(1000 * cpu_s / max(1, len(published)), 3),
        "delay_ms": _percentiles([1000 * delay for delay in delays_s]),
        "drops": sum(sum(link.drops.values()) - link.drops["live_dropped"] for link in links),
        "outages": _outages([outage for dialer in dialers for outage in dialer.outages]),
        "offline_at_the_end": offline,
        "queued_at_the_end": queued,
    }


def _publish(links: list[MqttLink], origins: list[Origin], rate: float, seconds: float) -> dict[str, float]:
    """Every device's events at its own regular moments; id to when it was left with the link."""
    published: dict[str, float] = {}
    began_at = time.monotonic()
    readings = [Reading(Track(1, Box(200, 100, 120, 120), 5, 0), _scores(each), each) for each in EMOTIONS]
    for turn in range(max(1, round(rate * seconds))):
        for number, (link, origin) in enumerate(zip(links, origins, strict=True)):
            due_at = began_at + (turn + number / len(links)) / rate
            if (early_s := due_at - time.monotonic()) > 0:
                time.sleep(early_s)
            now = datetime.now(timezone.utc)
            reading, previous = random.choice(readings), random.choice(EMOTIONS)
            event = Event(uuid7(), "update", reading, previous, (640, 480), now, now, 10.0)
            published[event.id] = time.monotonic()
            link.publish(event, origin)
            link.raise_failure()
    return published


def _scores(emotion: str) -> Scores:
    return Scores(np.array([0.88 if each == emotion else 0.02 for each in EMOTIONS], np.float32))


def _outages(outages: list[tuple[float, float]]) -> dict[str, Any] | None:
    """How long devices had no connection; and how many came back in which second after the first loss."""
    if not outages:
        return None
    first = min(lost for lost, _ in outages)
    seconds = [int((again - first) / BIN_S) for _, again in outages]
    return {
        "count": len(outages),
        "without_s": _percentiles([again - lost for lost, again in outages]),
        "back_in_second": {str(second): seconds.count(second) for second in sorted(set(seconds))},
    }


def _percentiles(values: Iterable[float]) -> dict[str, float] | None:
    values = list(values)
    if not values:
        return None
    p50, p95, p99, most = np.percentile(values, [50, 95, 99, 100])
    return {
        name: round(float(value), 1)
        for name, value in zip(("p50", "p95", "p99", "max"), (p50, p95, p99, most), strict=True)
    }


def _clean(config: MqttConfig, base: str, devices: int) -> None:
    """Leave nothing retained: a broker would keep it for ever."""
    with contextlib.suppress(ServiceUnavailableError):
        connection = Dialer(config, f"{base}-clean").dial(lambda *_: None, lambda: None)
        for topic in _retained(base, devices):
            connection.client.publish(topic, "", qos=1, retain=True).wait_for_publish(CONNACK_TIMEOUT_S)
        connection.close()


def _retained(base: str, devices: int) -> Iterator[str]:
    for number in range(devices):
        topics = Topics(base, f"device-{number:04}")
        yield from (topics.status, topics.of_camera("camera", "status"))


def _wait(condition: Callable[[], bool], patience_s: float, what: str | None) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            if what is None:
                return
            raise ServiceUnavailableError(f"fleet-sim: waited {patience_s:g} s: not all {what}")
        time.sleep(0.05)
