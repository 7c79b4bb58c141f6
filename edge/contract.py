"""The shapes of what is published. `messages` and `health` make them, mypy holds them to it, and docs/schemas.py makes
the JSON Schemas and the AsyncAPI document of them.

Readers accept keys that are not here: new ones come without a new `v`.
"""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from edge.labels import EMOTIONS
from edge.records import EventType

SCHEMA_VERSION = 1

_EMOTION = {"anyOf": [{"enum": list(EMOTIONS)}, {"type": "null"}]}
Version = Annotated[int, WithJsonSchema({"const": SCHEMA_VERSION, "description": "Of the schema; refuse another"})]
Emotion = Annotated[
    str | None, WithJsonSchema({**_EMOTION, "description": "The stable emotion; null is uncertain, or nobody"})
]
Previous = Annotated[
    str | None, WithJsonSchema({**_EMOTION, "description": "The stable emotion before this event; null: uncertain"})
]
Confidence = Annotated[
    float, Field(ge=0, le=1, description="The smoothed score of `emotion`, or of the likeliest one while it is null")
]
Scores = Annotated[
    dict[str, float],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {emotion: {"type": "number", "minimum": 0, "maximum": 1} for emotion in EMOTIONS},
            "required": list(EMOTIONS),
            "description": "All seven, smoothed",
        }
    ),
]
PixelBox = Annotated[list[int], Field(min_length=4, max_length=4, description="x, y, width, height in px of `frame`")]
Size = Annotated[list[int], Field(min_length=2, max_length=2, description="Width and height in px")]
Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
        description="UTC, ISO 8601 with milliseconds",
    ),
]
Track = Annotated[int, Field(ge=1, description="The face's number while it is in view; no identity")]
Device = Annotated[str, Field(description="The device's name, as in the topic")]
Camera = Annotated[str, Field(description="The camera's name, as in the topic")]
Model = Annotated[str, Field(pattern="^[0-9a-f]{12}$", description="First 12 digits of the model file's sha256")]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]


class EventMessage(TypedDict):
    """One change of one face."""

    v: Version
    id: Annotated[str, Field(description="UUIDv7; a message that is sent again has the same")]
    type: Annotated[EventType, Field(description="`new`: found; `update`: its emotion changed; `end`: gone")]
    device: Device
    camera: Camera
    track: Track
    emotion: Emotion
    previous: Previous
    confidence: Confidence
    scores: Scores
    box: PixelBox
    frame: Size
    started_at: Annotated[Time, Field(description="When the face was first reported")]
    at: Annotated[Time, Field(description="When the frame was captured")]
    latency_ms: Annotated[float, Field(ge=0, description="From the frame's capture to this event")]
    model: Model


class FaceInView(TypedDict):
    """One face of a frame."""

    track: Track
    emotion: Emotion
    confidence: Confidence
    scores: Scores
    box: PixelBox


class FacesMessage(TypedDict):
    """All faces of a frame, live."""

    v: Version
    device: Device
    camera: Camera
    seq: Annotated[int, Field(ge=0, description="The frame's number")]
    frame: Size
    faces: list[FaceInView]
    at: Time


class EmotionMessage(TypedDict):
    """The dominant emotion now: that of the largest face that has a stable one."""

    v: Version
    device: Device
    camera: Camera
    emotion: Emotion
    confidence: Annotated[float | None, Field(description="null when `emotion` is")]
    faces: Annotated[int, Field(ge=0, description="How many are in view")]
    at: Time


class Percentiles(TypedDict):
    """Of the frames since the message before, in milliseconds."""

    p50: Rate
    p95: Rate
    p99: Rate


class Drops(TypedDict):
    """What was left out since the start, by cause."""

    superseded: Annotated[Count, Field(description="Frames: a newer one came before this one was looked at")]
    undecodable: Annotated[Count, Field(description="Frames that could not be decoded")]
    over_max_fps: Annotated[Count, Field(description="Frames faster than camera.max_fps")]
    too_hot: Annotated[Count, Field(description="Frames left out because the device is hot")]
    events_overflowed: Annotated[Count, Field(description="Events past spool.max_events or max_mb, the oldest")]
    events_expired: Annotated[Count, Field(description="Events older than spool.max_age_s")]
    events_damaged: Annotated[Count, Field(description="Events in a spool file that was found damaged")]
    events_refused: Annotated[Count, Field(description="Events that the broker refused")]
    live_dropped: Annotated[Count, Field(description="Live messages that could not be sent")]


class PaceFigures(TypedDict):
    """By how much the device spares itself."""

    sweeps_rarer: Annotated[float, Field(ge=1)]
    one_frame_of: Annotated[int, Field(ge=1)]
    because: Annotated[str | None, Field(description="hot, slow, or null")]


class SpoolFigures(TypedDict):
    """Where events wait, and what the disk was given since the message before."""

    on_disk: bool
    bytes: Count
    written_bytes_per_s: Rate
    syncs_per_s: Rate
    write_failures: Count


class StatsMessage(TypedDict):
    """The daemon's figures."""

    v: Version
    device: Device
    camera: Camera
    fps_in: Annotated[float, Field(ge=0, description="Frames/s that the camera gave")]
    fps_out: Annotated[float, Field(ge=0, description="Frames/s that were looked at")]
    latency_ms: Percentiles | None
    drops: Drops
    sweeps: Annotated[int, Field(ge=0, description="Searches of a whole picture since the start")]
    still_frames: Annotated[int, Field(ge=0, description="Frames that showed nothing new, since the start")]
    pace: PaceFigures
    queue: Annotated[int, Field(ge=0, description="Events that the broker has not acknowledged")]
    spool: SpoolFigures
    snapshots: Annotated[bool, Field(description="Whether pictures are sent to who asks for them")]
    temperature_c: Annotated[float | None, Field(description="Of the processor, where it is told")]
    uptime_s: Count
    version: Annotated[str, Field(description="emotiond's")]
    model: Model
    runtime: Annotated[str, Field(description="What runs the network")]
    at: Time


DeviceStatus = Literal["online", "stopped", "offline"]
CameraStatus = Literal["online", "offline", "paused"]
