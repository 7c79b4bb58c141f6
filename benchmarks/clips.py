"""What is measured on: videos that were named, or the built-in clip; and the daemon's own way through them."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import ROOT
from edge import app, clip, configfile
from edge.classifier import TfliteClassifier
from edge.config import Config
from edge.errors import BadDataError, EndOfStream, InputNotFoundError
from edge.pipeline import Pipeline, Sight
from edge.preprocess import usable
from edge.records import Frame

SUFFIXES = frozenset({".avi", ".gif", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpg", ".ogv", ".webm"})


@dataclass(frozen=True, slots=True)
class Clip:
    """A video file, and the name by which results know it (never its path)."""

    name: str
    path: Path


@contextlib.contextmanager
def opened(named: Sequence[str | Path]) -> Iterator[list[Clip]]:
    """The clips that are named: files, folders (all videos in them), or `builtin`, which is also what none means.

    Raises InputNotFoundError or BadDataError for what is no video.
    """
    with tempfile.TemporaryDirectory(prefix="emotiond-bench-") as folder:
        clips: list[Clip] = []
        for path in map(Path, named or ["builtin"]):
            if str(path) == "builtin":
                clips.append(Clip("builtin", write_builtin(Path(folder) / "builtin.avi")))
            elif path.is_dir():
                found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
                if not found:
                    raise InputNotFoundError(f"--clip: {path}: holds no video ({' '.join(sorted(SUFFIXES))})")
                clips += [Clip(file.stem, file) for file in found]
            elif path.is_file():
                clips.append(Clip(path.stem, path))
            else:
                raise InputNotFoundError(f"--clip: {path}: no such file or folder")
        for one in clips:
            if next(pictures(one.path), None) is None:
                raise BadDataError(f"--clip: {one.path}: not a video that OpenCV can read")
        yield clips


def each(chosen: Sequence[Clip]) -> Iterator[Clip]:
    """One after another; standard error says how far it is, because some take minutes."""
    for number, one in enumerate(chosen, start=1):
        sys.stderr.write(f"{number}/{len(chosen)} {one.name}\n")
        yield one


def write_builtin(path: Path) -> Path:
    """The built-in clip as Motion JPEG, which is what most webcams send."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), clip.FPS, clip.SIZE)
    for _, image in clip.frames():
        writer.write(image)
    writer.release()
    return path


def pictures(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a video, (height, width, 3) BGR, read as plainly as OpenCV allows."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        while (read := capture.read())[0]:
            if (image := usable(read[1])) is not None:
                yield image
    finally:
        capture.release()


def settings(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The daemon's settings as the repository ships them, with `overrides` (a.b=v), for a file at full speed."""
    fixed = ["mqtt.broker=null", "camera.realtime=false", "camera.loop=false"]
    return configfile.load(ROOT / "config.yaml", [*fixed, *overrides], str(source))


@contextlib.contextmanager
def assembled(config: Config) -> Iterator[Pipeline]:
    """The daemon's own pipeline, put together as the daemon does."""
    classifier = TfliteClassifier.from_config(config.model)
    with app.build_search(config) as search:
        yield app.build_pipeline(config, search, classifier)


def frames(config: Config) -> Iterator[Frame]:
    """Those of the daemon's own source."""
    with app.build_source(config.camera, colour=app.sees_colour(config)) as source, contextlib.suppress(EndOfStream):
        while True:
            frame = source.take(1)
            if frame is not None:
                yield frame


def sights(config: Config) -> Iterator[Sight]:
    """What the daemon sees in every frame of its source."""
    with assembled(config) as pipeline:
        yield from map(pipeline.step, frames(config))
