"""A video from its beginning to its end: an annotated copy, tables, and a picture of the emotions over time."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge import clip, places
from edge.address import ffmpeg_name, without_secret
from edge.app import build_pipeline, build_search, files_read
from edge.beside import long_turns
from edge.camera import is_live
from edge.classifier import TfliteClassifier
from edge.config import Config
from edge.console import shown
from edge.errors import EndOfStream, InputNotFoundError, UsageError
from edge.files import FALLBACK_FPS, PICTURE_SUFFIXES, open_file, pictures_named
from edge.heap import keep_freed
from edge.labels import EMOTIONS, UNCERTAIN
from edge.output import Progress, Table, write_picture
from edge.pipeline import FrameSource, Sight
from edge.records import Event, Frame, Reading
from edge.timeline import Timeline
from edge.videocopy import VideoCopy

PEEKED = 16  # frames
RATE_USUAL, RATE_MAX = 120.0, 1000.0  # frames/s; more than usual is a clock's ticks, unless frames come as fast
BOX = ("x", "y", "w", "h")
FACES_HEADER = ("frame", "at_s", "face", "emotion", "confidence", *EMOTIONS, *BOX, "found")
EVENTS_HEADER = ("at_s", "type", "face", "emotion", "previous", "confidence", *BOX)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where things go; None is not made."""

    video: Path | None = None
    csv: Path | None = None
    timeline: Path | None = None

    def files(self) -> list[places.Output]:
        """Each file, with the option that asks for it."""
        tables = (self.csv, places.beside(self.csv, "events")) if self.csv else ()
        asked = [("--output-video", self.video), *(("--output-csv", table) for table in tables)]
        asked.append(("--output-timeline", self.timeline))
        return [(option, path) for option, path in asked if path is not None]


def run(config: Config, outputs: Outputs, bars: bool = True, settings: Path | None = None) -> None:
    """Read `config.camera.source` as fast as it can be, and write what was asked for.

    settings: the file that `config` was read from, which is not written over.
    Without outputs, events are printed. Raises as `files.open_file`, UsageError, and OSError for what cannot be
    written. The same file gives the same tables.
    """
    keep_freed()
    long_turns()
    source_name = str(config.camera.source)
    _refuse(source_name, outputs, files_read(settings, config))
    # Every frame: the copy has the file's rate, and a device's `max_fps` is for what it can keep up with.
    camera = config.camera.model_copy(update={"realtime": False, "loop": False, "max_fps": None})
    # In colours without a copy too: grey from the file differs by rounding, and the tables must not.
    source = open_file(camera, source_name)
    fps, promised = _facts(source_name, camera.fps, PEEKED if outputs.video else 0)
    classifier = TfliteClassifier.from_config(config.model)
    timeline, frames, events = Timeline(), 0, 0
    writes = outputs != Outputs()
    progress = Progress("frames", promised, goes_on=writes)
    with ExitStack() as stack:
        stack.enter_context(source)
        tables = stack.enter_context(_Tables(outputs.csv)) if outputs.csv else None
        original = _video_file(source_name)
        copy = stack.enter_context(VideoCopy(outputs.video, fps, bars, original)) if outputs.video else None
        if copy is not None:
            copy.ask()
        pipeline = build_pipeline(config, stack.enter_context(build_search(config)), classifier)
        stack.callback(progress.clear)
        for frame in _frames(source):
            sight = pipeline.step(frame)
            frames, events = frames + 1, events + len(sight.events)
            _tell(sight, tables, timeline, progress, quiet=writes)
            if copy is not None:
                copy.add(sight)
            progress.show(frames)
        last = pipeline.finish()
        if last is not None:
            events += len(last.events)
            _tell(last, tables, None, progress, quiet=writes)
    written = f", written as {copy.codec}{copy.sound}" if copy else ""
    if outputs.timeline:
        write_picture(outputs.timeline, timeline.draw())
    progress.say(f"{shown(source_name)}: frames: {frames}, faces: {timeline.faces}, events: {events}{written}")


def _frames(source: FrameSource) -> Iterator[Frame]:
    while True:
        try:
            frame = source.take(timeout=1.0)
        except EndOfStream:
            return
        if frame is not None:
            yield frame


