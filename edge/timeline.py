"""A picture of who showed what when: a lane per face, its seven scores stacked over time."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from edge.draw import COLOURS, FONT, PANEL, WHITE
from edge.labels import EMOTIONS, UNCERTAIN
from edge.pipeline import Sight

BIN_S = 0.2  # finer than anyone reads it, and a day of video still fits into memory
LANES_MAX = 12
WIDTH, LANE, BAND, GAP = 1280, 72, 12, 18  # px: the picture, a lane's scores, its stable emotion, between lanes
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 60, 50  # px of margin
TICKS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
GREY = (110, 104, 98)


class Timeline:
    """Collects what the pipeline saw, and draws it."""

    def __init__(self) -> None:
        # Per face and bin of time: the sum of the scores, how many, and the index of the stable emotion.
        self._faces: dict[int, dict[int, npt.NDArray[np.float64]]] = {}
        self._end_s = 0.0

    def add(self, sight: Sight) -> None:
        """Take what one frame showed."""
        self._end_s = max(self._end_s, sight.frame.media_time)
        index = int(sight.frame.media_time / BIN_S)
        for reading in sight.readings:
            bins = self._faces.setdefault(reading.track.id, {})
            entry = bins.setdefault(index, np.zeros(len(EMOTIONS) + 2))
            entry[: len(EMOTIONS)] += reading.scores.values
            entry[-2] += 1
            entry[-1] = EMOTIONS.index(reading.emotion) if reading.emotion else -1

    def draw(self) -> npt.NDArray[np.uint8]:
        """A (h, 1280, 3) BGR picture: at most `LANES_MAX` faces, those seen longest, in the order of their coming."""
        longest = sorted(self._faces, key=lambda face: -len(self._faces[face]))[:LANES_MAX]
        lanes = sorted(longest)
        height = TOP + max(1, len(lanes)) * (LANE + BAND + GAP) + BOTTOM
        picture = np.full((height, WIDTH, 3), PANEL, np.uint8)
        self._draw_legend(picture)
        for row, face in enumerate(lanes):
            self._draw_lane(picture, face, TOP + row * (LANE + BAND + GAP))
        self._draw_axis(picture)
        left_out = len(self._faces) - len(lanes)
        note = f"and {left_out} faces seen for shorter" if left_out else "" if lanes else "no face found"
        _write(picture, note, LEFT, height - 10)
        return picture

    @property
    def faces(self) -> int:
        """How many there were."""
        return len(self._faces)

    @property
    def _span_s(self) -> float:
        return max(self._end_s, BIN_S)

    def _x(self, at_s: float) -> int:
        return LEFT + round(at_s / self._span_s * (WIDTH - LEFT - RIGHT))

    def _draw_lane(self, picture: npt.NDArray[np.uint8], face: int, top: int) -> None:
        _write(picture, f"face {face}", 12, top + LANE // 2)
        cv2.rectangle(picture, (LEFT, top), (WIDTH - RIGHT, top + LANE), GREY, 1)
        for index, entry in self._faces[face].items():
            left, right = self._x(index * BIN_S), max(self._x(index * BIN_S) + 1, self._x((index + 1) * BIN_S))
            right = min(right, WIDTH - RIGHT)
            edges = np.concatenate([[0], np.cumsum(entry[: len(EMOTIONS)])]) / max(1e-6, entry[: len(EMOTIONS)].sum())
            rows = top + np.rint(edges * LANE).astype(int)
            for number, emotion in enumerate(EMOTIONS):
                picture[rows[number] : rows[number + 1], left:right] = COLOURS[emotion]
            stable = EMOTIONS[int(entry[-1])] if entry[-1] >= 0 else UNCERTAIN
            picture[top + LANE + 2 : top + LANE + BAND, left:right] = COLOURS[stable]

    def _draw_axis(self, picture: npt.NDArray[np.uint8]) -> None:
        step_s = next((tick for tick in TICKS_S if self._span_s / tick <= 12), TICKS_S[-1])
        y = picture.shape[0] - BOTTOM
        for count in range(math.floor(self._span_s / step_s) + 1):
            x = self._x(count * step_s)
            cv2.line(picture, (x, TOP), (x, y), GREY, 1)
            _write(picture, _clock(count * step_s), x - 14, y + 18)

    @staticmethod
    def _draw_legend(picture: npt.NDArray[np.uint8]) -> None:
        x = LEFT
        for name in (*EMOTIONS, UNCERTAIN):
            cv2.rectangle(picture, (x, 18), (x + 16, 34), COLOURS[name], -1)
            _write(picture, name, x + 22, 32)
            x += 50 + cv2.getTextSize(name, FONT, 0.5, 1)[0][0]


def _write(picture: npt.NDArray[np.uint8], text: str, x: int, y: int) -> None:
    cv2.putText(picture, text, (x, y), FONT, 0.5, WHITE, 1, cv2.LINE_AA)


def _clock(at_s: float) -> str:
    """`0:05`, `1:02:05`; with tenths where the steps are that small."""
    minutes, seconds = divmod(at_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{seconds:04.1f}" if seconds % 1 else f"{int(seconds):02d}"
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"
