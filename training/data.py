"""FER2013 in its two public forms, with FER+ votes, as arrays; and which rows may be learned from.

The official CSV (`emotion,pixels,Usage`; Goodfellow et al. 2013, arXiv:1307.0414), plain, .gz or .xz, or Kaggle's
image folders (`train/<emotion>/*.png`, `test/...`). A CSV is parsed once, then kept as an array file named by its hash.
"""

import csv
import gzip
import hashlib
import lzma
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TextIO

import cv2
import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, InputNotFoundError
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE, crop_face
from edge.records import Box

USAGES: Final = ("Training", "PublicTest", "PrivateTest", "test")
"""The CSV's three, and `test`: both tests of a CSV, or the `test/` of the folders."""
TESTS: Final = USAGES[1:]
CSV_NAMES: Final = ("fer2013.csv", "fer2013.csv.xz", "fer2013.csv.gz")
VOTES_NAME: Final = "fer2013new.csv"
CSV_COLUMNS: Final = ("emotion", "pixels", "Usage")
# FER+'s columns (Barsoum et al. 2016, arXiv:1608.01041); the last three name no emotion of FER2013.
VOTE_COLUMNS: Final = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"),
    *("contempt", "unknown", "NF"),
)
_VOTES_IN_EMOTION_ORDER = (4, 5, 6, 1, 3, 2, 0)
_SPELLINGS: Final = {
    **{emotion: emotion for emotion in EMOTIONS},
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
_FOLDER_USAGES: Final = {"train": "Training", "test": "test"}
_PICTURES: Final = {".png", ".jpg", ".jpeg", ".bmp"}
_CACHE_FORMAT = 2
_HOW_TO_GET = "give --data or EMOTIOND_DATA the path of fer2013.csv, of its folder, or of Kaggle's train/ and test/"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures and their labels, row for row."""

    images: npt.NDArray[np.uint8]
    """(n, 48, 48) grey."""
    labels: npt.NDArray[np.int64]
    """(n,) index into `EMOTIONS`."""
    usages: npt.NDArray[np.int64]
    """(n,) index into `USAGES`."""
    rows: npt.NDArray[np.int64]
    """(n,) data row of the CSV, from 0, or the number of the file in sorted order."""
    skipped: npt.NDArray[np.int64]
    """Rows left out: those without a picture, and Training rows of one grey level (the full FER2013 has some).
    Such rows stay in the tests, so that a figure is about the same rows as everyone's."""
    total: int
    """Rows of the source."""
    votes: npt.NDArray[np.float32] | None = None
    """(n, 10) FER+ votes in `VOTE_COLUMNS` order."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Dataset":
        """The rows that an index or a mask selects, in its order."""
        return replace(
            self,
            images=self.images[which],
            labels=self.labels[which],
            usages=self.usages[which],
            rows=self.rows[which],
            votes=None if self.votes is None else self.votes[which],
        )

    def split(self, usage: str) -> "Dataset":
        """The rows of one usage; `test` is everything but Training. Raises BadDataError if there are none."""
        training = self.usages == USAGES.index("Training")
        chosen = self.take(~training if usage == "test" else self.usages == USAGES.index(usage))
        if not len(chosen):
            there = [name for index, name in enumerate(USAGES) if (self.usages == index).any()]
            raise BadDataError(f"usage {usage}: the data holds no such row, only {', '.join(there)}")
        return chosen

    def class_counts(self) -> npt.NDArray[np.int64]:
        """(7,) rows per emotion."""
        return np.bincount(self.labels, minlength=len(EMOTIONS))


def load(source: Path | None = None, votes: Path | None = None) -> Dataset:
    """The data set at `source`, or at EMOTIOND_DATA, from the cache if it was read before.

    votes: a FER+ file to attach. Raises BadDataError, naming the row or file, or InputNotFoundError.
    """
    path = locate(source)
    dataset = _load_folders(path) if path.is_dir() else _load_cached(path)
    return dataset if votes is None else attach_votes(dataset, votes)


def locate(source: Path | None) -> Path:
    """The CSV, or the folder with `train/` or `test/`, that an argument or EMOTIOND_DATA means."""
    if source is None:
        named = os.environ.get("EMOTIOND_DATA")
        if not named:
            raise BadDataError(f"no data set: {_HOW_TO_GET}")
        source = Path(named)
    if not source.exists():
        raise InputNotFoundError(f"{source}: not found; {_HOW_TO_GET}")
    if source.is_file():
        return source
    for name in CSV_NAMES:
        if (source / name).is_file():
            return source / name
    if any((source / name).is_dir() for name in _FOLDER_USAGES):
        return source
    raise BadDataError(f"{source}: holds neither {CSV_NAMES[0]} (or .xz, .gz) nor train/ or test/; {_HOW_TO_GET}")


def find_votes(source: Path | None) -> Path | None:
    """The FER+ file that lies beside the CSV, if one does."""
    beside = locate(source).parent / VOTES_NAME
    return beside if beside.is_file() else None


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where parsed data is kept: EMOTIOND_CACHE, or ~/.cache/emotiond."""
    named = os.environ.get("EMOTIOND_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "emotiond"


def _load_cached(path: Path) -> Dataset:
    cached = cache_folder() / f"fer2013-v{_CACHE_FORMAT}-{file_sha256(path)[:16]}.npz"
    if cached.is_file():
        try:
            with np.load(cached) as arrays:
                return Dataset(
                    **{name: arrays[name] for name in arrays.files if name != "total"}, total=int(arrays["total"])
                )
        except (OSError, ValueError, KeyError, TypeError):
            cached.unlink(missing_ok=True)  # cut off while it was written, by a full disk say: read the source again
    dataset = read_csv(path)
    try:
        _save(cached, dataset)
    except OSError as error:
        sys.stderr.write(f"{cached}: {error.strerror}; the data set will be parsed again next time\n")
    return dataset


def _save(path: Path, dataset: Dataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.savez(
                file,
                images=dataset.images,
                labels=dataset.labels,
                usages=dataset.usages,
                rows=dataset.rows,
                skipped=dataset.skipped,
                total=np.int64(dataset.total),
            )
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    Path(file.name).replace(path)


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="ascii", newline="")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="ascii", newline="")
    return path.open(encoding="ascii", newline="")


def _csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """The wanted columns of each data row. Raises BadDataError for a file that is no such CSV."""
    try:
        with _open_text(path) as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                raise BadDataError(f"{path}: no column {', '.join(missing)}; the header must hold {','.join(columns)}")
            places = [header.index(name) for name in columns]
            for row, fields in enumerate(reader):
                if len(fields) <= max(places):
                    raise BadDataError(f"{path}: row {row}: {len(fields)} fields, expected {len(header)}")
                yield [fields[place] for place in places]
    except (csv.Error, UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise BadDataError(f"{path}: cannot be read as CSV: {error}") from error
    except OSError as error:
        raise BadDataError(f"{path}: {error.strerror or error}") from error


def read_csv(path: Path) -> Dataset:
    """Parse the official CSV. Rows count from 0, without the header. Raises BadDataError naming the row."""
    images, labels, usages, rows, skipped = [], [], [], [], []
    row = -1
    for row, (label, pixels, usage) in enumerate(_csv_rows(path, CSV_COLUMNS)):
        image = _parse_pixels(pixels, f"{path}: row {row}")
        labels_row = _parse_label(label, f"{path}: row {row}")
        if usage.strip() not in USAGES[:3]:
            raise BadDataError(f"{path}: row {row}: Usage is {usage!r}, expected one of {', '.join(USAGES[:3])}")
        if image is None or (image.min() == image.max() and usage.strip() == "Training"):
            skipped.append(row)
            continue
        images.append(image)
        labels.append(labels_row)
        usages.append(USAGES.index(usage.strip()))
        rows.append(row)
    return _assemble(path, images, labels, usages, rows, skipped, row + 1)


def _parse_label(text: str, where: str) -> int:
    if not text.strip().isdecimal() or int(text) >= len(EMOTIONS):
        raise BadDataError(f"{where}: emotion is {text!r}, expected 0 to {len(EMOTIONS) - 1}")
    return int(text)


def _parse_pixels(text: str, where: str) -> npt.NDArray[np.uint8] | None:
    """(48, 48), or None for an empty cell."""
    if not text.strip():
        return None
    with warnings.catch_warnings():
        # numpy announces trailing text that is no number by a DeprecationWarning, and newer ones by a ValueError.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(text, np.int32, sep=" ")
        except (ValueError, DeprecationWarning):
            raise BadDataError(f"{where}: pixels hold something that is not a whole number") from None
    if len(values) != FACE_SIZE**2:
        raise BadDataError(f"{where}: {len(values)} pixels, expected {FACE_SIZE}x{FACE_SIZE} = {FACE_SIZE**2}")
    if values.min() < 0 or values.max() > 255:
        raise BadDataError(f"{where}: pixel values {values.min()} to {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(FACE_SIZE, FACE_SIZE)


def _load_folders(root: Path) -> Dataset:
    """Read Kaggle's layout. Pictures of another size or with colour go through the deployed preprocessing."""
    images, labels, usages, rows, skipped = [], [], [], [], []
    row = -1
    for row, (path, label, usage) in enumerate(_pictures(root)):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise BadDataError(f"{path}: not a picture that OpenCV can read")
        if image.shape != (FACE_SIZE, FACE_SIZE):
            image = crop_face(np.asarray(image, np.uint8), Box(0, 0, image.shape[1], image.shape[0]))
        if image.min() == image.max() and USAGES[usage] == "Training":
            skipped.append(row)
            continue
        images.append(image)
        labels.append(label)
        usages.append(usage)
        rows.append(row)
    return _assemble(root, images, labels, usages, rows, skipped, row + 1)


def _pictures(root: Path) -> Iterator[tuple[Path, int, int]]:
    for folder, usage in _FOLDER_USAGES.items():
        if not (root / folder).is_dir():
            continue
        for class_folder in sorted(path for path in (root / folder).iterdir() if path.is_dir()):
            emotion = _SPELLINGS.get(class_folder.name.lower())
            if emotion is None:
                raise BadDataError(f"{class_folder}: no emotion has this name; expected {', '.join(EMOTIONS)}")
            for path in sorted(class_folder.iterdir()):
                if path.suffix.lower() in _PICTURES:
                    yield path, EMOTIONS.index(emotion), USAGES.index(usage)


def _assemble(
    source: Path,
    images: list[npt.NDArray[np.uint8]],
    labels: list[int],
    usages: list[int],
    rows: list[int],
    skipped: list[int],
    total: int,
) -> Dataset:
    if not images:
        raise BadDataError(f"{source}: holds no usable picture")
    return Dataset(
        np.stack(images),
        *(np.array(column, np.int64) for column in (labels, usages, rows, skipped)),
        total=total,
    )


def attach_votes(dataset: Dataset, path: Path) -> Dataset:
    """Add FER+'s votes, which must align with the CSV row for row. Raises BadDataError naming the first bad row."""
    if not path.is_file():
        raise InputNotFoundError(f"{path}: FER+ votes not found")
    usages, votes = [], []
    for row, (usage, *counts) in enumerate(_csv_rows(path, ("Usage", *VOTE_COLUMNS))):
        if not all(count.strip().isdecimal() for count in counts):
            raise BadDataError(f"{path}: row {row}: votes are {','.join(counts)}, expected ten whole numbers")
        usages.append(usage.strip())
        votes.append([int(count) for count in counts])
    if len(votes) != dataset.total:
        raise BadDataError(f"{path}: {len(votes)} rows do not align with the data set's {dataset.total}")
    for row, usage in zip(dataset.rows, dataset.usages, strict=True):
        if usages[row] != USAGES[usage]:
            raise BadDataError(f"{path}: row {row}: Usage is {usages[row]!r}, but {USAGES[usage]!r} in the data set")
    return replace(dataset, votes=np.array(votes, np.float32)[dataset.rows])


def emotion_votes(votes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, 10) FER+ votes to (n, 7) votes in `EMOTIONS` order; contempt, unknown and no-face are left out."""
    return votes[:, _VOTES_IN_EMOTION_ORDER]


def clear_majority(votes: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(n,) the emotion that more than half of all taggers saw, or -1 where there is none."""
    counts = emotion_votes(votes)
    clear = counts.max(axis=1) > votes.sum(axis=1) / 2
    return np.where(clear, counts.argmax(axis=1), -1)


def soft_targets(dataset: Dataset, label_share: float, smoothing: float) -> npt.NDArray[np.float32]:
    """(n, 7) what the network should say: the smoothed label, blended with the votes where there are any."""
    classes = len(EMOTIONS)
    hard = np.eye(classes, dtype=np.float32)[dataset.labels] * (1 - smoothing) + smoothing / classes
    if dataset.votes is None:
        return hard.astype(np.float32)
    counts = emotion_votes(dataset.votes)
    total = counts.sum(axis=1, keepdims=True)
    soft = np.where(total > 0, counts / np.maximum(total, 1), hard)
    return np.asarray(label_share * hard + (1 - label_share) * soft, np.float32)


def fingerprints(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """One hash per picture; equal for exact copies only."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


@dataclass(frozen=True)
class Duplicates:
    """Exact copies of pictures in a data set."""

    within: dict[str, int]
    """Usage to rows that repeat an earlier row of the same usage."""
    conflicting: int
    """Of those, rows whose label differs from the first one's."""
    across: int
    """Training rows that an evaluation split holds too."""
    redundant: npt.NDArray[np.bool_]
    """(n,) Training rows that must not be learned from: a repeat, or a copy of an evaluation row."""


def find_duplicates(dataset: Dataset) -> Duplicates:
    """Compare every picture with every other one, by hash."""
    training = USAGES.index("Training")
    prints = fingerprints(dataset.images)
    evaluated = {digest for digest, usage in zip(prints, dataset.usages, strict=True) if usage != training}
    first: dict[tuple[int, bytes], int] = {}
    within = dict.fromkeys(USAGES, 0)
    redundant = np.zeros(len(dataset), bool)
    conflicting = across = 0
    for index, (digest, usage) in enumerate(zip(prints, dataset.usages, strict=True)):
        earlier = first.setdefault((int(usage), digest), index)
        if earlier != index:
            within[USAGES[usage]] += 1
            conflicting += int(dataset.labels[earlier] != dataset.labels[index])
            redundant[index] = usage == training
        if usage == training and digest in evaluated:
            across += 1
            redundant[index] = True
    return Duplicates({name: count for name, count in within.items() if count}, conflicting, across, redundant)


def training_and_validation(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split the Training rows, stratified by emotion, without repeats or copies of evaluation rows.

    share: of each emotion's rows, for validation. The same seed and data give the same rows.
    """
    usable = dataset.take(~find_duplicates(dataset).redundant).split("Training")
    random = np.random.default_rng(seed)
    validation = np.zeros(len(usable), bool)
    for label in range(len(EMOTIONS)):
        members = np.flatnonzero(usable.labels == label)
        validation[random.permutation(members)[: round(share * len(members))]] = True
    return usable.take(~validation), usable.take(validation)


def class_table(dataset: Dataset) -> str:
    """Rows per emotion and usage, as text."""
    present = [index for index in range(len(USAGES)) if (dataset.usages == index).any()]
    lines = [f"{'':10}" + "".join(f"{USAGES[index]:>13}" for index in present)]
    counts = [np.bincount(dataset.labels[dataset.usages == index], minlength=len(EMOTIONS)) for index in present]
    for label, emotion in enumerate(EMOTIONS):
        lines.append(f"{emotion:10}" + "".join(f"{column[label]:13,}" for column in counts))
    lines.append(f"{'all':10}" + "".join(f"{column.sum():13,}" for column in counts))
    return "\n".join(lines)
