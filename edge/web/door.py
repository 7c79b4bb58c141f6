"""What the dashboard takes of messages: nothing that could not be shown, computed with, and sent to browsers as JSON.

The functions raise one of `REFUSED` for what is not emotiond's.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Any

from edge.contract import SCHEMA_VERSION
from edge.labels import EMOTIONS, UNCERTAIN

REFUSED = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
MESSAGE_MAX = 2**19  # characters; a thousand faces have fewer
TEXT_MAX = 64  # characters of an id, a time, a state; more is cut off
NUMBER_MAX = 2**53  # browsers count in whole numbers to here


def parsed(message: str) -> dict[str, Any]:
    """A message's JSON."""
    if len(message) > MESSAGE_MAX:
        raise ValueError("too long")
    content = json.loads(message)
    if content["v"] != SCHEMA_VERSION:
        raise ValueError("of another version")
    return dict(content)


def text(value: Any) -> str:
    """A text that can be sent: JSON's escapes can write half a character, which UTF-8 cannot."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    value[:TEXT_MAX].encode()
    return value[:TEXT_MAX]


def number(value: Any) -> float:
    """Finite, and of a size that means something."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    if not abs(value) <= NUMBER_MAX:  # written so that NaN fails
        raise ValueError("too large")
    return value


def whole(value: Any) -> int:
    """Likewise, from 0."""
    if number(value) < 0:
        raise ValueError("negative")
    return int(value)


def share(value: Any) -> float:
    """From 0 to 1."""
    return min(1.0, max(0.0, float(number(value))))


def emotion(value: Any) -> str | None:
    """One of `EMOTIONS`; None is uncertain, and whatever is none of them."""
    return value if value in EMOTIONS else None


def face(value: dict[str, Any], frame: list[int]) -> dict[str, Any]:
    """One of a live message. `at` is its box in shares of the frame."""
    x, y, w, h = (number(side) for side in value["box"])
    width, height = (whole(side) for side in frame)
    return {
        "track": whole(value["track"]),
        "emotion": emotion(value["emotion"]),
        "confidence": share(value["confidence"]),
        "at": (x / width, y / height, w / width, h / height),
        "scores": {name: share(value["scores"][name]) for name in EMOTIONS},
    }


def event(message: dict[str, Any], device: str, camera: str) -> dict[str, Any]:
    """A row of the table of events."""
    return {
        "id": text(message["id"]),
        "at": text(message["at"]),
        "device": device,
        "camera": camera,
        "type": text(message["type"]),
        "face": whole(message["track"]),
        "emotion": emotion(message["emotion"]) or UNCERTAIN,
        "previous": emotion(message["previous"]) or "",
        "confidence": round(share(message["confidence"]), 3),
    }


def _allowed(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


_FIGURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "fps_in": lambda stats: number(stats["fps_in"]),
    "fps_out": lambda stats: number(stats["fps_out"]),
    "latency_p95_ms": lambda stats: number(stats["latency_ms"]["p95"]),
    "dropped": lambda stats: whole(sum(whole(count) for count in stats["drops"].values())),
    "queue": lambda stats: whole(stats["queue"]),
    "temperature_c": lambda stats: number(stats["temperature_c"]),
    "uptime_s": lambda stats: whole(stats["uptime_s"]),
    "model": lambda stats: text(stats["model"]),
    "runtime": lambda stats: text(stats["runtime"]),
    "snapshots": lambda stats: _allowed(stats["snapshots"]),
}


def figures(stats: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a device's health: without what was not measured, or is not what it should be."""
    taken: dict[str, Any] = {}
    for name, take in _FIGURES.items():
        with contextlib.suppress(*REFUSED):
            taken[name] = take(stats)
    return taken
