"""A subscriber for people: what a device publishes, a line a message."""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edge.backoff import STEADY_S, Backoff
from edge.config import MqttConfig
from edge.connection import Connection, Dialer, passing_client_id
from edge.console import shown
from edge.errors import ServiceUnavailableError
from edge.labels import UNCERTAIN

log = logging.getLogger(__name__)

SUBSCRIBE_S = 1.0


class Subscriber:
    """Writes the messages of all devices below a base topic while it is entered; comes back by itself.

    `write` takes a line and must not block. `everything` adds the live and stats messages; `raw` writes topic and
    payload as they came.
    """

    def __init__(
        self, config: MqttConfig, write: Callable[[str], None], *, everything: bool = False, raw: bool = False
    ) -> None:
        self._config, self._write, self._raw = config, write, raw
        self._topics = ["#"] if everything else ["+/status", "+/+/status", "+/+/events", "+/+/emotion"]
        self._dialer = Dialer(config, passing_client_id("watch"))
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._subscribed = threading.Event()
        self._client: paho.Client | None = None
        self._said: set[str] = set()  # since a connection last stood: each once
        self.problem = ""
        """Why nothing comes, as the log has it."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> "Subscriber":
        self._thread.start()
        # What is published next should be seen; a broker that is not there is not waited for.
        self._subscribed.wait(SUBSCRIBE_S)
        return self

    def __exit__(self, *exc: object) -> None:
        # The daemon's last words are on their way.
        time.sleep(0.1)
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        backoff = Backoff(self._config.retry_min_s, self._config.retry_max_s)
        while not self._stop.is_set():
            try:
                connection = self._dialer.dial(self._prepare, self._wake.set)
            except ServiceUnavailableError as error:
                kind = problem = str(error)
            else:
                began_at = time.monotonic()
                self._serve(connection)
                if self._stop.is_set():
                    return
                if time.monotonic() - began_at > STEADY_S:  # else it may hang up on each subscription
                    backoff.reset()
                    self._said.clear()
                kind, problem = "lost", f"mqtt.broker: connection lost: {connection.end_reason}; it is tried again"
            self._say(kind, problem)
            self._stop.wait(backoff.next())

    def _say(self, kind: str, problem: str) -> None:
        if kind not in self._said:
            log.warning("%s", problem)
        self._said.add(kind)
        self.problem = problem

    def _serve(self, connection: Connection) -> None:
        """Subscribe, until the connection is lost or it is time to stop."""
        self.problem = ""
        connection.client.subscribe([(f"{self._config.base_topic}/{topic}", 1) for topic in self._topics])
        self._client = connection.client
        while not self._stop.is_set() and not connection.lost:
            self._wake.wait(1)
            self._wake.clear()
        self._client = None
        connection.close()
        self.lose()

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._client is not None

    def lose(self) -> None:
        """The connection is gone, on the subscriber's thread. Others than terminals may want to know."""

    def publish(self, topic: str, text: str) -> None:
        """Send a passing message, while there is a connection; from any thread, and without waiting."""
        if (client := self._client) is not None:
            client.publish(topic, text, qos=0)

    def _prepare(self, client: paho.Client, protocol: str) -> None:
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        for topic, reason in zip(self._topics, reasons, strict=False):
            if reason.is_failure:
                where = f"{self._config.base_topic}/{topic}"
                way_out = "let its user read there, see systemd/mosquitto.acl"
                self._say(where, f"{where}: the broker refuses the subscription: {reason}; {way_out}")
        self._subscribed.set()

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # not allowed by MQTT, and yet some broker may send it
            return
        if topic.endswith("/snapshot"):
            self.take_picture(topic, message.payload)
        else:
            self.take(topic, message.payload.decode("utf-8", errors="replace"))

    def take(self, topic: str, text: str) -> None:
        """A message, on the network's thread. Others than terminals take it in a way of their own."""
        self._write(shown(f"{topic} {text}" if self._raw else describe(topic, text)))

    def take_picture(self, topic: str, picture: bytes | bytearray) -> None:
        """Likewise, what somebody asked to see."""
        self.take(topic, f"(a picture of {len(picture)} bytes)")


def describe(topic: str, text: str) -> str:
    """A message as a line for people; one that is not emotiond's is shown as it is."""
    _, _, name = topic.partition("/")
    where, _, kind = name.rpartition("/")
    describer = DESCRIBERS.get(kind)
    if describer is None:
        return f"{name:<24} {text}"
    try:
        return f"{where:<20} {describer(json.loads(text))}"
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, ArithmeticError):
        return f"{name:<24} {text}"


def _event(message: dict[str, Any]) -> str:
    emotion, confidence = message["emotion"] or UNCERTAIN, round(message["confidence"] * 100)
    change = {
        "new": f"face {message['track']} appears",
        "update": f"face {message['track']} {message['previous'] or UNCERTAIN} -> {emotion} ({confidence} %)",
        "end": f"face {message['track']} is gone, last {emotion}",
    }[message["type"]]
    return f"{message['at'][11:23]}  {change}"


def _emotion(message: dict[str, Any]) -> str:
    faces = message["faces"]
    return f"{message['at'][11:23]}  now {message['emotion'] or UNCERTAIN if faces else 'nobody'}, faces: {faces}"


def _faces(message: dict[str, Any]) -> str:
    faces = [f"{face['track']}: {face['emotion'] or UNCERTAIN} {face['confidence']:.2f}" for face in message["faces"]]
    return f"{message['at'][11:23]}  faces {', '.join(faces) or 'none'}"


def _stats(message: dict[str, Any]) -> str:
    latency = message["latency_ms"] or {}
    return (
        f"{message['at'][11:23]}  {message['fps_out']} frames/s of {message['fps_in']}, "
        f"latency p95 {latency.get('p95')} ms, queue {message['queue']}, drops {sum(message['drops'].values())}"
    )


DESCRIBERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "events": _event,
    "emotion": _emotion,
    "faces": _faces,
    "stats": _stats,
}
