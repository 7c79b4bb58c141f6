"""Face search with MTCNN (Zhang et al. 2016), for workstations: it finds more than Haar, and brings TensorFlow.

TensorFlow is loaded when a detector is made, and by nothing else in this package.
"""

import importlib
import os
from collections.abc import Sequence

import cv2
import numpy as np

from edge.config import MtcnnConfig
from edge.errors import ConfigError, pip
from edge.quiet import silent_stderr
from edge.records import Box, Face, Frame


class MtcnnDetector:
    """Searches frames, shrunk to `search_width`. One thread at a time. Raises ConfigError if it is not installed."""

    def __init__(self, config: MtcnnConfig) -> None:
        self._config = config
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            with silent_stderr():
                self._network = importlib.import_module("mtcnn").MTCNN()
        except ImportError as error:
            way_out = pip("install", "emotiond[mtcnn]")
            raise ConfigError(f"detector.kind: mtcnn: {error.name or error} is not installed: {way_out}") from None

    def detect(self, frame: Frame, window: Box | None = None, known: Sequence[Box] = ()) -> list[Face]:
        """The faces of a frame, largest first. `confidence` is the last stage's, from 0 to 1.

        window: look only there, at the same scale.
        """
        inside = frame.part(window)
        if inside is None:
            return []
        picture = inside.cut(frame.image)
        shrink = max(1.0, frame.size[0] / self._config.search_width)
        size = (max(1, round(inside.w / shrink)), max(1, round(inside.h / shrink)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if shrink > 1 else picture
        code = cv2.COLOR_GRAY2RGB if small.ndim == 2 else cv2.COLOR_BGR2RGB
        # Its own `min_face_size` is left alone: larger ones lose faces far larger than they say.
        found = self._network.detect_faces(np.asarray(cv2.cvtColor(small, code), np.uint8))
        faces = [
            Face(_square(face["box"], shrink, inside), float(face["confidence"]))
            for face in found
            if face["confidence"] >= self._config.min_confidence
        ]
        return sorted((face for face in faces if face.box.w >= self._config.min_face), key=lambda face: -face.box.w)


def _square(box: Sequence[float], shrink: float, inside: Box) -> Box:
    """In pixels of the frame. Its boxes are as high as Haar's and narrower; the emotion network knows squares."""
    x, y, w, h = (float(side) * shrink for side in box)
    side = max(w, h)
    return Box(round(inside.x + x + (w - side) / 2), round(inside.y + y + (h - side) / 2), round(side), round(side))
