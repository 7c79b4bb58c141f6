"""Sources of frames: webcams and streams (newest frame wins), files and pictures (every frame, in order)."""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge import clip
from edge.backoff import Backoff
from edge.config import CameraConfig
from edge.errors import BadDataError, EndOfStream, InputNotFoundError, ServiceUnavailableError
from edge.records import Frame

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
Pictures = Iterator[tuple[float, Image | None]]  # seconds from the start, and the picture if it could be decoded

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FALLBACK_FPS = 15.0  # for pictures without a rate, and for files that state none
SECRET_IN_URL = re.compile(r"//[^/@]*@")


def build_source(config: CameraConfig) -> "LiveSource | FileSource":
    """The source that `config.source` names. Raises InputNotFoundError or BadDataError; opens nothing live yet."""
    source = config.source
    if isinstance(source, int) or source.startswith("/dev/") or "://" in source:
        return LiveSource(config)
    if source == "builtin":
        return FileSource(clip.frames, realtime=config.realtime is not False, loop=config.loop is not False)
    realtime, loop = bool(config.realtime), bool(config.loop)
    pictures = _find_pictures(source)
    if pictures is not None:
        fps = config.fps or FALLBACK_FPS
        return FileSource(lambda: _read_pictures(pictures, fps), realtime, loop)
    path = Path(source)
    if not path.is_file():
        raise InputNotFoundError(f"camera.source: {source}: no such file, folder or camera")
    _open_video(path).release()
    return FileSource(lambda: _read_video(path), realtime, loop)


def usable(image: object) -> Image | None:
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


class FileSource:
    """Every picture of a file in order; nothing is dropped, so the same file gives the same events."""

    online = True

    def __init__(self, pictures: Callable[[], Pictures], realtime: bool, loop: bool) -> None:
        self._open, self._realtime, self._loop = pictures, realtime, loop
        self._pictures = pictures()
        self._pending: tuple[float, Image] | None = None
        self._seq = 0
        self._pass_began_at_seq, self._pass_offset_s, self._position_s = 0, 0.0, 0.0
        self._opened_at, self._opened_wall = time.monotonic(), _utc_now()
        self._undecodable = 0

    @property
    def drops(self) -> dict[str, int]:
        """Pictures that were passed over, by cause."""
        return {"superseded": 0, "undecodable": self._undecodable}

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
            time.sleep(max(0.0, min(wait_s, timeout)))
            if wait_s > timeout:
                return None
        self._pending = None
        wall_time = self._opened_wall + timedelta(seconds=position_s)
        frame = Frame(image, self._seq, time.monotonic(), wall_time, media_time=position_s)
        self._seq += 1
        return frame

    def _next_picture(self) -> tuple[float, Image]:
        while True:
            for position_s, image in self._pictures:
                self._position_s = self._pass_offset_s + position_s
                if image is not None:
                    return self._position_s, image
                self._undecodable += 1
            if not self._loop or self._seq == self._pass_began_at_seq:
                raise EndOfStream
            # How long the last picture lasts is not known; its follower must only come after it.
            self._pass_began_at_seq, self._pass_offset_s = self._seq, self._position_s + 1 / FALLBACK_FPS
            self._pictures = self._open()


def _find_pictures(source: str) -> list[Path] | None:
    """The pictures that a folder, a pattern or a single picture names, in order; None if it names none of these."""
    path = Path(source)
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES]
    elif path.is_file():
        return [path] if path.suffix.lower() in PICTURE_SUFFIXES else None
    elif pattern := re.sub(r"%0?\d*d", "*", path.name) if set("*?%") & set(path.name) else None:
        found = list(path.parent.glob(pattern)) if path.parent.is_dir() else []
    else:
        return None
    if not found:
        raise InputNotFoundError(f"camera.source: {source}: no pictures there")
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """`f2.jpg` before `f10.jpg`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _read_pictures(paths: list[Path], fps: float) -> Pictures:
    for index, path in enumerate(paths):
        try:
            yield index / fps, usable(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        except cv2.error:  # a header that promises more than OpenCV's limit on pixels
            yield index / fps, None


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise BadDataError(f"camera.source: {path}: not a video that OpenCV can read")
    return capture


def _read_video(path: Path) -> Pictures:
    capture = _open_video(path)
    with contextlib.closing(_Releasing(capture)):
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps <= 1000 else FALLBACK_FPS
        position_s, count = 0.0, 0
        while capture.grab():
            # A frame's own time where the file has it; broken ones repeat it or go back.
            position_s = max(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, position_s + 0.01 / fps) if count else 0.0
            count += 1
            yield position_s, usable(capture.retrieve()[1])
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # Containers without an index promise an estimate, some a negative number.
        if count < promised * 0.9:
            log.warning("%s: ends early: %d of %d frames could be read", path, count, promised)


class _Releasing:
    """`contextlib.closing` for OpenCV's `release`."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self.close = capture.release


