"""Sources that have an end: videos, pictures, and the built-in clip. Every frame, in order."""

import fnmatch
import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge import clip
from edge.address import without_secret
from edge.config import CameraConfig
from edge.errors import BadDataError, EndOfStream, InputNotFoundError
from edge.preprocess import usable
from edge.records import Frame

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
Pictures = Iterator[tuple[float, Image | None]]  # seconds from the start, and the picture if it could be decoded

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LATE_MAX_S = 1.0
DAMAGED_FRAMES_MAX = 10_000  # in a row; containers may promise any number
FALLBACK_FPS = 15.0  # for pictures without a rate, and for files that state none


def open_file(config: CameraConfig, source: str) -> "FileSource":
    """The built-in clip, or the video or pictures that `source` names.

    Raises InputNotFoundError for what is not there, BadDataError for what is no video.
    """
    if source == "builtin":
        realtime, loop = config.realtime is not False, config.loop is not False
        return FileSource(source, clip.frames, realtime, loop, config.max_fps)
    realtime, loop = bool(config.realtime), bool(config.loop)
    path = Path(source.removeprefix("file://"))
    try:
        pictures = _find_pictures(str(path))
    except OSError as error:
        raise InputNotFoundError(f"camera.source: {without_secret(source)}: {error.strerror}") from None
    if pictures is not None:
        fps = config.fps or FALLBACK_FPS
        return FileSource(source, lambda: _read_pictures(pictures, fps), realtime, loop, config.max_fps)
    if not path.is_file():
        raise InputNotFoundError(f"camera.source: {without_secret(source)}: no such file, folder or camera")
    _open_video(path).release()
    return FileSource(source, lambda: _read_video(path), realtime, loop, config.max_fps)


class FileSource:
    """Every picture of a file in order; nothing is dropped but what is over `max_fps` of the file's own time.

    So the same file gives the same events.
    """

    online = True
    starting = False

    def __init__(
        self, name: str, pictures: Callable[[], Pictures], realtime: bool, loop: bool, max_fps: float | None = None
    ) -> None:
        self._name, self._open, self._realtime, self._loop = name, pictures, realtime, loop
        self._pictures = pictures()
        self._pending: tuple[float, Image] | None = None
        self._seq = 0
        self._pass_began_at_seq, self._pass_offset_s, self._position_s = 0, 0.0, 0.0
        self._opened_at, self._opened_wall = time.monotonic(), _utc_now()
        self._undecodable = 0
        self._interval_s = 0.99 / max_fps if max_fps else 0.0  # frames at exactly this rate are all taken
        self._over_max_fps, self._taken_at_s = 0, -float("inf")

    @property
    def drops(self) -> dict[str, int]:
        """Pictures that were passed over, by cause."""
        return {"superseded": 0, "undecodable": self._undecodable, "over_max_fps": self._over_max_fps, "too_hot": 0}

    def thin(self, every: int) -> None:
        """Declined: a file's events do not depend on how hot the device is."""

    def __enter__(self) -> "FileSource":
        self._opened_at, self._opened_wall = time.monotonic(), _utc_now()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pictures = iter(())

    def take(self, timeout: float) -> Frame | None:
        """The next frame; None if it is not due within `timeout` seconds. Raises EndOfStream."""
        if self._pending is None:
            self._pending = self._next_picture()
        position_s, image = self._pending
        if self._realtime:
            wait_s = self._opened_at + position_s - time.monotonic()
            if wait_s < -LATE_MAX_S:
                self._opened_at -= wait_s  # after a pause: go on from here instead of racing through what was missed
                self._opened_wall -= timedelta(seconds=wait_s)
            time.sleep(max(0.0, min(wait_s, timeout)))
            if wait_s > timeout:
                return None
        self._pending = None
        wall_time = self._opened_wall + timedelta(seconds=position_s)
        frame = Frame(image, self._seq, time.monotonic(), wall_time, media_time=position_s)
        self._seq += 1
        return frame

    def due_in(self) -> float:
        """Seconds until the next frame is due; 0 where it has not been looked at yet."""
        if self._pending is None or not self._realtime:
            return 0.0
        return max(0.0, self._opened_at + self._pending[0] - time.monotonic())

    def _next_picture(self) -> tuple[float, Image]:
        while True:
            for position_s, image in self._pictures:
                self._position_s = self._pass_offset_s + position_s
                if image is None:
                    self._undecodable += 1
                elif self._position_s - self._taken_at_s < self._interval_s:
                    self._over_max_fps += 1
                else:
                    self._taken_at_s = self._position_s
                    return self._position_s, image
            if self._seq == 0:
                raise BadDataError(f"camera.source: {self._name}: no picture in it can be decoded")
            if not self._loop or self._seq == self._pass_began_at_seq:
                if self._undecodable:
                    log.warning("%s: %d pictures could not be decoded", self._name, self._undecodable)
                raise EndOfStream
            # How long the last picture lasts is not known; its follower must only come after it.
            self._pass_began_at_seq, self._pass_offset_s = self._seq, self._position_s + 1 / FALLBACK_FPS
            self._pictures = self._open()


def _find_pictures(source: str) -> list[Path] | None:
    """The pictures that a folder, a pattern or a single picture names, in order; None if it names none of these."""
    path = Path(source)
    if path.is_file():
        return [path] if path.suffix.lower() in PICTURE_SUFFIXES else None
    if path.is_dir():
        folder, pattern = path, "*"
    elif set("*?%") & set(path.name):
        folder, pattern = path.parent, re.sub(r"%0?\d*d", "*", path.name)
    else:
        return None
    names = fnmatch.filter((file.name for file in folder.iterdir()), pattern)
    found = [folder / name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    if not found:
        raise InputNotFoundError(f"camera.source: {without_secret(source)}: no pictures there")
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """`f2.jpg` before `f10.jpg`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _read_pictures(paths: list[Path], fps: float) -> Pictures:
    for index, path in enumerate(paths):
        try:
            # In 8 bits and upright: a camera's own EXIF rotation is applied.
            yield index / fps, usable(cv2.imread(str(path), cv2.IMREAD_COLOR))
        except cv2.error:  # a header that promises more than OpenCV's limit on pixels
            yield index / fps, None


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise BadDataError(f"camera.source: {path}: not a video that OpenCV can read")
    return capture


def _read_video(path: Path) -> Pictures:
    capture = _open_video(path)
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps <= 1000 else FALLBACK_FPS
        position_s, count, failures = 0.0, 0, 0
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        while failures <= min(max(promised - count, 0), DAMAGED_FRAMES_MAX):
            if not capture.grab():
                failures += 1  # the end, or one damaged packet: then the next call goes on behind it
                continue
            failures = 0
            # A frame's own time where the file has it; broken ones repeat it or go back.
            position_s = max(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, position_s + 0.01 / fps) if count else 0.0
            count += 1
            yield position_s, usable(capture.retrieve()[1])
        # Containers without an index promise an estimate, some a negative number.
        if count < promised * 0.9:
            log.warning("%s: ends early: %d of %d frames could be read", path, count, promised)
    finally:
        capture.release()


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)
