"""From a picture and a face box to the network's input. Training, conversion and benchmarks use the same code."""

import cv2
import numpy as np
import numpy.typing as npt

from edge.records import Box

FACE_SIZE = 48  # pixels; FER2013's side


def usable(image: object) -> npt.NDArray[np.uint8] | None:
    """A decoded picture as (h, w, 3) BGR or (h, w) grey uint8; None if there is nothing in it to look at.

    16-bit pictures keep their upper eight bits; transparency is dropped.
    """
    if not isinstance(image, np.ndarray) or image.size == 0 or image.ndim not in (2, 3):
        return None
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        return None
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        return image.reshape(image.shape[:2])
    if channels == 4:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR), np.uint8)
    return image if channels == 3 else None


def as_grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(h, w) luminance of a (h, w, 3) BGR or (h, w) grey picture."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)


def crop_face(image: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
    """Cut the square around `box` and scale it to the network's input.

    Without a margin: FER2013's own frame is about a Haar box (median ratio 0.97, centred).
    image: (height, width, 3) BGR or (height, width) grey, uint8; only the square is made grey. Where the square leaves
    the picture, the picture's border is repeated.
    Returns (48, 48) uint8. Raises ValueError for a box that does not touch the picture.
    """
    height, width = image.shape[:2]
    side = max(1, box.w, box.h)
    left, top = round(box.x + box.w / 2 - side / 2), round(box.y + box.h / 2 - side / 2)
    right, bottom = left + side, top + side
    inside = image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if inside.size == 0:
        raise ValueError(f"face box {box} lies outside the picture of {width}x{height}")
    inside = as_grey(inside)
    overhang = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    if any(overhang):
        inside = np.asarray(cv2.copyMakeBorder(inside, *overhang, cv2.BORDER_REPLICATE), np.uint8)
    # Area averaging does not alias when a face shrinks; it has nothing to average when one grows.
    interpolation = cv2.INTER_AREA if side > FACE_SIZE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(inside, (FACE_SIZE, FACE_SIZE), interpolation=interpolation), np.uint8)
