"""`emotiond forget`: a device that goes leaves nothing at the broker, nor in Home Assistant."""

import threading
import time

from edge.config import Config
from edge.connection import Dialer, passing_client_id
from edge.discovery import announcement
from edge.errors import ConfigError, ServiceUnavailableError
from edge.messages import Topics

DEFAULT_PREFIX = "homeassistant"
PATIENCE_S = 10.0


def forget(config: Config) -> list[str]:
    """Empty every retained topic of the device; returns their names. A running daemon would fill them again.

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
    of_cameras = [topics.of_camera(camera, name) for camera in cameras for name in ("emotion", "status")]
    retained = [told.topic, *of_cameras, topics.status]
    answered = threading.Event()
    connection = Dialer(settings, passing_client_id("forget")).dial(lambda *_: None, answered.set)
    waiting = {connection.publish(topic, "", qos=1, retain=True): topic for topic in retained}
    deadline = time.monotonic() + PATIENCE_S
    while waiting and not connection.lost and time.monotonic() < deadline:
        answered.wait(0.2)
        answered.clear()
        while connection.acknowledged:
            mid, reason = connection.acknowledged.popleft()
            topic = waiting.pop(mid)
            if reason.is_failure and not (topic == told.topic and config.homeassistant.prefix is None):
                connection.close()
                raise ServiceUnavailableError(f"{topic}: the broker refuses to forget it: {reason}")
    connection.close()
    if waiting:
        raise ServiceUnavailableError(f"{', '.join(waiting.values())}: the broker did not acknowledge")
    return retained
