"""The built-in clip: a person comes into an empty scene, moves about, and leaves; made from one portrait."""

import math
from collections.abc import Iterator
from importlib import resources

import cv2
import numpy as np
import numpy.typing as npt

FPS = 15.0
SIZE = (640, 480)  # width, height in px
CYCLE_S = 16.0
ENTER_S, LEAVE_S, GONE_S = 2.0, 12.0, 14.0  # the person has arrived, turns to leave, is out of the picture
BACKGROUND = (104, 96, 88)  # BGR
PORTRAIT_FACE = (224.0, 118.0)  # px; the face's centre in portrait.jpg


def frames() -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """One cycle of the scene: seconds from its start, and a (480, 640, 3) BGR uint8 picture."""
    encoded = resources.files("edge").joinpath("assets/portrait.jpg").read_bytes()
    portrait = np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    for index in range(round(CYCLE_S * FPS)):
        at_s = index / FPS
        yield at_s, _draw(portrait, at_s)


def _draw(portrait: npt.NDArray[np.uint8], at_s: float) -> npt.NDArray[np.uint8]:
    zoom = 1.25 + 0.25 * math.sin(2 * math.pi * at_s / 5)
    x = 320 + 60 * math.sin(2 * math.pi * at_s / 7) + _walk(at_s)
    y = 210 + 30 * math.sin(2 * math.pi * at_s / 3)
    face_x, face_y = PORTRAIT_FACE
    placement = np.array([[zoom, 0, x - zoom * face_x], [0, zoom, y - zoom * face_y]])
    picture = cv2.warpAffine(
        portrait, placement, SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=BACKGROUND
    )
    return np.asarray(picture, np.uint8)


def _walk(at_s: float) -> float:
    """How far the person is from the middle of the scene, in px: in from the right, out to the left."""
    outside = 1000.0
    if at_s < ENTER_S:
        return outside * (1 - at_s / ENTER_S) ** 2
    return -outside * (min(max(at_s - LEAVE_S, 0) / (GONE_S - LEAVE_S), 1)) ** 2
