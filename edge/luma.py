"""Grey frames as cameras and videos carry them: none is made colourful only to be made grey again."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge.address import ffmpeg_name
from edge.errors import BadDataError
from edge.picturefile import decode
from edge.preprocess import as_grey, usable

Image = npt.NDArray[np.uint8]

BLACK, WHITE = 16, 235  # of luma in its usual range (ITU-R BT.601); JPEGs and some cameras use 0 to 255
ROWS_COMPARED = 4  # every fourth is enough
ALIKE = 2.0  # grey levels; rounding alone makes a difference of one

# The grey level of each level of luma.
FULL_RANGE = np.arange(256, dtype=np.uint8)
LIMITED_RANGE = np.clip(np.rint((np.arange(256) - BLACK) * 255 / (WHITE - BLACK)), 0, 255).astype(np.uint8)


class JpegCapture:
    """Frames that come as JPEGs, made grey as they are decoded, which takes half the time of making them colourful.

    jpegs: gives what came, undecoded.
    """

    def __init__(self, jpegs: cv2.VideoCapture) -> None:
        self._jpegs = jpegs

    def grab(self) -> bool:
        """Wait for the next frame; False if none comes."""
        return self._jpegs.grab()

    def retrieve(self) -> tuple[bool, Any]:
        """Whether the grabbed frame could be decoded, and it: (h, w) uint8."""
        there, jpeg = self._jpegs.retrieve()
        if not there or jpeg is None:  # None: it came without a byte
            return False, None
        if min(jpeg.shape[:2]) > 1:  # a picture: it was decoded all the same
            return True, jpeg
        try:
            return True, decode(np.asarray(jpeg, np.uint8), grey=True)
        except BadDataError:
            return False, None

    def release(self) -> None:
        """Let the camera go."""
        self._jpegs.release()


class LumaVideo:
    """A video file whose frames are grey. planes: gives their luma, and has given `first`, which comes again.

    levels: (256,) uint8, the grey level of each level of luma.
    """

    def __init__(self, planes: cv2.VideoCapture, levels: Image, first: Image) -> None:
        self._planes, self._levels = planes, levels
        self._first: Image | None = first

    def get(self, fact: int) -> float:
        """As `cv2.VideoCapture.get`."""
        return self._planes.get(fact)

    def grab(self) -> bool:
        """Go on to the next frame; False if none comes."""
        return self._first is not None or self._planes.grab()

    def retrieve(self) -> tuple[bool, Any]:
        """Whether the grabbed frame could be decoded, and it: (h, w) uint8."""
        first, self._first = self._first, None
        there, luma = self._planes.retrieve() if first is None else (True, first)
        return there, luma if not there or self._levels is FULL_RANGE else cv2.LUT(luma, self._levels)

    def release(self) -> None:
        """Close the file."""
        self._planes.release()


def open_video(path: Path) -> cv2.VideoCapture:
    """A video file in colours, decoded by half of the cores: the others find and read faces."""
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    return cv2.VideoCapture(ffmpeg_name(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])


def as_luma(path: Path, video: cv2.VideoCapture) -> LumaVideo | None:
    """A video that was just opened in colours, in grey from its beginning; None if its luma cannot be had.

    OpenCV tells neither the luma's range nor whether what it gives is luma at all: both show beside the colours of
    the first frame.
    """
    with ThreadPoolExecutor(1) as beside:
        opened = beside.submit(_open_planes, path)
        coloured = usable(video.read()[1])
        planes, luma = opened.result()
    if luma is None or coloured is None or luma.dtype != np.uint8 or luma.shape != coloured.shape[:2]:
        return None
    some, grey = luma[::ROWS_COMPARED], as_grey(coloured[::ROWS_COMPARED])
    alike = [levels for levels in (FULL_RANGE, LIMITED_RANGE) if _distance(cv2.LUT(some, levels), grey) < ALIKE]
    return LumaVideo(planes, alike[0], np.asarray(luma, np.uint8)) if len(alike) == 1 else None


def _open_planes(path: Path) -> tuple[cv2.VideoCapture, Any]:
    """The file's luma, and the first of it."""
    planes = open_video(path)
    planes.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return planes, planes.read()[1]


def _distance(one: Any, other: Any) -> float:
    return float(np.median(np.asarray(cv2.absdiff(one, other))))
