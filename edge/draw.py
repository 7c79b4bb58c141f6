"""Faces and what they show, drawn onto a picture: the one style of everything that people look at."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from edge.labels import EMOTIONS, UNCERTAIN
from edge.records import Box, Reading, Scores

# BGR; told apart by people with red-green blindness too (after Okabe and Ito 2008).
COLOURS = {
    "angry": (0, 94, 213),
    "disgust": (115, 158, 0),
    "fear": (167, 121, 204),
    "happy": (66, 228, 240),
    "sad": (178, 114, 0),
    "surprise": (0, 159, 230),
    "neutral": (233, 180, 86),
    UNCERTAIN: (170, 170, 170),
}
PANEL, WHITE = (40, 36, 32), (245, 245, 245)
SHADE = 0.65  # how much of a panel covers the picture
FONT = cv2.FONT_HERSHEY_SIMPLEX
REFERENCE_WIDTH = 640  # px; lines and letters of this size fit a picture of this width,
REFERENCE_FACE = 100  # px; and a face of this one: in a large picture of many small faces they are small too
WINDOW_MAX = (1280, 720)  # px; what is larger is shown smaller, so that it fits on a screen
SIZES = 20  # steps of a twentieth: letters do not flicker with every pixel that a face comes nearer


def draw(image: npt.NDArray[np.uint8], readings: Iterable[Reading], bars: bool = True) -> npt.NDArray[np.uint8]:
    """A copy of a (h, w, 3) BGR or (h, w) grey picture with a box, a label and a bar chart of scores per face."""
    picture = image.copy() if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    readings = list(readings)
    if bars:
        taken = [reading.track.box for reading in readings]
        for reading in readings:
            taken.append(_draw_bars(picture, reading.scores, reading.track.box, taken, _scale(picture, reading)))
    for reading in readings:
        box, name, scale = reading.track.box, reading.emotion or UNCERTAIN, _scale(picture, reading)
        thickness = max(1, round(2 * scale))
        cv2.rectangle(picture, (box.x, box.y), (box.x + box.w, box.y + box.h), COLOURS[name], thickness, cv2.LINE_AA)
        share = f" {reading.confidence:.0%}" if reading.emotion else ""
        _draw_label(picture, f"{reading.track.id} {name}{share}", box, COLOURS[name], scale)
    return picture


def caption(image: npt.NDArray[np.uint8], lines: Sequence[str]) -> npt.NDArray[np.uint8]:
    """A copy of a (h, w, 3) BGR picture with lines of text on a panel in its top left corner."""
    picture = image.copy()
    shrunk = shrunk_by((picture.shape[1], picture.shape[0]))
    # As it is shown, letters of less than 10 px are hard to read.
    scale = max(0.85, min(1.5, picture.shape[1] / REFERENCE_WIDTH)) * shrunk
    size, row, pad, thickness = 0.5 * scale, round(20 * scale), round(6 * scale), round(shrunk)
    width = max((cv2.getTextSize(line, FONT, size, thickness)[0][0] for line in lines), default=0) + 2 * pad
    area = picture[: row * len(lines) + pad, :width]
    if area.size:
        area[:] = cv2.addWeighted(area, 1 - SHADE, np.full_like(area, PANEL), SHADE, 0)
    for index, line in enumerate(lines):
        cv2.putText(picture, line, (pad, row * (index + 1) - pad // 2), FONT, size, WHITE, thickness, cv2.LINE_AA)
    return picture


def shrunk_by(size: tuple[int, int]) -> float:
    """How many times smaller a picture of this width and height is shown; 1 where it fits into `WINDOW_MAX`."""
    return max(1.0, size[0] / WINDOW_MAX[0], size[1] / WINDOW_MAX[1])


def _scale(picture: npt.NDArray[np.uint8], reading: Reading) -> float:
    scale = max(0.6, min(picture.shape[1] / REFERENCE_WIDTH, reading.track.box.w / REFERENCE_FACE))
    return round(SIZES * scale) / SIZES


def _draw_label(
    picture: npt.NDArray[np.uint8], text: str, box: Box, colour: tuple[int, int, int], scale: float
) -> None:
    size, thickness = 0.55 * scale, max(1, round(1.2 * scale))
    (width, height), descent = cv2.getTextSize(text, FONT, size, thickness)
    pad = round(4 * scale)
    left, bottom = box.x, max(box.y, height + descent + 2 * pad)  # inside the picture, if the face touches its top
    cv2.rectangle(picture, (left, bottom - height - descent - 2 * pad), (left + width + 2 * pad, bottom), colour, -1)
    cv2.putText(picture, text, (left + pad, bottom - descent - pad), FONT, size, PANEL, thickness, cv2.LINE_AA)


def _draw_bars(picture: npt.NDArray[np.uint8], scores: Scores, box: Box, taken: Sequence[Box], scale: float) -> Box:
    """Beside the box, below or above it, where the least of faces and other charts is covered; returns the place."""
    row, text_width, bar_width, pad = round(15 * scale), round(62 * scale), round(70 * scale), round(5 * scale)
    width, height = text_width + bar_width + 3 * pad, row * len(EMOTIONS) + 2 * pad
    label = 2 * row  # above the box
    places = (
        (box.x + box.w + pad, box.y),
        (box.x - pad - width, box.y),
        (box.x, box.y + box.h + pad),
        (box.x, box.y - label - height),
    )
    inside = [
        Box(max(0, min(x, picture.shape[1] - width)), max(0, min(y, picture.shape[0] - height)), width, height)
        for x, y in places
    ]
    place = min(inside, key=lambda area: sum(_shared(area, other) for other in taken))
    left, top = place.x, place.y
    area = picture[top : top + height, left : left + width]
    panel = _panel(scale, row, width, height, pad)[: area.shape[0], : area.shape[1]]
    area[:] = cv2.addWeighted(area, 1 - SHADE, panel, 1, 0)
    for index, (emotion, value) in enumerate(zip(EMOTIONS, scores.values, strict=True)):
        y = top + pad + row * index
        start = left + 2 * pad + text_width
        end = start + max(1, round(bar_width * float(value)))
        cv2.rectangle(picture, (start, y + round(row * 0.2)), (end, y + round(row * 0.8)), COLOURS[emotion], -1)
    return place


@lru_cache(maxsize=16)
def _panel(scale: float, row: int, width: int, height: int, pad: int) -> npt.NDArray[np.uint8]:
    """What a chart without bars adds to a shaded picture, (height, width, 3): the same for all faces of a size."""
    panel = np.empty((height, width, 3), np.uint8)
    panel[:] = np.rint(np.multiply(PANEL, SHADE))
    for index, emotion in enumerate(EMOTIONS):
        baseline = (pad, pad + row * index + round(row * 0.75))
        cv2.putText(panel, emotion, baseline, FONT, 0.4 * scale, WHITE, max(1, round(scale * 0.8)), cv2.LINE_AA)
    return panel


def _shared(a: Box, b: Box) -> int:
    """Pixels that two boxes have in common."""
    shared = a.common(b)
    return 0 if shared is None else shared.w * shared.h
