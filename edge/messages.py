"""The topics and the JSON that is published to them. Pure; docs/topics.md describes the same for readers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edge.contract import SCHEMA_VERSION, EmotionMessage, EventMessage, FaceInView, FacesMessage
from edge.pipeline import Sight
from edge.records import Event, Reading


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of a device and its cameras: `<base>/<device>/...`, of fixed depth."""

    base: str
    device: str

    @property
    def status(self) -> str:
        """`online`, `stopped`, `offline`."""
        return f"{self.base}/{self.device}/status"

    @property
    def stats(self) -> str:
        """The daemon's figures."""
        return f"{self.base}/{self.device}/stats"

    def command(self, name: str) -> str:
        """What the device obeys, if it may."""
        return f"{self.base}/{self.device}/cmd/{name}"

    def of_camera(self, camera: str, name: str) -> str:
        """`status`, `events`, `faces`, `emotion`, `look` or `snapshot` of a camera; of several `pause` and `resume`."""
        return f"{self.base}/{self.device}/{camera}/{name}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who says it: stands in every message."""

    device: str
    camera: str
    model: str
    """The first 12 digits of the model file's sha256."""


def event_message(event: Event, origin: Origin) -> EventMessage:
    """One change of one face."""
    reading = event.reading
    return {
        "v": SCHEMA_VERSION,
        "id": event.id,
        "type": event.type,
        "device": origin.device,
        "camera": origin.camera,
        "track": reading.track.id,
        "emotion": reading.emotion,
        "previous": event.previous,
        "confidence": round(reading.confidence, 3),
        "scores": reading.scores.as_dict(),
        "box": reading.track.box.as_list(),
        "frame": list(event.frame_size),
        "started_at": timestamp(event.started_at),
        "at": timestamp(event.at),
        "latency_ms": round(event.latency_ms, 1),
        "model": origin.model,
    }


def faces_message(sight: Sight, origin: Origin) -> FacesMessage:
    """All faces of a frame, live."""
    faces: list[FaceInView] = [
        {
            "track": reading.track.id,
            "emotion": reading.emotion,
            "confidence": round(reading.confidence, 3),
            "scores": reading.scores.as_dict(),
            "box": reading.track.box.as_list(),
        }
        for reading in sight.readings
    ]
    return {
        "v": SCHEMA_VERSION,
        "device": origin.device,
        "camera": origin.camera,
        "seq": sight.frame.seq,
        "frame": list(sight.frame.size),
        "faces": faces,
        "at": timestamp(sight.frame.wall_time),
    }


def dominant(readings: Sequence[Reading]) -> Reading | None:
    """The largest face that has a stable emotion."""
    certain = [reading for reading in readings if reading.emotion is not None]
    return max(certain, key=lambda reading: reading.track.box.w * reading.track.box.h, default=None)


def emotion_message(readings: Sequence[Reading], at: datetime, origin: Origin) -> EmotionMessage:
    """The dominant emotion now; null when there is none."""
    face = dominant(readings)
    return {
        "v": SCHEMA_VERSION,
        "device": origin.device,
        "camera": origin.camera,
        "emotion": face.emotion if face else None,
        "confidence": round(face.confidence, 3) if face else None,
        "faces": len(readings),
        "at": timestamp(at),
    }


def encode(message: Mapping[str, Any], ascii_only: bool = False) -> str:
    """JSON in one line, without blanks."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=ascii_only)


def timestamp(at: datetime) -> str:
    """UTC, ISO 8601 with milliseconds: `2026-11-21T08:05:56.123Z`."""
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
