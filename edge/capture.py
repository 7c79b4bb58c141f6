"""Opens what a capture thread reads: a webcam, a network stream, a Raspberry Pi's camera module."""

import contextlib
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import cv2

from edge.address import camera_number, why_no_host
from edge.config import CameraConfig
from edge.errors import CameraError
from edge.luma import JpegCapture
from edge.picamera import PiCapture

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
USUAL_OPTIONS = "rtsp_flags;prefer_tcp"  # OpenCV's own, which the variable replaces
# A raw H.264 stream tells FFmpeg neither its frame rate nor its length, RTMP not that no sound will come; looking for
# them for 0.2 s (given in us) and not for 5 or 8 s is enough. Others need longer: one that is joined in the middle
# shows its size with the next key frame.
LONG_LOOKED_AT = ("tcp://", "rtmp://", "rtmps://")
BRIEFLY = f"{USUAL_OPTIONS}|analyzeduration;200000"
_opening = threading.Lock()  # the options are the process's; OpenCV itself opens one stream after another
MOTION_JPEG = cv2.VideoWriter.fourcc(*"MJPG")
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
STEP_MAX_S = 1.0  # that a stream in pieces may be early or late; more is a gap in it, or another clock
BY_HAND = 1  # of V4L2's auto_exposure
EXPOSURE_UNITS_PER_MS = 10  # of V4L2's exposure_time_absolute
ADVICE = "is it plugged in, free and spelt right?"
STREAM_ADVICE = "is it on, and are its address, user and password right?"
KEY_FRAMES = "are a stream's key frames further apart than camera.timeout_s?"


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def grab(self) -> bool:
        """Wait for the next frame; False if none comes."""

    def retrieve(self) -> tuple[bool, Any]:
        """Whether the grabbed frame can be had, and it: (h, w, 3) BGR or (h, w) grey uint8."""

    def release(self) -> None:
        """Let the camera go."""


class PlayedCapture:
    """A stream that comes in pieces of some seconds (HLS), at its own rate.

    Else a piece would be gone through in a moment, and nothing would come until the next.
    """

    def __init__(self, stream: cv2.VideoCapture) -> None:
        self._stream = stream
        self._began_at = -float("inf")

    def grab(self) -> bool:
        """Wait until the next frame is due; False if none comes."""
        if not self._stream.grab():
            return False
        position_s, now = self._stream.get(cv2.CAP_PROP_POS_MSEC) / 1000, time.monotonic()
        if abs(self._began_at + position_s - now) > STEP_MAX_S:
            self._began_at = now - position_s
        time.sleep(max(0.0, self._began_at + position_s - now))
        return True

    def retrieve(self) -> tuple[bool, Any]:
        """As `Capture`'s."""
        return self._stream.retrieve()

    def release(self) -> None:
        """Let the stream go."""
        self._stream.release()


def open_capture(config: CameraConfig, colour: bool) -> Capture:
    """The camera, with its first frame to come. Raises CameraError; ConfigError for picamera2 that is not installed.

    colour: whether frames must be colourful where the camera is; grey ones are cheaper.
    """
    source = config.source
    if camera_number(source) is not None:
        return PiCapture(config)
    network = isinstance(source, str) and "://" in source
    capture = _open_stream(str(source), round(config.timeout_s * 1000)) if network else _open_webcam(config)
    if not colour and int(capture.get(cv2.CAP_PROP_FOURCC)) == MOTION_JPEG:
        undecoded = (cv2.CAP_PROP_FORMAT, -1) if network else (cv2.CAP_PROP_CONVERT_RGB, 0)
        if capture.set(*undecoded):
            return JpegCapture(capture)
    return PlayedCapture(capture) if network and _in_pieces(str(source)) else capture


def _in_pieces(url: str) -> bool:
    return re.split("[?#]", url)[0].lower().endswith(".m3u8")


def _open_stream(url: str, timeout_ms: int) -> cv2.VideoCapture:
    # Without these, a silent port or a stalled stream blocks for 30 s.
    _reach(url, timeout_ms / 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    with _opening:
        briefly = url.startswith(LONG_LOOKED_AT) and os.environ.get(OPTIONS, USUAL_OPTIONS) == USUAL_OPTIONS
        try:
            if briefly:  # and nobody has set options of their own
                os.environ[OPTIONS] = BRIEFLY
            return _opened(cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits), STREAM_ADVICE)
        finally:
            if briefly:  # not removed: the C library moves then what others may be reading
                os.environ[OPTIONS] = USUAL_OPTIONS