class LatestFrame:
    """A slot for one frame between a capture thread and the loop: the newest wins, what it replaces is counted."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._failure: BaseException | None = None
        self.superseded = 0

    def put(self, frame: Frame) -> None:
        """Leave a frame for `take`."""
        with self._changed:
            self.superseded += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def fail(self, failure: BaseException) -> None:
        """Let `take` raise `failure` from now on."""
        with self._changed:
            self._failure = failure
            self._changed.notify()

    def take(self, timeout: float) -> Frame | None:
        """The newest frame not taken yet, or None after `timeout` seconds. Raises what was given to `fail`."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._failure is not None, timeout)
            if self._failure is not None:
                raise self._failure
            frame, self._frame = self._frame, None
            return frame


class LiveSource:
    """A webcam or a network stream, read by one thread that also opens it anew whenever it is lost.

    Entering waits for the first frame and raises ServiceUnavailableError if there is none: a wrong name should be
    told at once. After that nothing is raised for a lost camera: `take` returns None and `online` turns False.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self.name = SECRET_IN_URL.sub("//", str(config.source))
        self._latest = LatestFrame()
        self._stop = threading.Event()
        self._first_frame_or_failure = threading.Event()
        self._problem: str | None = "no frame"  # why there are no frames now; None while there are
        self._undecodable = 0
        self._seq = 0
        self._last_frame_at = -float("inf")
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    @property
    def online(self) -> bool:
        """Whether a frame came within the last `stale_after_s`."""
        return time.monotonic() - self._last_frame_at < self._config.stale_after_s

    @property
    def drops(self) -> dict[str, int]:
        """Frames that were captured and not used, by cause."""
        return {"superseded": self._latest.superseded, "undecodable": self._undecodable}

    def __enter__(self) -> "LiveSource":
        self._thread.start()
        # Opening and the first read may each take `timeout_s`.
        if not self._first_frame_or_failure.wait(2 * self._config.timeout_s + 1) or self._problem is not None:
            self._stop.set()
            raise ServiceUnavailableError(
                f"camera.source: {self.name}: {self._problem}; is it plugged in, free and spelt right?"
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        # A read that is stuck in a driver cannot be interrupted; the thread is a daemon, and ends with the process.
        self._thread.join(timeout=0.5)

    def take(self, timeout: float) -> Frame | None:
        """The newest frame that was not taken yet, or None after `timeout` seconds."""
        return self._latest.take(timeout)

    def _run(self) -> None:
        try:
            backoff = Backoff(self._config.retry_min_s, self._config.retry_max_s)
            while not self._stop.is_set():
                capture = self._open()
                if capture is None:
                    self._lost("cannot be opened")
                else:
                    with contextlib.closing(_Releasing(capture)):
                        self._read(capture, backoff)
                self._stop.wait(backoff.next())
        except BaseException as failure:  # noqa: BLE001 - not lost with this thread: `take` raises it in the loop
            self._latest.fail(failure)
            self._first_frame_or_failure.set()

    def _read(self, capture: cv2.VideoCapture, backoff: Backoff) -> None:
        """Until the camera fails or the source is closed."""
        while not self._stop.is_set():
            if not capture.grab():
                self._lost("gives no frames")
                return
            captured_at = time.monotonic()
            image = usable(capture.retrieve()[1])
            if image is None:
                self._undecodable += 1
                continue
            self._last_frame_at = captured_at
            self._latest.put(Frame(image, self._seq, captured_at, _utc_now(), media_time=captured_at))
            self._seq += 1
            if self._problem is not None:
                self._found()
                backoff.reset()

    def _open(self) -> cv2.VideoCapture | None:
        config, source = self._config, self._config.source
        timeout_ms = round(config.timeout_s * 1000)
        if isinstance(source, str) and "://" in source:
            # Without these, a silent port or a stalled stream blocks for 30 s.
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
            capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
        else:
            os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(max(1, round(config.timeout_s)))  # s; 10 by default
            capture = cv2.VideoCapture(source, cv2.CAP_V4L2 if isinstance(source, str) else cv2.CAP_ANY)
            wishes = {
                cv2.CAP_PROP_FRAME_WIDTH: config.width,
                cv2.CAP_PROP_FRAME_HEIGHT: config.height,
                cv2.CAP_PROP_FPS: config.fps,
            }
            for wish, value in wishes.items():
                if value is not None and capture.isOpened():
                    capture.set(wish, value)
        if capture.isOpened():
            return capture
        capture.release()
        return None

    def _lost(self, problem: str) -> None:
        if self._problem is None:
            log.warning("camera %s %s; trying again", self.name, problem)
        self._problem = problem
        self._first_frame_or_failure.set()

    def _found(self) -> None:
        if self._first_frame_or_failure.is_set():
            log.info("camera %s is back", self.name)
        self._problem = None
        self._first_frame_or_failure.set()


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)