class _Tables:
    """A row per face and frame, and a row per event."""

    def __init__(self, path: Path) -> None:
        self._faces = Table(path, FACES_HEADER)
        self._events = Table(places.beside(path, "events"), EVENTS_HEADER)

    def __enter__(self) -> "_Tables":
        with ExitStack() as stack:
            stack.enter_context(self._faces)
            stack.enter_context(self._events)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def add(self, sight: Sight, with_faces: bool) -> None:
        """Append what one frame showed."""
        at_s = round(sight.frame.media_time, 3)
        if with_faces:
            self._faces.add(_face_row(sight.frame.seq, at_s, reading) for reading in sight.readings)
        self._events.add(_event_row(at_s, event) for event in sight.events)


def _face_row(seq: int, at_s: float, reading: Reading) -> list[object]:
    return [
        *(seq, at_s, reading.track.id, reading.emotion or UNCERTAIN, round(reading.confidence, 3)),
        *reading.scores.as_dict().values(),
        *reading.track.box.as_list(),
        int(reading.track.missed == 0),
    ]


def _event_row(at_s: float, event: Event) -> list[object]:
    reading = event.reading
    previous = "" if event.type == "new" else event.previous or UNCERTAIN
    return [
        *(at_s, event.type, reading.track.id, reading.emotion or UNCERTAIN, previous, round(reading.confidence, 3)),
        *reading.track.box.as_list(),
    ]


def _tell(sight: Sight, tables: _Tables | None, timeline: Timeline | None, progress: Progress, quiet: bool) -> None:
    if tables is not None:
        tables.add(sight, with_faces=timeline is not None)
    if timeline is not None:
        timeline.add(sight)
    for event in () if quiet else sight.events:
        change = {
            "new": "appears",
            "update": f"{event.previous or UNCERTAIN} -> {event.reading.emotion or UNCERTAIN}",
            "end": f"is gone, last {event.reading.emotion or UNCERTAIN}",
        }[event.type]
        progress.say(f"{sight.frame.media_time:8.2f} s  face {event.reading.track.id} {change}")


def _refuse(source: str, outputs: Outputs, read_besides: Sequence[Path]) -> None:
    """What would be noticed only after the work, or destroy what is read or written: before anything is opened."""
    if source.isdigit():
        what = f"a webcam's number; a file or folder of this name is ./{source}"
        raise UsageError(f"{source}: does not end, being {what} (emotiond run reads cameras)")
    if is_live(source):
        raise UsageError(
            f"{without_secret(source)}: does not end; emotiond video is for files (emotiond run reads cameras)"
        )
    if outputs.video:
        places.refuse_video_name("--output-video", outputs.video)
    if outputs.csv:
        places.refuse_table_name("--output-csv", outputs.csv)
    if outputs.timeline:
        places.refuse_picture_name("--output-timeline", outputs.timeline)
    places.refuse_clashes(outputs.files(), [*_files_of(source), *read_besides])
    places.try_places(outputs.files())


def _files_of(source: str) -> list[Path]:
    """The files that are read, as `open_file` finds them. What is not there is its to say."""
    path = Path(source.removeprefix("file://"))
    if source == "builtin":
        return []
    if path.is_file():
        return [path]
    try:
        return pictures_named(str(path)) or []
    except (OSError, InputNotFoundError):
        return []


def _video_file(source: str) -> Path | None:
    """The one that is read, unless it is pictures or the built-in clip."""
    path = Path(source.removeprefix("file://"))
    return path if source != "builtin" and path.is_file() and path.suffix.lower() not in PICTURE_SUFFIXES else None


def _facts(source: str, wished_fps: float | None, peeked: int) -> tuple[float, int | None]:
    """The rate, for which so many frames are looked at, and how many there should be, if the file says so."""
    if source == "builtin":
        return clip.FPS, round(clip.CYCLE_S * clip.FPS)
    path = _video_file(source)
    if path is None:
        return wished_fps or FALLBACK_FPS, None
    capture = cv2.VideoCapture(ffmpeg_name(path), cv2.CAP_FFMPEG)
    stated, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    times = [capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 for _ in range(peeked) if capture.grab()]
    capture.release()
    return _rate(stated, np.diff(times)), round(frames) if 0 < frames < 1e9 else None


def _rate(stated: float, steps_s: npt.NDArray[np.float64]) -> float:
    """The rate that a file states, unless its first frames come much faster: then it is a mean over pauses."""
    rate = stated if 0 < stated <= RATE_MAX else FALLBACK_FPS
    steps_s = steps_s[steps_s > 1 / RATE_MAX]
    steps_s = steps_s[steps_s < 3 * np.median(steps_s)] if steps_s.size else steps_s
    first = 1 / float(np.mean(steps_s)) if steps_s.size else rate
    return first if first > 1.5 * rate or rate > 1.5 * max(first, RATE_USUAL) else rate
