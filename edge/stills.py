"""Still pictures: find the faces, read them, draw and tell what was found."""

import os
import queue
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge.app import build_detector, files_read
from edge.classifier import TfliteClassifier
from edge.config import Config, HaarConfig
from edge.console import shown, unicode_of
from edge.contract import SCHEMA_VERSION
from edge.draw import draw
from edge.errors import BadDataError, UsageError
from edge.labels import EMOTIONS, UNCERTAIN
from edge.messages import encode
from edge.output import DRAWN_SUFFIXES, Progress, Table, write_picture
from edge.picturefile import decode, load
from edge.places import beside, find_pictures, refuse_clashes, refuse_picture_name, refuse_table_name, try_places
from edge.preprocess import crop_face
from edge.records import Frame, Reading, Track

# A large still shows people some metres away: at 480 px of 4,000, a face of less than 200 px is below Haar's 24.
COARSEST = 3.0
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


def run(
    config: Config,
    inputs: Sequence[str],
    output_image: str | None,
    output_csv: Path | None,
    as_json: bool,
    settings: Path | None = None,
) -> int:
    """Look at all pictures that `inputs` name and write what was asked for; returns the exit code.

    settings: the file that `config` was read from, which is not written over.
    A picture that cannot be read is told on standard error, the others are done, and the code is BadDataError's.
    """
    paths = find_pictures(inputs)
    drawn, tables = _prepare(paths, output_image, output_csv, files_read(settings, config))
    # One picture uses all cores inside of OpenCV; many use them better side by side.
    workers = min(len(paths), os.cpu_count() or 1) if isinstance(config.detector, HaarConfig) else 1
    if workers > 1:
        cv2.setNumThreads(1)
    readers = [Reader(config) for _ in range(workers)]
    counts: Counter[str] = Counter()
    broken = 0
    progress = Progress("pictures", len(paths), goes_on=bool(output_image or tables))
    with ExitStack() as stack:
        table = stack.enter_context(Table(tables[0], FACES_HEADER)) if tables else None
        stack.callback(progress.clear)
        for done, still in enumerate(stack.enter_context(_read_all(readers, paths, drawn)), 1):
            broken += still.problem is not None
            if table is not None:
                table.add(_rows(still))
            counts.update(reading.emotion or UNCERTAIN for reading in still.readings)
            _tell(still, progress, _message(still, readers[0].model_id) if as_json else None)
            progress.show(done)
    if tables:
        with Table(tables[1], FREQUENCIES_HEADER) as frequencies:
            frequencies.add(_frequencies(counts))
    if len(paths) > 1 and not as_json:
        progress.say(_summary(len(paths) - broken, counts))
    return BadDataError.exit_code if broken else 0


def _prepare(
    paths: Sequence[Path], output_image: str | None, output_csv: Path | None, read_besides: Sequence[Path]
) -> tuple[list[Path | None], list[Path]]:
    """Where the annotated pictures and the tables go; raises for what cannot go there, before anything is opened."""
    folder = _folder_of_drawn(paths, output_image)
    drawn, tables = _names_of_drawn(paths, output_image, folder), _names_of_tables(output_csv)
    outputs = [("--output-image", path) for path in drawn if path] + [("--output-csv", path) for path in tables]
    refuse_clashes(outputs, [*paths, *read_besides])
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try_places(outputs)
    return drawn, tables


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


def _folder_of_drawn(paths: Sequence[Path], output: str | None) -> Path | None:
    """The folder that annotated pictures go into; None where there is one, and `output` is its file, or none."""
    if output == "":
        raise UsageError("--output-image: is empty; name a folder (this one is .), or a file for one picture")
    if output is None or (len(paths) == 1 and not output.endswith(os.sep) and not Path(output).is_dir()):
        return None
    if Path(output).is_file():
        raise UsageError(f"--output-image {output}: is a file, but several pictures need a folder")
    return Path(output)


def _names_of_drawn(paths: Sequence[Path], output: str | None, folder: Path | None) -> list[Path | None]:
    """Where each annotated picture goes."""
    if output is None:
        return [None] * len(paths)
    if folder is None:
        refuse_picture_name("--output-image", Path(output))
        return [Path(output)]
    names: dict[Path, None] = {}
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in DRAWN_SUFFIXES else ".png"
        name, number = folder / f"{path.stem}{suffix}", 1
        while name in names:  # pictures of one name from several folders
            number += 1
            name = folder / f"{path.stem}-{number}{suffix}"
        names[name] = None
    return list(names)


def _names_of_tables(path: Path | None) -> list[Path]:
    """The faces' table, and the emotions' beside it."""
    if path is None:
        return []
    refuse_table_name("--output-csv", path)
    return [path, beside(path, "frequencies")]


def _tell(still: Still, progress: Progress, message: dict[str, Any] | None) -> None:
    """message: what is said in place of a line for people."""
    if still.problem is not None:
        progress.complain(f"{shown(still.path)}: {still.problem}")
    if message is not None:
        ascii_only = sys.stdout.encoding.lower() != "utf-8"  # what it cannot show would not be JSON
        progress.say(encode(message, ascii_only))
    elif still.problem is None:
        progress.say(_line(still))


def _rows(still: Still) -> list[list[object]]:
    return [
        [
            still.path,
            reading.track.id,
            reading.emotion or UNCERTAIN,
            round(reading.confidence, 3),
            *reading.scores.as_dict().values(),
            *reading.track.box.as_list(),
            *still.size,
        ]
        for reading in still.readings
    ]


def _message(still: Still, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"v": SCHEMA_VERSION, "picture": unicode_of(still.path)}
    if still.problem is not None:
        return {**message, "problem": still.problem}
    faces = [
        {
            "emotion": reading.emotion,
            "confidence": round(reading.confidence, 3),
            "scores": reading.scores.as_dict(),
            "box": reading.track.box.as_list(),
        }
        for reading in still.readings
    ]
    return {**message, "size": list(still.size), "faces": faces, "model": model}


def _line(still: Still) -> str:
    faces = [
        f"{reading.emotion or UNCERTAIN} {reading.confidence:.0%}".replace("%", " %") for reading in still.readings
    ]
    return f"{shown(still.path)}: {', '.join(faces) or 'no face found'}"


def _frequencies(counts: Counter[str]) -> list[list[object]]:
    total = max(1, counts.total())
    return [[emotion, counts[emotion], round(counts[emotion] / total, 4)] for emotion in (*EMOTIONS, UNCERTAIN)]


def _summary(pictures: int, counts: Counter[str]) -> str:
    found = ", ".join(f"{emotion} {count}" for emotion, count in counts.most_common())
    return f"pictures: {pictures}, faces: {counts.total()}{f' ({found})' if found else ''}"
