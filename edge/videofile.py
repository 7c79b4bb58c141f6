"""Writes a video: H.264 where something here can make it, else MPEG-4, which everything here can."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge.address import ffmpeg_name
from edge.beside import Asked
from edge.heap import FOR_A_CHILD
from edge.splice import PicturePipe

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi")
PROBE = (
    *("ffmpeg", "-v", "quiet", "-f", "lavfi", "-i", "color=size=64x64:duration=0.04"),
    *("-c:v", "libx264", "-f", "null", "-"),
)
# Packing is most of a copy's cost. This preset takes two thirds of superfast's processor time, and a constant quantizer
# less than a constant rate factor. The deblocking that the preset leaves out makes up for a coarser quantizer, in less
# time: of a test clip 0.96 MB and SSIM 0.986 with 26, where 23 without deblocking has 1.46 MB and 0.986.
QUALITY = ("-preset", "ultrafast", "-qp", "26", "-x264-params", "no-deblock=0")
MPEG4_UNITS_MAX = 65_535  # a second; OpenCV takes as small ones as the rate has digits, down to a thousandth
STOP_S = 60.0  # for the last frames of a long video to be packed


class _Encoder(Protocol):
    def write(self, image: npt.NDArray[np.uint8]) -> None: ...
    def close(self) -> str: ...


class VideoFile:
    """A video that is entered to be written, frame by frame, at a fixed rate.

    Its name must end in one of `SUFFIXES`. `codec` says what was taken, `frames` how many were written. Raises OSError,
    with the name in it, when it cannot be written.

    probe: what `asked_for_h264` gave, started; its answer is waited for only where OpenCV makes no H.264.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], probe: Asked) -> None:
        self._path, self.size = path, size
        self.frames = 0
        path.open("wb").close()  # OpenCV would not say why it cannot
        self.codec, self._encoder = _open_encoder(path, fps, size, probe)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *exc: object) -> None:
        problem = self._encoder.close()
        if not exc[0] and (problem or not is_whole(self._path, self.frames)):
            raise OSError(errno.EIO, problem or "could not be written whole; is there room?", str(self._path))

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Append a (h, w, 3) BGR picture of the size that was given."""
        try:
            self._encoder.write(image)
        except BrokenPipeError:
            raise OSError(errno.EIO, self._encoder.close() or "ffmpeg gave up", str(self._path)) from None
        self.frames += 1


def is_whole(path: Path, frames: int) -> bool:
    """Whether a video of as many frames was written: OpenCV says nothing when a disk is full, nor does ffmpeg always.

    Then what was written cannot be opened, or ends early.
    """
    if frames == 0:
        return True
    capture = cv2.VideoCapture(ffmpeg_name(path), cv2.CAP_FFMPEG)
    try:
        return capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) >= 0.9 * frames
    finally:
        capture.release()


class _OpenCv:
    def __init__(self, path: Path, fps: float, size: tuple[int, int], fourcc: str) -> None:
        code = cv2.VideoWriter.fourcc(*fourcc)
        self._writer = cv2.VideoWriter(ffmpeg_name(path), cv2.CAP_FFMPEG, code, fps, size)
        self.is_open = self._writer.isOpened()

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        self._writer.write(image)

    def close(self) -> str:
        self._writer.release()
        return ""


class _FfmpegProgram:
    """The program, fed through a pipe: it packs beside us, on a core of its own if there is one."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        width, height = (side + side % 2 for side in size)  # players want 4:2:0, which has no odd sizes
        self._padding = (0, height - size[1], 0, width - size[0])
        threads = max(1, len(os.sched_getaffinity(0)) // 2)
        command = [
            *("ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p"),
            *("-s", f"{width}x{height}", "-r", f"{fps:.6f}", "-i", "-"),
            # What cvtColor makes; players would guess from the size.
            *("-colorspace", "smpte170m", "-color_range", "tv"),
            *("-c:v", "libx264", "-threads", str(threads), *QUALITY, f"file:{path}"),
        ]
        # In a session of its own: Ctrl-C is for us, who then let it finish the file.
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **FOR_A_CHILD},
        )
        assert self._child.stdin is not None
        self._pipe = PicturePipe(self._child.stdin.fileno(), (height * 3 // 2, width))

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        if any(self._padding):
            image = np.asarray(cv2.copyMakeBorder(image, *self._padding, cv2.BORDER_REPLICATE), np.uint8)
        # A third of the time that ffmpeg takes for it, and half of the bytes.
        planes = self._pipe.free()
        cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420, dst=planes)
        self._pipe.write(planes)

    def close(self) -> str:
        try:
            _, said = self._child.communicate(timeout=STOP_S)
        except (BrokenPipeError, ValueError):  # it has gone, or was closed before
            said = self._child.stderr.read() if self._child.stderr and not self._child.stderr.closed else b""
        except subprocess.TimeoutExpired:
            self._child.kill()
            return "ffmpeg did not end"
        lines = said.decode(errors="replace").strip().splitlines()
        # Without the file's name, which is said anyway: "Error closing file file:read.mp4: No space left on device".
        return (lines[-1].rpartition(": ")[2] if lines else "ffmpeg failed") if self._child.wait() else ""


def _open_encoder(path: Path, fps: float, size: tuple[int, int], probe: Asked) -> tuple[str, _Encoder]:
    own = _OpenCv(path, fps, size, "avc1")
    if own.is_open:
        return "H.264", own
    if probe.answer()[0] == 0:
        return "H.264", _FfmpegProgram(path, fps, size)
    fallback = _OpenCv(path, _rate_for_mpeg4(fps), size, "mp4v")
    if not fallback.is_open:
        raise OSError(errno.EIO, "OpenCV here has no video encoder for it", str(path))
    return "MPEG-4, for nothing here makes H.264 (the program ffmpeg would)", fallback


def _rate_for_mpeg4(fps: float) -> float:
    return next((rate for digits in (3, 2, 1) if (rate := round(fps, digits)) * 10**digits <= MPEG4_UNITS_MAX), fps)


def asked_for_h264() -> Asked:
    """The program ffmpeg, to be asked whether it makes H.264: then it exits with 0."""
    return Asked(PROBE)
