"""Small stand-ins for parts that a test is not about."""

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from edge.labels import EMOTIONS
from edge.messages import Origin
from edge.records import Box, Face, Frame, Scores, Track

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
BOX = Box(10, 10, 100, 100)
ORIGIN = Origin("pi", "camera", "0" * 12)


def frame(at: float = 0.0, seq: int = 0, size: tuple[int, int] = (640, 480)) -> Frame:
    return Frame(np.full((size[1], size[0], 3), 128, np.uint8), seq, at, EPOCH, media_time=at)


def scores(**probabilities: float) -> Scores:
    """The named emotions as given; the rest share what is left."""
    rest = (1 - sum(probabilities.values())) / (len(EMOTIONS) - len(probabilities))
    return Scores(np.array([probabilities.get(emotion, rest) for emotion in EMOTIONS], np.float32))


def track(number: int = 1, box: Box = BOX, missed: int = 0) -> Track:
    return Track(number, box, age=5, missed=missed)


class ScriptedSearch:
    """Finds what it was told to, frame by frame; then nothing."""

    def __init__(self, *boxes: list[Box], moved: bool = True) -> None:
        self._boxes = iter(boxes)
        self.moved = moved

    def find(self, frame: Frame, known: Sequence[Box]) -> list[Face]:
        return [Face(box, 5.0) for box in next(self._boxes, [])]

    def clear(self) -> None:
        pass


class ConstantClassifier:
    """Sees the same in every face, and remembers the crops."""

    def __init__(self, seen: Scores) -> None:
        self._seen = seen
        self.crops: list[np.ndarray] = []

    def classify(self, crops: list[np.ndarray]) -> list[Scores]:
        self.crops += crops
        return [self._seen] * len(crops)
