"""From a frame to events, and the Protocols of what that takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge.policy import EmotionPolicy
from edge.preprocess import crop_face
from edge.records import Box, Event, Face, Frame, Reading, Scores, Track
from edge.tracker import Tracker

STILL_READ_EVERY_S = 0.5  # of a face in a picture that does not change
# A face whose last two readings say the same is read so much more rarely. With 2 or 3, a change is told after 0.70 s in
# the median (p95 1.00 s) of 168 sequences of FER2013 faces; with 4 p95 is 1.03 s. Against reading ten times a second
# what is told differs on one of ten test clips, whose emotions are near one another: in 5 % of its frames with 2, in
# 9 % with 3.
STEADY_RARER = 3
SAME_READING = 0.1  # of probability, that each emotion's may be off in another reading that says the same
READ_EARLY = 0.9  # of the time between two readings, so that frames at exactly this rate are all read


class FrameSource(Protocol):
    """A context manager that gives frames while it is entered."""

    @property
    def online(self) -> bool:
        """Whether frames come."""

    @property
    def drops(self) -> dict[str, int]:
        """Frames that were not given, by cause."""

    @property
    def starting(self) -> bool:
        """Whether it is not known yet if frames will come."""

    def thin(self, every: int) -> None:
        """Give only one of so many frames, to spare the processor; a source that drops nothing may decline."""

    def stop(self) -> None:
        """Begin to end, where that takes time; leaving it waits."""

    def take(self, timeout: float) -> Frame | None:
        """The next frame, or None if there is none within `timeout` seconds. Raises EndOfStream."""

    def due_in(self) -> float:
        """Seconds until `take` may have a frame; inf if nobody knows."""

    def __enter__(self) -> "FrameSource": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class FaceDetector(Protocol):
    """Finds the faces of a frame."""

    def detect(self, frame: Frame, window: Box | None = None, known: Sequence[Box] = ()) -> list[Face]:
        """All of them, largest first; only those in a part of the frame, if `window` is given.

        known: faces that were just found in this frame; one that has its size still may be left out.
        """


class FaceSearch(Protocol):
    """Finds the faces of successive frames."""

    @property
    def moved(self) -> bool:
        """Whether the last frame showed anything new."""

    def find(self, frame: Frame, known: Sequence[Box]) -> list[Face]:
        """Those of the next frame. known: where faces were in the frame before."""

    def clear(self) -> None:
        """Forget what was seen: what comes next is another picture."""


class Classifier(Protocol):
    """Reads faces."""

    def classify(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[Scores]:
        """Scores of (48, 48) uint8 faces, in their order."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one frame showed."""

    frame: Frame
    readings: list[Reading]
    """Every face, also those that coast."""
    events: list[Event]


class Pipeline:
    """One camera's way from frame to events; holds what is known of its faces.

    reads_per_s: each face is read so often at most, a third as often while it shows the same; its scores hold until it
    is read again. Emotions change more slowly than frames come, and where nothing moves, hardly: there it is read again
    only lest a small change be missed.
    """

    def __init__(
        self, search: FaceSearch, tracker: Tracker, classifier: Classifier, policy: EmotionPolicy, reads_per_s: float
    ) -> None:
        self._search, self._tracker, self._classifier, self._policy = search, tracker, classifier, policy
        self._read_every_s = READ_EARLY / reads_per_s
        self._reads: dict[int, _Read] = {}
        self._last_frame: Frame | None = None

    def step(self, frame: Frame) -> Sight:
        """Find, follow and read the faces of a frame."""
        gone: list[Event] = []
        if self._last_frame is not None and frame.size != self._last_frame.size:
            gone = self._end(self._last_frame)  # boxes of another resolution mean other places
        faces = self._search.find(frame, self._tracker.known)
        tracks = self._tracker.update(faces, frame.media_time)
        readings, events = self._policy.update(tracks, self._read(tracks, frame), frame)
        self._last_frame = frame
        return Sight(frame, readings, gone + events)

    def use(self, classifier: Classifier) -> None:
        """Read with another network from now on; what is known of the faces stays."""
        self._classifier = classifier

    def finish(self) -> Sight | None:
        """End all faces, because no frame follows for now; None if there never was a frame."""
        return None if self._last_frame is None else Sight(self._last_frame, [], self._end(self._last_frame))

    def _read(self, tracks: Sequence[Track], frame: Frame) -> list[Scores | None]:
        """The scores of each track, None for one that is not due; all that are due are read in one go."""
        at = frame.media_time
        visible = [track for track in tracks if track.missed == 0]
        due = [track for track in visible if self._is_due(track, at)]
        new = self._classifier.classify([crop_face(frame.image, track.box) for track in due])
        read = {track.id: self._next_read(track, at, scores) for track, scores in zip(due, new, strict=True)}
        self._reads = {track.id: self._reads[track.id] for track in tracks if track.id in self._reads} | read
        return [read[track.id].scores if track.id in read else None for track in tracks]

    def _is_due(self, track: Track, at: float) -> bool:
        read = self._reads.get(track.id)
        if read is None:
            return True
        every_s = self._read_every_s * (STEADY_RARER if read.steady else 1)
        return at - read.at >= (every_s if self._search.moved else max(STILL_READ_EVERY_S, every_s))

    def _next_read(self, track: Track, at: float, scores: Scores) -> "_Read":
        before = self._reads.get(track.id)
        steady = before is not None and bool(np.abs(scores.values - before.scores.values).max() < SAME_READING)
        return _Read(at, scores, steady)

    def _end(self, frame: Frame) -> list[Event]:
        """End all faces, which `frame` was the last to show."""
        self._tracker.clear()
        self._search.clear()
        self._reads.clear()
        _, events = self._policy.update([], [], frame)
        return events


@dataclass(frozen=True, slots=True)
class _Read:
    at: float
    scores: Scores
    steady: bool
    """Whether it says what the one before said."""
