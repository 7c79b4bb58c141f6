"""Still pictures: find the faces, read them, draw and tell what was found."""

import glob
import os
import queue
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge.app import build_detector
from edge.classifier import TfliteClassifier
from edge.config import Config, HaarConfig
from edge.contract import SCHEMA_VERSION
from edge.draw import UNCERTAIN, draw
from edge.errors import BadDataError, InputNotFoundError, UsageError
from edge.files import PICTURE_SUFFIXES
from edge.labels import EMOTIONS
from edge.messages import encode
from edge.output import DRAWN_SUFFIXES, Progress, Table, refuse_picture_name, write_picture
from edge.picturefile import decode, load
from edge.preprocess import crop_face
from edge.records import Frame, Reading, Track

# A large still shows people some metres away: at 480 px of 4,000, a face of less than 200 px is below Haar's 24.
COARSEST = 3.0
STILL_SUFFIXES = PICTURE_SUFFIXES | {".gif"}
FACES_HEADER = (
    *("picture", "face", "emotion", "confidence"),
    *EMOTIONS,
    *("x", "y", "w", "h", "picture_width", "picture_height"),
)
FREQUENCIES_HEADER = ("emotion", "faces", "share")


@dataclass(frozen=True, slots=True)
class Still:
    """What was found in one picture."""

    path: Path
    size: tuple[int, int] = (0, 0)
    """Width and height in px as it was looked at: upright, and half of the file's where that was too large."""
    readings: Sequence[Reading] = ()
    """Largest face first; `track.id` counts them from 1."""
    problem: str | None = None
    """Why it could not be looked at."""


class Reader:
    """A detector and a classifier. Not for two threads at once."""

    def __init__(self, config: Config) -> None:
        self.reads_grey = isinstance(config.detector, HaarConfig)
        """Whether colours are of no use to it."""
        self._detector = build_detector(config.detector, COARSEST)
        self._classifier = TfliteClassifier.from_config(config.model)
        self._min_confidence = config.emotion.min_confidence
        self.model_id = self._classifier.model_id

    def read(self, image: npt.NDArray[np.uint8]) -> list[Reading]:
        """The faces of a (h, w, 3) BGR or (h, w) grey picture. One that nothing says clearly enough is uncertain."""
        frame = Frame(image, 0, 0.0, datetime.now(timezone.utc), media_time=0.0)
        faces = self._detector.detect(frame)
        scores = self._classifier.classify([crop_face(frame.image, face.box) for face in faces])
        return [
            Reading(Track(number, face.box, age=1, missed=0), seen, self._certain(*seen.top))
            for number, (face, seen) in enumerate(zip(faces, scores, strict=True), 1)
        ]

    def _certain(self, emotion: str, probability: float) -> str | None:
        return emotion if probability >= self._min_confidence else None


def run(config: Config, inputs: Sequence[str], output_image: str | None, output_csv: Path | None, as_json: bool) -> int:
    """Look at all pictures that `inputs` name and write what was asked for; returns the exit code.

    A picture that cannot be read is told on standard error, the others are done, and the code is BadDataError's.
    """
    paths = find_pictures(inputs)
    drawn = _names_of_drawn(paths, output_image)
    # One picture uses all cores inside of OpenCV; many use them better side by side.
    workers = min(len(paths), os.cpu_count() or 1) if isinstance(config.detector, HaarConfig) else 1
    if workers > 1:
        cv2.setNumThreads(1)
    readers = [Reader(config) for _ in range(workers)]
    counts: Counter[str] = Counter()
    broken = 0
    progress = Progress("pictures", len(paths))
    with ExitStack() as stack:
        table = stack.enter_context(Table(output_csv, FACES_HEADER)) if output_csv else None
        stack.callback(progress.clear)
        for done, still in enumerate(stack.enter_context(_read_all(readers, paths, drawn)), 1):
            if still.problem is not None:
                broken += 1
                progress.clear()
                print(f"emotiond: {_shown(still.path)}: {still.problem}", file=sys.stderr, flush=True)  # noqa: T201
            if table is not None:
                table.add(_rows(still))
            counts.update(reading.emotion or UNCERTAIN for reading in still.readings)
            if as_json:
                progress.say(encode(_message(still, readers[0].model_id)))
            elif still.problem is None:
                progress.say(_line(still))
            progress.show(done)
    if output_csv:
        with Table(_frequencies_path(output_csv), FREQUENCIES_HEADER) as frequencies:
            frequencies.add(_frequencies(counts))
    if len(paths) > 1 and not as_json:
        print(_summary(len(paths) - broken, counts))  # noqa: T201
    return BadDataError.exit_code if broken else 0


