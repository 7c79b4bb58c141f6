"""The device as Home Assistant is told of it, so that it shows up there by itself. Pure.

One message describes the device and all its entities (MQTT discovery by device, Home Assistant 2024.11 or newer).
Keys have their long names: Home Assistant refuses the whole device for one key that it does not know.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from edge import __version__
from edge.contract import CameraStatus
from edge.labels import EMOTIONS, UNCERTAIN
from edge.messages import Topics, encode

NOBODY = "nobody"
MISSED_STATS = 3  # stats messages in a row that make a diagnostic figure unavailable
URL = "https://github.com/emotiond/emotiond"

# Home Assistant renders these; `value_json` is the payload. What renders to nothing is no event.
EMOTION = f"{{{{ value_json.emotion or ('{UNCERTAIN}' if value_json.faces else '{NOBODY}') }}}}"
EMOTION_DETAILS = "{{ {'confidence': value_json.confidence, 'at': value_json.at} | to_json }}"
EVENT = (
    "{% if value_json.type == 'update' %}{{ {'event_type': value_json.emotion or '" + UNCERTAIN + "', "
    "'previous': value_json.previous, 'confidence': value_json.confidence, 'track': value_json.track, "
    "'id': value_json.id} | to_json }}{% endif %}"
)
# Anything but `online` (`stopped`, `offline`) is not there; Home Assistant alone would ignore a word it does not know.
ONLINE = "{{ 'online' if value == 'online' else 'offline' }}"

# Key to name, template, and what else Home Assistant is told; those of a camera, and those of the device.
Figures = Mapping[str, tuple[str, str, dict[str, str]]]
FIGURES: Figures = {
    "fps": ("Frames looked at", "value_json.fps_out", {"unit_of_measurement": "fps"}),
    "latency": (
        "Latency (p95)",
        "value_json.latency_ms.p95 if value_json.latency_ms else none",
        {"unit_of_measurement": "ms", "device_class": "duration"},
    ),
    "drops": ("Frames and messages dropped", "value_json.drops.values() | sum", {"state_class": "total_increasing"}),
}
DEVICE_FIGURES: Figures = {
    "temperature": (
        "Processor temperature",
        "value_json.temperature_c",
        {"unit_of_measurement": "°C", "device_class": "temperature"},
    ),
    "queue": ("Events waiting", "value_json.queue", {}),
    "uptime": ("Uptime", "value_json.uptime_s", {"unit_of_measurement": "s", "device_class": "duration"}),
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is said where, and where Home Assistant says that it wants to hear it again."""

    topic: str
    payload: str
    birth_topic: str


def announcement(
    prefix: str,
    topics: Topics,
    cameras: Sequence[str],
    commands: bool,
    stats_interval_s: float,
    gone: Sequence[str] = (),
) -> Announcement:
    """The description of a device and its cameras, below Home Assistant's discovery `prefix`.

    commands: whether the device obeys; else it has no switch, and one that it had is taken away. gone: cameras that it
    had, whose entities are taken away.
    """
    device = _identifier(f"{topics.base}_{topics.device}")
    expire_after_s = round(MISSED_STATS * stats_interval_s) + 1
    payload = {
        "device": {
            "identifiers": [device],
            "name": topics.device,
            "manufacturer": "emotiond",
            "model": "Apparent emotions of faces",
            "sw_version": __version__,
        },
        "origin": {"name": "emotiond", "sw_version": __version__, "support_url": URL},
        "components": {
            f"{device}_{key}": component if len(component) == 1 else {**component, "unique_id": f"{device}_{key}"}
            for key, component in _components(topics, cameras, commands, expire_after_s, gone).items()
        },
    }
    return Announcement(f"{prefix}/device/{device}/config", encode(payload), f"{prefix}/status")


def _components(
    topics: Topics, cameras: Sequence[str], commands: bool, expire_after_s: int, gone: Sequence[str]
) -> dict[str, dict[str, Any]]:
    components = _figures(topics, DEVICE_FIGURES, expire_after_s)
    if len(cameras) == 1:
        components |= _camera(topics, cameras[0], topics.command("pause") if commands else None)
        components |= _figures(topics, FIGURES, expire_after_s)
        components |= _removed(f"{_identifier(cameras[0])}_{key}" for key in FIGURES)  # from when it had company
    else:
        for camera in cameras:
            components |= _camera(topics, camera, topics.of_camera(camera, "pause") if commands else None)
            components |= _figures(topics, FIGURES, expire_after_s, camera)
        components |= _removed(FIGURES)  # from when there was one camera
    for camera in gone:
        parts = {**_camera(topics, camera, None), **_figures(topics, FIGURES, expire_after_s, camera)}
        components |= _removed(parts, {key: part["platform"] for key, part in parts.items()})
    return components


