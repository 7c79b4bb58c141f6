"""`emotiond forget`: a device that goes leaves nothing at the broker, nor in Home Assistant."""

import threading
import time
from collections.abc import Sequence

import paho.mqtt.client as paho

from edge.config import Config
from edge.connection import Connection, Dialer, passing_client_id
from edge.discovery import announcement
from edge.errors import ConfigError, ServiceUnavailableError
from edge.messages import Topics

DEFAULT_PREFIX = "homeassistant"
PATIENCE_S = 10.0
CAMERA_STATES = ("emotion", "status")  # retained, of each camera


def forget(config: Config) -> list[str]:
    """Empty every retained topic of the device; returns their names. A running daemon would fill them again.

    Cameras that the settings do not name any more are forgotten too, where the broker lets the device read.

    The description for Home Assistant goes too, also when it is switched off by now (where that is allowed): there
    the device and its entities are gone. Raises ConfigError where there is no broker that keeps anything,
    ServiceUnavailableError.
    """
    settings = config.mqtt
    if settings.embedded or settings.broker is None:
        raise ConfigError(
            f"mqtt.broker: {'embedded' if settings.embedded else 'null'}: keeps nothing; name the broker to forget at"
        )
    topics, cameras = Topics(settings.base_topic, config.device), [each.camera.name for each in config.per_camera]
    told = announcement(
        config.homeassistant.prefix or DEFAULT_PREFIX, topics, cameras, False, settings.stats_interval_s
    )
    of_cameras = [topics.of_camera(camera, name) for camera in cameras for name in CAMERA_STATES]
    retained = [told.topic, *of_cameras, topics.status]
    spared = told.topic if config.homeassistant.prefix is None else None
    heard: set[str] = set()

    def prepare(client: paho.Client, protocol: str) -> None:
        client.on_message = lambda client, userdata, message: heard.add(message.topic) if message.retain else None

    answered = threading.Event()
    connection = Dialer(settings, passing_client_id("forget")).dial(prepare, answered.set)
    try:
        # What is kept comes before the answers to what is published next. A broker that forbids it sends nothing.
        connection.client.subscribe([(topics.of_camera("+", name), 0) for name in CAMERA_STATES])
        _empty(connection, retained, spared, answered)
        earlier = sorted(heard.difference(retained))
        _empty(connection, earlier, None, answered)
    finally:
        connection.close()
    return [*retained, *earlier]


def _empty(connection: Connection, topics: Sequence[str], spared: str | None, answered: threading.Event) -> None:
    """Raises ServiceUnavailableError if the broker refuses one, but for `spared`, or does not answer."""
    waiting = {connection.publish(topic, "", qos=1, retain=True): topic for topic in topics}
    deadline = time.monotonic() + PATIENCE_S
    while waiting and not connection.lost and time.monotonic() < deadline:
        answered.wait(0.2)
        answered.clear()
        while connection.acknowledged:
            mid, reason = connection.acknowledged.popleft()
            topic = waiting.pop(mid)
            if reason.is_failure and topic != spared:
                raise ServiceUnavailableError(f"{topic}: the broker refuses to forget it: {reason}")
    if waiting:
        raise ServiceUnavailableError(f"{', '.join(waiting.values())}: the broker did not acknowledge")
