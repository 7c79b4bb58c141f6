"""What flows through the pipeline. Frozen; arrays inside are never compared by `==`."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from edge.labels import EMOTIONS

EventType = Literal["new", "update", "end"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source. Without slots, so that `grey` is made once and only when asked for."""

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

    @cached_property
    def grey(self) -> npt.NDArray[np.uint8]:
        """(height, width) uint8 luminance."""
        return (
            self.image if self.image.ndim == 2 else np.asarray(cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY), np.uint8)
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.image.shape[:2]
        return width, height


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the frame; `x`, `y` is its top left corner."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True, slots=True)
class Face:
    """A detection. `confidence` is the detector's own measure, larger is surer."""

    box: Box
    confidence: float


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