def _removed(keys: Iterable[str], platforms: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """A component with a platform and nothing else is taken away."""
    return {key: {"platform": (platforms or {}).get(key, "sensor")} for key in keys}


def _camera(topics: Topics, name: str, pause_topic: str | None) -> dict[str, dict[str, Any]]:
    """The entities of a camera; they are there while the device and, but for its own state, the camera are."""
    key = _identifier(name)
    there = [_available(topics.status)]
    sees = [*there, _available(topics.of_camera(name, "status"))]
    return {
        f"{key}_emotion": {
            "platform": "sensor",
            "name": f"{name} emotion",
            "icon": "mdi:emoticon-outline",
            "device_class": "enum",
            "options": [*EMOTIONS, UNCERTAIN, NOBODY],
            "state_topic": topics.of_camera(name, "emotion"),
            "value_template": EMOTION,
            "json_attributes_topic": topics.of_camera(name, "emotion"),
            "json_attributes_template": EMOTION_DETAILS,
            **_all_of(sees),
        },
        f"{key}_faces": {
            "platform": "sensor",
            "name": f"{name} faces in view",
            "icon": "mdi:account-multiple",
            "state_class": "measurement",
            "state_topic": topics.of_camera(name, "emotion"),
            "value_template": "{{ value_json.faces }}",
            **_all_of(sees),
        },
        f"{key}_change": {
            "platform": "event",
            "name": f"{name} emotion changed",
            "icon": "mdi:emoticon-outline",
            "event_types": [*EMOTIONS, UNCERTAIN],
            "state_topic": topics.of_camera(name, "events"),
            "value_template": EVENT,
            "qos": 1,
            **_all_of(sees),
        },
        f"{key}_status": {
            "platform": "sensor",
            "name": f"{name} status",
            "icon": "mdi:camera",
            "entity_category": "diagnostic",
            "device_class": "enum",
            "options": list(get_args(CameraStatus)),
            "state_topic": topics.of_camera(name, "status"),
            **_all_of(there),
        },
        f"{key}_paused": _switch(topics, name, pause_topic),
    }


def _switch(topics: Topics, camera: str, pause_topic: str | None) -> dict[str, Any]:
    if pause_topic is None:
        return {"platform": "switch"}  # taken away
    return {
        "platform": "switch",
        "name": f"{camera} paused",
        "icon": "mdi:pause",
        "command_topic": pause_topic,
        "payload_on": "on",
        "payload_off": "off",
        "qos": 1,
        "state_topic": topics.of_camera(camera, "status"),
        "value_template": "{{ 'on' if value == 'paused' else 'off' }}",
        "state_on": "on",
        "state_off": "off",
        **_all_of([_available(topics.status)]),
    }


def _figures(
    topics: Topics, figures: Figures, expire_after_s: int, camera: str | None = None
) -> dict[str, dict[str, Any]]:
    """Of `stats`; of one of several cameras, which each have a message there, if it is named."""
    # What renders to nothing leaves a number as it is.
    only = "" if camera is None else f"{{% if value_json.camera == {json.dumps(camera, ensure_ascii=False)} %}}"
    return {
        key if camera is None else f"{_identifier(camera)}_{key}": {
            "platform": "sensor",
            "name": name if camera is None else f"{camera} {name[0].lower()}{name[1:]}",
            "entity_category": "diagnostic",
            "state_topic": topics.stats,
            "value_template": f"{only}{{{{ {template} }}}}{'{% endif %}' if only else ''}",
            "expire_after": expire_after_s,
            "state_class": "measurement",
            **more,
            **_all_of([_available(topics.status)]),
        }
        for key, (name, template, more) in figures.items()
    }


def _all_of(availability: list[dict[str, str]]) -> dict[str, Any]:
    return {"availability": availability, "availability_mode": "all"}


def _available(topic: str) -> dict[str, str]:
    return {"topic": topic, "value_template": ONLINE}


def _identifier(text: str) -> str:
    """A name as Home Assistant takes it: letters, digits, - and _. Names that differ stay different."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", text)
    return plain if plain == text else f"{plain}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"
