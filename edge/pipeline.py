"""From a frame to events, and the Protocols of what that takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge.policy import EmotionPolicy
from edge.preprocess import crop_face
from edge.records import Event, Face, Frame, Reading, Scores
from edge.tracker import Tracker


class FrameSource(Protocol):
    """A context manager that gives frames while it is entered."""

    @property
    def online(self) -> bool:
        """Whether frames come."""

    @property
    def drops(self) -> dict[str, int]:
        """Frames that were not given, by cause."""

    def take(self, timeout: float) -> Frame | None:
        """The next frame, or None if there is none within `timeout` seconds. Raises EndOfStream."""

    def __enter__(self) -> "FrameSource": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class FaceDetector(Protocol):
    """Finds the faces of a frame."""

    def detect(self, frame: Frame) -> list[Face]:
        """All of them, largest first."""


class Classifier(Protocol):
    """Reads faces."""

    def classify(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[Scores]:
        """Scores of (48, 48) uint8 faces, in their order."""


class Sink(Protocol):
    """Where events go."""

    def publish(self, event: Event) -> None:
        """Take an event; never blocks."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one frame showed."""

    frame: Frame
    readings: list[Reading]
    """Every face, also those that coast."""
    events: list[Event]


class Pipeline:
    """One camera's way from frame to events; holds what is known of its faces."""

    def __init__(self, detector: FaceDetector, tracker: Tracker, classifier: Classifier, policy: EmotionPolicy) -> None:
        self._detector, self._tracker, self._classifier, self._policy = detector, tracker, classifier, policy
        self._last_frame: Frame | None = None

    def step(self, frame: Frame) -> Sight:
        """Find, follow and read the faces of a frame."""
        if self._last_frame is not None and frame.size != self._last_frame.size:
            self._tracker.clear()  # boxes of another resolution mean other places
        faces = self._detector.detect(frame)
        tracks = self._tracker.update(faces, frame.media_time)
        visible = [track for track in tracks if track.missed == 0]
        crops = [crop_face(frame.grey, track.box) for track in visible]
        scores = dict(zip((track.id for track in visible), self._classifier.classify(crops), strict=True))
        readings, events = self._policy.update(tracks, [scores.get(track.id) for track in tracks], frame)
        self._last_frame = frame
        return Sight(frame, readings, events)

    def finish(self) -> Sight | None:
        """End all faces, because no frame follows for now; None if there never was a frame."""
        self._tracker.clear()
        if self._last_frame is None:
            return None
        readings, events = self._policy.update([], [], self._last_frame)
        return Sight(self._last_frame, readings, events)
