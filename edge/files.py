"""Sources that have an end: videos, pictures, and the built-in clip. Every frame, in order."""

import fnmatch
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge import clip
from edge.address import without_secret
from edge.beside import ahead
from edge.config import CameraConfig
from edge.errors import BadDataError, EndOfStream, InputNotFoundError
from edge.luma import LumaVideo, as_luma, open_video
from edge.picturefile import decode, load
from edge.preprocess import usable
from edge.records import Frame

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
Pictures = Iterator[tuple[float, Image | BadDataError]]  # seconds from the start, and the picture or what is wrong

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
ROOM = 8  # pictures that wait to be taken: decoding goes on while a search takes its time
VIDEO_ROOM, VIDEO_ROOM_BYTES = (4, 32), 2**25  # the fewest and the most of a video's, and what fits between them
LATE_MAX_S = 1.0
DAMAGED_FRAMES_MAX = 10_000  # in a row; containers may promise any number
STEP_BACK_MAX_S, STEP_ON_MAX_S = 0.5, 10.0  # of a recording's time; further steps lead into another recording behind it
PAUSE_MAX_S = 3600.0  # that is believed of a file with one clock; a copy shows it all
FRAME_STAMP = getattr(cv2, "CAP_PROP_PTS", None)  # in frames of the mean rate; OpenCV has it from 4.11 on
FALLBACK_FPS = 15.0  # for pictures without a rate, and for files that state none


def open_file(config: CameraConfig, source: str, colour: bool = True) -> "FileSource":
    """The built-in clip, or the video or pictures that `source` names.

    colour: whether frames must be colourful where the file is; grey ones are cheaper. Raises
    InputNotFoundError for what is not there, BadDataError for what is no video.
    """
    if source == "builtin":
        realtime, loop = config.realtime is not False, config.loop is not False
        return FileSource(source, clip.frames, realtime, loop, config.max_fps)
    realtime, loop = bool(config.realtime), bool(config.loop)
    path = Path(source.removeprefix("file://"))
    try:
        pictures = pictures_named(str(path))
    except OSError as error:
        raise InputNotFoundError(f"camera.source: {without_secret(source)}: {error.strerror}") from None
    if pictures is not None:
        fps = config.fps or FALLBACK_FPS
        return FileSource(source, lambda: _read_pictures(pictures, fps, colour), realtime, loop, config.max_fps)
    if not path.is_file():
        problem = "no such file, folder or camera"
        if path.exists():
            problem = "neither a file nor a folder; what comes through a pipe must be saved first"
        raise InputNotFoundError(f"camera.source: {without_secret(source)}: {problem}")
    opened = [_open_video(path, colour)]  # now, so that what is no video is told now
    room = _room(opened[0], colour)
    pause_max_s = PAUSE_MAX_S if _has_one_clock(path) else STEP_ON_MAX_S

    def read() -> Pictures:
        return _read_video(path, opened.pop() if opened else _open_video(path, colour), pause_max_s)

    return FileSource(source, read, realtime, loop, config.max_fps, room)


class FileSource:
    """Every picture of a file in order; nothing is dropped but what is over `max_fps` of the file's own time.

    So the same file gives the same events. As fast as it goes, pictures are decoded on a thread of their own.
    """

    online = True
    starting = False

    def __init__(
        self,
        name: str,
        pictures: Callable[[], Pictures],
        realtime: bool,
        loop: bool,
        max_fps: float | None = None,
        room: int = ROOM,
    ) -> None:
        self._room = room
        self._name, self._open, self._realtime, self._loop = name, pictures, realtime, loop
        self._pictures = self._in_turn()
        self._pending: tuple[float, Image] | None = None
        self._seq = 0
        self._opened_at, self._opened_wall = time.monotonic(), _utc_now()
        self._interval_s = 0.99 / max_fps if max_fps else 0.0  # frames at exactly this rate are all taken
        self._undecodable = self._over_max_fps = 0
        self._stack = ExitStack()

    @property
    def drops(self) -> dict[str, int]:
        """Pictures that were passed over, by cause."""
        return {"superseded": 0, "undecodable": self._undecodable, "over_max_fps": self._over_max_fps, "too_hot": 0}

    def thin(self, every: int) -> None:
        """Declined: a file's events do not depend on how hot the device is."""

    def stop(self) -> None:
        """Nothing here takes time."""

    def __enter__(self) -> "FileSource":
        self._opened_at, self._opened_wall = time.monotonic(), _utc_now()
        if not self._realtime:
            self._pictures = self._stack.enter_context(ahead(self._pictures, self._room))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        self._pictures = iter(())

    def take(self, timeout: float) -> Frame | None:
        """The next frame; None if it is not due within `timeout` seconds. Raises EndOfStream."""
        if self._pending is None:
            self._pending = next(self._pictures, None)
        if self._pending is None:
            raise EndOfStream
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

    def _in_turn(self) -> Iterator[tuple[float, Image]]:
        """What is taken, pass after pass, with its seconds from the start of the first."""
        taken, position_s, pass_began_at_s, taken_at_s = 0, 0.0, 0.0, -float("inf")
        problem = BadDataError("it is empty")
        while True:
            taken_before = taken
            for in_pass_s, image in self._open():
                position_s = pass_began_at_s + in_pass_s
                if isinstance(image, BadDataError):
                    self._undecodable, problem = self._undecodable + 1, image
                elif position_s - taken_at_s < self._interval_s:
                    self._over_max_fps += 1
                else:
                    taken, taken_at_s = taken + 1, position_s
                    yield position_s, image
            if not taken:
                raise BadDataError(f"camera.source: {self._name}: no picture in it can be decoded: {problem}")
            if not self._loop or taken == taken_before:
                if self._undecodable:
                    log.warning("%s: %d pictures could not be decoded", self._name, self._undecodable)
                return
            # How long the last picture lasts is not known; its follower must only come after it.
            pass_began_at_s = position_s + 1 / FALLBACK_FPS