def _open_webcam(config: CameraConfig) -> cv2.VideoCapture:
    source = config.source
    path = Path(source if isinstance(source, str) else f"/dev/video{source}")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise CameraError("may not be opened", "is this user in the group video?")
    capture = _opened(cv2.VideoCapture(source, cv2.CAP_V4L2 if isinstance(source, str) else cv2.CAP_ANY), _advice())
    wishes = {
        # The format first: it says which sizes and rates there are.
        cv2.CAP_PROP_FOURCC: None if config.pixel_format is None else cv2.VideoWriter.fourcc(*config.pixel_format),
        cv2.CAP_PROP_FRAME_WIDTH: config.width,
        cv2.CAP_PROP_FRAME_HEIGHT: config.height,
        cv2.CAP_PROP_FPS: config.fps,
    }
    for wish, value in wishes.items():
        if value is not None:
            capture.set(wish, value)
    try:
        _demand(capture, config)
    except CameraError:
        capture.release()
        raise
    return capture


def _demand(capture: cv2.VideoCapture, config: CameraConfig) -> None:
    """What somebody chose with care must not be left out in silence."""
    if config.pixel_format is not None:
        given = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
        if given != config.pixel_format:
            raise CameraError(
                f"gives {given}, not {config.pixel_format}",
                "see camera.pixel_format; `v4l2-ctl --list-formats-ext` shows what a webcam has",
            )
    if config.exposure_ms is not None:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, BY_HAND)  # some webcams have none
        wanted = max(1, round(config.exposure_ms * EXPOSURE_UNITS_PER_MS))
        # The driver takes what is out of its range for the end of it, and webcams round to what they have.
        taken = capture.get(cv2.CAP_PROP_EXPOSURE) if capture.set(cv2.CAP_PROP_EXPOSURE, wanted) else 0.0
        if not 0.5 <= taken / wanted <= 2:
            raise CameraError(
                f"does not take an exposure of {config.exposure_ms:g} ms",
                "see camera.exposure_ms; `v4l2-ctl --list-ctrls` shows what a webcam has",
            )


def _reach(url: str, timeout_s: float) -> None:
    """Raise CameraError where nobody answers: OpenCV opens one stream after another, and all others would wait for it.

    A server that speaks first, or to one reader alone, is not disturbed: only RTSP and HTTP are tried.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:  # FFmpeg may understand it
        return
    by_proxy = parts.scheme.startswith("http") and "http_proxy" in os.environ
    if parts.scheme not in PORTS or not parts.hostname or by_proxy:
        return
    try:
        with socket.create_connection((parts.hostname, port), timeout_s) as connection:
            if parts.scheme == "rtsp":  # FFmpeg's own first question
                server = parts.netloc.rpartition("@")[2]
                connection.sendall(f"OPTIONS rtsp://{server} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
                with contextlib.suppress(ConnectionError):  # it lives
                    connection.recv(1)
    except TimeoutError:
        raise CameraError("cannot be opened: no answer", STREAM_ADVICE) from None
    except (OSError, UnicodeError) as error:
        raise CameraError(f"cannot be opened: {why_no_host(error)}", STREAM_ADVICE) from None


def _opened(capture: cv2.VideoCapture, advice: str) -> cv2.VideoCapture:
    if not capture.isOpened():
        capture.release()
        raise CameraError("cannot be opened", advice)
    return capture


def webcams_found() -> list[str]:
    """The webcams' names that stay the same whatever is plugged in besides: what each is, or else where it is."""
    named: dict[Path, Path] = {}
    for folder in ("by-id", "by-path"):
        for path in sorted(Path("/dev/v4l", folder).glob("*-index0")):
            named.setdefault(path.resolve(), path)
    return sorted(map(str, named.values()))


def _advice() -> str:
    found = webcams_found()
    return f"there {'is' if len(found) == 1 else 'are'} {', '.join(found)}" if found else ADVICE
