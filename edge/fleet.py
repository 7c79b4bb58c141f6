"""`emotiond fleet-sim`: many devices with the daemon's own publishing code against a broker, and what came of it.

Readers with sessions that outlive their connections count what arrives. Kill brokers meanwhile: the report says what
was lost, and when whose connection stood again.
"""

import contextlib
import logging
import multiprocessing
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from edge import fleet_devices
from edge.config import MqttConfig
from edge.connection import CONNACK_TIMEOUT_S, Dialer, broker_addresses
from edge.errors import EmotiondError, ServiceUnavailableError
from edge.fleet_devices import Outcome, Plan
from edge.fleet_reader import Reader

log = logging.getLogger(__name__)

DEVICES_PER_PROCESS = 250  # paho waits with select(), which takes descriptors to 1,023; a device has three
STOP_S = 30.0  # for a process to take leave of the broker for its devices
BIN_S = 1.0  # of the histogram of reconnects


class _Crew:
    """Some of the devices, in a process of their own."""

    def __init__(self, plan: Plan, numbers: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")  # threads run here, and are not forked
        self._pipe, self._other_end = context.Pipe()
        log_level = logging.getLevelName(logging.getLogger().level)
        self._process = context.Process(
            target=fleet_devices.run, args=(self._other_end, plan, numbers, log_level), daemon=True
        )

    def __enter__(self) -> "_Crew":
        self._process.start()
        self._other_end.close()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join(STOP_S)
        self._process.kill()

    def say(self, word: float) -> None:
        """See `fleet_devices.run`."""
        with contextlib.suppress(ConnectionError):  # `hear` tells
            self._pipe.send(word)

    def hear(self) -> Any:
        """Likewise. Raises what it raised there."""
        try:
            word = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise ServiceUnavailableError(
                "fleet-sim: a process of its devices was ended; is there memory for so many?"
            ) from None
        if isinstance(word, EmotiondError):
            raise word
        return word


def simulate(
    config: MqttConfig, devices: int, rate: float, seconds: float, patience_s: float, readers: int = 1
) -> dict[str, Any]:
    """Run so many devices with `rate` events/s each, for `seconds`; then wait until all have arrived, for at most
    `patience_s`. readers: so many share the events (MQTT 5).

    Returns the report: what was published, arrived and lost, the delays, and the outages. Below
    `<base_topic>-sim-<number>`, so that it disturbs nobody; nothing retained stays. Raises ServiceUnavailableError if
    a broker is not there at the beginning.
    """
    plan = Plan(config, f"{config.base_topic}-sim-{secrets.token_hex(3)}", devices, rate, seconds)
    probe = Dialer(config, f"{plan.base}-probe").dial()
    protocol = probe.protocol
    probe.close()
    with ExitStack() as stack:
        counting = _enter_readers(stack, plan, protocol, readers)
        processes = -(-devices // DEVICES_PER_PROCESS)
        crews = [stack.enter_context(_Crew(plan, range(number, devices, processes))) for number in range(processes)]
        for crew in crews:
            crew.hear()
        log.info("%d devices are connected; events come for %g s", devices, seconds)
        began_at = time.monotonic()
        for crew in crews:
            crew.say(began_at)
        published = {identity: at for crew in crews for identity, at in crew.hear().items()}
        took_s = time.monotonic() - began_at
        deadline = time.monotonic() + patience_s
        fleet_devices.wait(lambda: sum(len(reader.arrived) for reader in counting) >= len(published), patience_s)
        for crew in crews:
            crew.say(deadline)
        outcomes: list[Outcome] = [crew.hear() for crew in crews]
    return {
        "devices": devices,
        "processes": processes,
        "brokers": [f"{host}:{port}" for host, port in broker_addresses(config)],
        "protocol": protocol,
        "seconds": round(took_s, 1),
        **_arrivals(published, counting, took_s),
        "client_cpu_ms_per_event": round(1000 * sum(outcome.cpu_s for outcome in outcomes) / max(1, len(published)), 3),
        "drops": sum(outcome.drops for outcome in outcomes),
        "outages": _outages([outage for outcome in outcomes for outage in outcome.outages]),
        "offline_at_the_end": sum(outcome.offline for outcome in outcomes),
        "queued_at_the_end": sum(outcome.queued for outcome in outcomes),
    }


def _enter_readers(stack: ExitStack, plan: Plan, protocol: str, count: int) -> list[Reader]:
    """Those that count, once all of them are subscribed. Raises ServiceUnavailableError."""
    topic = f"{plan.base}/+/+/events"
    shared = f"$share/{plan.base}/{topic}" if count > 1 else topic
    names = [f"{plan.base}-reader-{number}" for number in range(count)]
    readers = [stack.enter_context(Reader(plan.config, shared, name, protocol)) for name in names]
    if not all(reader.subscribed.wait(CONNACK_TIMEOUT_S * 2) for reader in readers):
        raise ServiceUnavailableError("fleet-sim: the reader cannot subscribe; may it read there?")
    return readers


def _arrivals(published: Mapping[str, float], readers: Sequence[Reader], took_s: float) -> dict[str, Any]:
    """published: id to when it was left with its link, in monotonic seconds; took_s: for all of them."""
    arrived = [entry for reader in readers for entry in reader.arrived.items()]
    messages = sum(times for _, (times, _) in arrived)
    delays_s = [first - published[identity] for identity, (_, first) in arrived if identity in published]
    return {
        "published": len(published),
        "arrived": len(arrived),
        "lost": len(published.keys() - {identity for identity, _ in arrived}),
        "repeats": messages - len(arrived),
        "by_reader": [len(reader.arrived) for reader in readers],
        "events_per_s": round(len(published) / max(took_s, 1e-3), 1),
        "bytes_per_event": round(sum(reader.bytes for reader in readers) / max(1, messages)),
        "delay_ms": _percentiles([1000 * delay for delay in delays_s]),
    }


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
