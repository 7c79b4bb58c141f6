"""Face search with OpenCV's Haar cascade (Viola and Jones 2001)."""

from pathlib import Path

import cv2
import numpy as np

from edge.config import HaarConfig
from edge.errors import ConfigError
from edge.records import Box, Face, Frame

CASCADE = "haarcascade_frontalface_default.xml"
# Debian's python3-opencv keeps the cascades in a package of their own (opencv-data).
DEBIAN_CASCADES = Path("/usr/share/opencv4/haarcascades")


class HaarDetector:
    """Searches whole frames, shrunk to `search_width`: the search is by far the dearest step of the pipeline."""

    def __init__(self, config: HaarConfig) -> None:
        self._config = config
        path = config.cascade or _installed_cascade()
        if not path.is_file():
            raise ConfigError(f"detector.cascade: {path}: no such file")
        self._cascade = cv2.CascadeClassifier()
        try:
            loaded = self._cascade.load(str(path))
        except cv2.error:
            loaded = False
        if not loaded:
            raise ConfigError(f"detector.cascade: {path}: not a Haar cascade that OpenCV can read")

    def detect(self, frame: Frame) -> list[Face]:
        """The frontal faces of a frame, largest first. `confidence` is the number of overlapping hits."""
        grey = frame.grey
        shrink = max(1.0, grey.shape[1] / self._config.search_width)
        if shrink > 1:
            size = (round(grey.shape[1] / shrink), max(1, round(grey.shape[0] / shrink)))
            grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
        smallest = max(1, round(self._config.min_face / shrink))
        boxes, hits = self._cascade.detectMultiScale2(
            grey,
            scaleFactor=self._config.scale_factor,
            minNeighbors=self._config.min_neighbors,
            minSize=(smallest, smallest),
        )
        faces = [
            Face(Box(*(round(float(side) * shrink) for side in box)), confidence=float(count))
            for box, count in zip(boxes, hits, strict=True)
        ]
        return sorted(faces, key=lambda face: -face.box.w)


def _installed_cascade() -> Path:
    data = getattr(cv2, "data", None)
    return Path(data.haarcascades if data is not None else DEBIAN_CASCADES) / CASCADE
