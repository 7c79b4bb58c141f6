"""The annotated copy of a video: drawn and packed beside the reading of its faces, in the file's own time."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge import sound
from edge.beside import Behind
from edge.draw import draw
from edge.pipeline import Sight
from edge.videofile import VideoFile, asked_for_h264

LIPS_S = 0.05  # that a copy's pictures may be early or late, which nobody sees in a speaker
WAITING_BYTES = 2**25  # of frames that wait to be drawn: packing goes on while the loop waits for a sweep


class VideoCopy:
    """The annotated video: drawn and packed beside the reading of the next faces. Raises as VideoFile.

    Its rate is fixed and a file's need not be: pictures are repeated, or left out, where it would run off from the
    file's own time. original: the video file that is read, if it is one.
    """

    def __init__(self, path: Path, fps: float, bars: bool, original: Path | None) -> None:
        self._path, self._fps, self._bars, self._original = path, fps, bars, original
        self._stack = ExitStack()
        self._probe = asked_for_h264()
        self._streams = sound.asked_for_streams(original) if original is not None else None
        self._inquiries = [inquiry for inquiry in (self._probe, self._streams) if inquiry is not None]
        self._files = self._stack.enter_context(ExitStack())
        self._behind: Behind[Sight] | None = None
        self._slack = max(1, round(LIPS_S * fps))  # frames
        self._file: VideoFile | None = None
        self._last: npt.NDArray[np.uint8] | None = None
        self.sound = ""
        """What there is to say of it, once it is left."""

    def __enter__(self) -> "VideoCopy":
        return self

    def __exit__(self, *exc: Any) -> None:
        try:
            if exc[0] is not None:
                self._end_inquiries()  # else what packs might wait for an answer
            self._stack.__exit__(*exc)
            if exc[0] is None:
                self.sound = self._add_sound()
        finally:
            self._end_inquiries()

    @property
    def codec(self) -> str:
        """What it was written as; of no use while it is entered."""
        return self._file.codec if self._file is not None else ""

    def ask(self) -> None:
        """Begin to ask ffmpeg: each start takes a tenth of a second, and lies beside the first frames so."""
        for inquiry in self._inquiries:
            inquiry.start()

    def add(self, sight: Sight) -> None:
        """Append what one frame showed."""
        if self._behind is None:
            room = 1 + WAITING_BYTES // sight.frame.image.nbytes
            self._behind = self._stack.enter_context(Behind(self._write, room))
        self._behind.put(sight)

    def _write(self, sight: Sight) -> None:
        if self._file is None:
            file = VideoFile(self._path, self._fps, sight.frame.size, self._probe)
            self._file = self._files.enter_context(file)
        late = round(sight.frame.media_time * self._fps) - self._file.frames
        if late < -self._slack:
            return
        picture = draw(sight.frame.image, sight.readings, self._bars)
        if sight.frame.size != self._file.size:
            picture = np.asarray(cv2.resize(picture, self._file.size), np.uint8)
        for _ in range(late - self._slack):
            self._file.write(picture if self._last is None else self._last)
        self._file.write(picture)
        self._last = picture

    def _add_sound(self) -> str:
        if self._original is None or self._streams is None or self._file is None or not self._path.is_file():
            return ""
        return sound.add(self._path, self._original, self._streams, self._file.frames, self._fps)

    def _end_inquiries(self) -> None:
        for inquiry in self._inquiries:
            inquiry.end()
