"""Face search with OpenCV's Haar cascade (Viola and Jones 2001): over a whole frame, and near a face that is known."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge.config import HaarConfig
from edge.errors import ConfigError
from edge.preprocess import as_grey
from edge.records import Box, Face, Frame

CASCADE = "haarcascade_frontalface_default.xml"
# Debian's python3-opencv keeps the cascades in a package of their own (opencv-data).
DEBIAN_CASCADES = Path("/usr/share/opencv4/haarcascades")

# The search near a known face: shrunk so that the face has one of the cascade's sizes (24 px times a power of
# FOLLOW_SCALE), and tried at that size alone. It is the first size for which OpenCV steps by single pixels and not by
# two: below it ten times as many faces are missed. Sweeps tell when a face has become larger or smaller.
FOLLOW_SCALE = 1.2
FOLLOW_SIDE = 50  # px


class HaarDetector:
    """Searches frames, shrunk to `search_width`: by far the dearest step of the pipeline. One thread at a time.

    coarsest: the most that a frame is shrunk by, however wide it is. Below 24 px of what is left no face is seen.
    """

    def __init__(self, config: HaarConfig, coarsest: float = math.inf) -> None:
        self._config, self._coarsest = config, coarsest
        self._cascade = _load_cascade(config)

    def detect(self, frame: Frame, window: Box | None = None) -> list[Face]:
        """The frontal faces of a frame, largest first. `confidence` is the number of overlapping hits.

        window: look only there, at the same scale.
        """
        inside = frame.part(window)
        if inside is None:
            return []
        shrink = max(1.0, min(frame.size[0] / self._config.search_width, self._coarsest))
        grey = _shrunk(as_grey(inside.cut(frame.image)), shrink)
        smallest = max(1, round(self._config.min_face / shrink))
        boxes, hits = self._cascade.detectMultiScale2(
            grey,
            scaleFactor=self._config.scale_factor,
            minNeighbors=self._config.min_neighbors,
            minSize=(smallest, smallest),
        )
        faces = [_face(box, count, shrink, inside) for box, count in zip(boxes, hits, strict=True)]
        return sorted(faces, key=lambda face: -face.box.w)


class HaarFollower:
    """Searches around faces that are known, at about their size: 30 times cheaper than a frame. One thread at a time.

    It has a cascade of its own, because a search over a whole frame may run at the same time.
    """

    def __init__(self, config: HaarConfig) -> None:
        self._config = config
        self._cascade = _load_cascade(config)

    def near(self, frame: Frame, box: Box, reach: float) -> Face | None:
        """The face that lies around `box`, if it is still there; the nearest to its place if there are several.

        reach: how far from the box to look, in shares of its side.
        """
        side = max(box.w, box.h)
        patch = frame.whole.common(box.grown(round(reach * side)))
        if patch is None:
            return None
        shrink = side / FOLLOW_SIDE
        boxes, hits = self._cascade.detectMultiScale2(
            _shrunk(as_grey(patch.cut(frame.image)), shrink),
            scaleFactor=FOLLOW_SCALE,
            minNeighbors=self._config.follow_neighbors,
            minSize=(FOLLOW_SIDE - 2, FOLLOW_SIDE - 2),
            maxSize=(FOLLOW_SIDE + 2, FOLLOW_SIDE + 2),
        )
        faces = [_face(found, count, shrink, patch) for found, count in zip(boxes, hits, strict=True)]
        return max(faces, key=lambda face: face.box.overlap(box), default=None)


def _shrunk(grey: npt.NDArray[np.uint8], shrink: float) -> npt.NDArray[np.uint8]:
    height, width = grey.shape
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    if size == (width, height):
        return grey
    return np.asarray(
        cv2.resize(grey, size, interpolation=cv2.INTER_AREA if shrink > 1 else cv2.INTER_LINEAR), np.uint8
    )


def _face(box: Sequence[int], hits: int, shrink: float, inside: Box) -> Face:
    x, y, w, h = (round(float(side) * shrink) for side in box)
    return Face(Box(inside.x + x, inside.y + y, w, h), confidence=float(hits))


def _load_cascade(config: HaarConfig) -> cv2.CascadeClassifier:
    path = config.cascade or _installed_cascade()
    if not path.is_file():
        raise ConfigError(f"detector.cascade: {path}: no such file")
    cascade = cv2.CascadeClassifier()
    try:
        loaded = cascade.load(str(path))
    except cv2.error:
        loaded = False
    if not loaded:
        raise ConfigError(f"detector.cascade: {path}: not a Haar cascade that OpenCV can read")
    return cascade


def _installed_cascade() -> Path:
    data = getattr(cv2, "data", None)
    return Path(data.haarcascades if data is not None else DEBIAN_CASCADES) / CASCADE