def pictures_named(source: str) -> list[Path] | None:
    """The pictures that a folder, a pattern or a single picture names, in order; None if it names none of these.

    Raises InputNotFoundError where there are none, OSError.
    """
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


def _read_pictures(paths: list[Path], fps: float, colour: bool) -> Pictures:
    for index, path in enumerate(paths):
        try:
            yield index / fps, decode(load(path), grey=not colour)
        except BadDataError as error:
            yield index / fps, error


def _open_video(path: Path, colour: bool) -> cv2.VideoCapture | LumaVideo:
    try:
        path.open("rb").close()
    except OSError as error:  # OpenCV would not say why
        raise BadDataError(f"camera.source: {path}: cannot be read: {error.strerror}") from None
    capture = open_video(path)
    if not capture.isOpened():
        raise BadDataError(f"camera.source: {path}: not a video that OpenCV can read")
    if colour:
        return capture
    return as_luma(path, capture) or open_video(path)  # again: its first frame was taken to compare


def _read_video(path: Path, capture: cv2.VideoCapture | LumaVideo, step_max_s: float) -> Pictures:
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps <= 1000 else FALLBACK_FPS
        position_s, shift_s, count, failures = 0.0, 0.0, 0, 0
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        while failures <= min(max(promised - count, 0), DAMAGED_FRAMES_MAX):
            if not capture.grab():
                failures += 1  # the end, or one damaged packet: then the next call goes on behind it
                continue
            failures = 0
            # A frame's own time where the file has it; broken ones repeat it or go back.
            stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if count and not -STEP_BACK_MAX_S <= stamp_s + shift_s - position_s <= step_max_s:
                shift_s = position_s + 1 / fps - stamp_s
            # Of a frame without a time, as in a raw H.264 stream, OpenCV says 0.
            step_s = 0.01 / fps if stamp_s else 1 / fps
            position_s = max(stamp_s + shift_s, position_s + step_s) if count else 0.0
            count += 1
            image = usable(capture.retrieve()[1])
            yield position_s, BadDataError("damaged") if image is None else image
        # Containers without an index promise an estimate, some a negative number. Matroska's is made of its mean rate
        # and its end time: a piece that was cut from a recording begins behind many frames that it does not have.
        reached = 0.0 if FRAME_STAMP is None else capture.get(FRAME_STAMP) + 1
        if max(count, reached) < promised * 0.9:
            log.warning("%s: ends early: %d of %d frames could be read", path, count, promised)
    finally:
        capture.release()


def _room(video: cv2.VideoCapture | LumaVideo, colour: bool) -> int:
    """How many of its frames may wait."""
    frame_bytes = video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT) * (3 if colour else 1)
    return int(np.clip(VIDEO_ROOM_BYTES / max(1.0, frame_bytes), *VIDEO_ROOM))


def _has_one_clock(path: Path) -> bool:
    """Whether it is Matroska or MP4, of which nothing is read behind the end of the first recording."""
    with path.open("rb") as file:
        begin = file.read(8)
    return begin.startswith(b"\x1aE\xdf\xa3") or begin[4:] in {b"ftyp", b"moov", b"mdat", b"wide"}


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)
