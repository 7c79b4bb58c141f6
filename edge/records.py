"""What flows through the pipeline. Frozen; arrays inside are never compared by `==`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge.labels import EMOTIONS

EventType = Literal["new", "update", "end"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source."""

    image: npt.NDArray[np.uint8]
    """(height, width, 3) BGR or (height, width) grey."""
    seq: int
    """Counts the frames of this source from 0."""
    captured_at: float
    """Monotonic seconds at which the frame reached this process: the start of the latency."""
    wall_time: datetime
    """UTC, for publishing."""
    media_time: float
    """Seconds on the source's own clock, which durations are measured on: the position in a file (so that a
    file gives the same events at any speed), `captured_at` for a live source."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.image.shape[:2]
        return width, height

    @property
    def whole(self) -> "Box":
        """The box of the whole picture."""
        return Box(0, 0, *self.size)

    def part(self, window: "Box | None") -> "Box | None":
        """What of `window` lies in the picture, all of it without one; None if they do not touch."""
        return self.whole if window is None else self.whole.common(window)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the frame; `x`, `y` is its top left corner."""

    x: int
    y: int
    w: int
    h: int

    def common(self, other: "Box") -> "Box | None":
        """The part that both cover; None if they do not touch."""
        left, top = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.x + self.w, other.x + other.w), min(self.y + self.h, other.y + other.h)
        return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None

    def joined(self, other: "Box") -> "Box":
        """The smallest one around both."""
        left, top = min(self.x, other.x), min(self.y, other.y)
        right, bottom = max(self.x + self.w, other.x + other.w), max(self.y + self.h, other.y + other.h)
        return Box(left, top, right - left, bottom - top)

    def grown(self, by: int) -> "Box":
        """Larger by so many pixels on every side."""
        return Box(self.x - by, self.y - by, self.w + 2 * by, self.h + 2 * by)

    def overlap(self, other: "Box") -> float:
        """Intersection over union, 0 to 1."""
        shared = self.common(other)
        if shared is None:
            return 0.0
        area = shared.w * shared.h
        return area / (self.w * self.h + other.w * other.h - area)

    def holds_centre_of(self, other: "Box") -> bool:
        """Whether the middle of `other` lies in this one."""
        x, y = other.x + other.w / 2, other.y + other.h / 2
        return self.x <= x < self.x + self.w and self.y <= y < self.y + self.h

    def centred_on(self, other: "Box") -> "Box":
        """As large as this one, about the middle of `other`."""
        return Box(other.x + (other.w - self.w) // 2, other.y + (other.h - self.h) // 2, self.w, self.h)

    def as_list(self) -> list[int]:
        """x, y, w, h, as messages and tables have them."""
        return [self.x, self.y, self.w, self.h]

    def cut(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """This part of a picture, as a view; the box must lie inside."""
        return image[self.y : self.y + self.h, self.x : self.x + self.w]


@dataclass(frozen=True, slots=True)
class Face:
    """A detection. `confidence` is the detector's own measure, larger is surer."""

    box: Box
    confidence: float


SAME_FACE = 0.3  # intersection over union from which two boxes are one face; neighbours overlap less


def distinct(faces: Sequence[Face]) -> list[Face]:
    """Without those that an earlier one of the list covers."""
    kept: list[Face] = []
    for face in faces:
        if all(face.box.overlap(other.box) < SAME_FACE for other in kept):
            kept.append(face)
    return kept


@dataclass(frozen=True, slots=True)
class Track:
    """A face followed over frames."""

    id: int
    box: Box
    age: int
    """Frames in which it was found."""
    missed: int
    """Frames since it was last found; 0 means that it is in this frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Seven probabilities in `EMOTIONS` order, float32."""

    values: npt.NDArray[np.float32]

    @property
    def top(self) -> tuple[str, float]:
        """The likeliest emotion and its probability."""
        best = int(self.values.argmax())
        return EMOTIONS[best], float(self.values[best])

    def as_dict(self) -> dict[str, float]:
        """Emotion to probability, to three decimals."""
        return {emotion: round(float(value), 3) for emotion, value in zip(EMOTIONS, self.values, strict=True)}


@dataclass(frozen=True, slots=True)
class Reading:
    """One face as it is known now: where it is, and what it shows."""

    track: Track
    scores: Scores
    """Smoothed over time."""
    emotion: str | None
    """The stable emotion; None is "uncertain"."""

    @property
    def confidence(self) -> float:
        """The smoothed probability of the stable emotion, or of the likeliest one while there is none."""
        return self.scores.top[1] if self.emotion is None else float(self.scores.values[EMOTIONS.index(self.emotion)])


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one face."""

    id: str
    type: EventType
    reading: Reading
    previous: str | None
    """The stable emotion before this event."""
    frame_size: tuple[int, int]
    started_at: datetime
    at: datetime
    latency_ms: float
    """From the frame's capture to this event."""