def find_pictures(inputs: Iterable[str]) -> list[Path]:
    """The files that names, folders and patterns stand for, each once. A file that is named is taken whatever it is.

    Raises InputNotFoundError for a name that stands for nothing.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in STILL_SUFFIXES)
            problem = "no pictures in this folder"
        elif path.exists():
            pictures = [path]
        else:
            # Not Path.glob, which takes no absolute pattern.
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207
            pictures = [match for match in matches if match.is_file()]
            problem = "no such file or folder" if not glob.has_magic(text) else "no file is named like this"
        if not pictures:
            raise InputNotFoundError(f"{text}: {problem}")
        found.update(dict.fromkeys(pictures))
    return list(found)


@contextmanager
def _read_all(
    readers: Sequence[Reader], paths: Sequence[Path], drawn: Sequence[Path | None]
) -> Iterator[Iterator[Still]]:
    """The stills in the order of `paths`, read by all readers side by side."""
    free: queue.SimpleQueue[Reader] = queue.SimpleQueue()
    for reader in readers:
        free.put(reader)

    def read(path: Path, draw_to: Path | None) -> Still:
        reader = free.get()
        try:
            return _read_one(reader, path, draw_to)
        finally:
            free.put(reader)

    executor = ThreadPoolExecutor(len(readers))
    try:
        yield executor.map(read, paths, drawn)
    finally:
        executor.shutdown(cancel_futures=True)


def _read_one(reader: Reader, path: Path, draw_to: Path | None) -> Still:
    try:
        data = load(path)
        # Grey also where colours are wanted for the drawing: what is found must not depend on what is written.
        image = decode(data, grey=reader.reads_grey)
        colours = image if draw_to is None or not reader.reads_grey else decode(data)
        readings = reader.read(image)
        if draw_to is not None:
            write_picture(draw_to, draw(colours, readings))
    except BadDataError as error:
        return Still(path, problem=str(error))
    return Still(path, (image.shape[1], image.shape[0]), readings)


def _names_of_drawn(paths: Sequence[Path], output: str | None) -> list[Path | None]:
    """Where each annotated picture goes: one picture to the file of this name, several into the folder."""
    if output is None:
        return [None] * len(paths)
    target = Path(output)
    if len(paths) == 1 and not output.endswith(os.sep) and not target.is_dir():
        _refuse_to_overwrite(paths, [target])
        refuse_picture_name("--output-image", target)
        return [target]
    if target.is_file():
        raise UsageError(f"--output-image {output}: is a file, but several pictures need a folder")
    target.mkdir(parents=True, exist_ok=True)
    names: dict[Path, None] = {}
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in DRAWN_SUFFIXES else ".png"
        name, number = target / f"{path.stem}{suffix}", 1
        while name in names:  # pictures of one name from several folders
            number += 1
            name = target / f"{path.stem}-{number}{suffix}"
        names[name] = None
    _refuse_to_overwrite(paths, names)
    return list(names)


def _refuse_to_overwrite(paths: Iterable[Path], targets: Iterable[Path]) -> None:
    read = {path.resolve() for path in paths}
    for target in targets:
        if target.resolve() in read:
            raise UsageError(f"--output-image: {target} is one of the pictures that are read; choose another place")


def _rows(still: Still) -> list[list[object]]:
    return [
        [
            still.path,
            reading.track.id,
            reading.emotion or UNCERTAIN,
            round(reading.confidence, 3),
            *reading.scores.as_dict().values(),
            *(reading.track.box.x, reading.track.box.y, reading.track.box.w, reading.track.box.h),
            *still.size,
        ]
        for reading in still.readings
    ]


def _message(still: Still, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"v": SCHEMA_VERSION, "picture": _shown(still.path)}
    if still.problem is not None:
        return {**message, "problem": still.problem}
    faces = [
        {
            "emotion": reading.emotion,
            "confidence": round(reading.confidence, 3),
            "scores": reading.scores.as_dict(),
            "box": [reading.track.box.x, reading.track.box.y, reading.track.box.w, reading.track.box.h],
        }
        for reading in still.readings
    ]
    return {**message, "size": list(still.size), "faces": faces, "model": model}


def _line(still: Still) -> str:
    faces = [
        f"{reading.emotion or UNCERTAIN} {reading.confidence:.0%}".replace("%", " %") for reading in still.readings
    ]
    return f"{_shown(still.path)}: {', '.join(faces) or 'no face found'}"


def _shown(path: Path) -> str:
    """A name that may stand in a terminal and in UTF-8."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else "�" for c in text)


def _frequencies_path(faces: Path) -> Path:
    return faces.with_name(f"{faces.stem}-frequencies{faces.suffix}")


def _frequencies(counts: Counter[str]) -> list[list[object]]:
    total = max(1, counts.total())
    return [[emotion, counts[emotion], round(counts[emotion] / total, 4)] for emotion in (*EMOTIONS, UNCERTAIN)]


def _summary(pictures: int, counts: Counter[str]) -> str:
    found = ", ".join(f"{emotion} {count}" for emotion, count in counts.most_common())
    return f"pictures: {pictures}, faces: {counts.total()}{f' ({found})' if found else ''}"
