"""Parsers of FER2013's two public forms. Every error names the row or the file."""

import csv
import gzip
import lzma
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import cv2
import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE, crop_face
from edge.records import Box
from training.console import say
from training.dataset import USAGES, Dataset

CSV_COLUMNS: Final = ("emotion", "pixels", "Usage")
_SPELLINGS: Final = {
    **{emotion: emotion for emotion in EMOTIONS},
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
FOLDER_USAGES: Final = {"train": "Training", "test": "test"}
DIGITS_MAX: Final = 3  # of a label or a count of ten taggers, with room; more is a file of another kind
_PICTURES: Final = {".png", ".jpg", ".jpeg", ".bmp"}


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig", newline="")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """The wanted columns of each data row. Raises BadDataError for a file that is no such CSV."""
    try:
        with _open_text(path) as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                raise BadDataError(f"{path}: no column {', '.join(missing)}; the header must hold {','.join(columns)}")
            places = [header.index(name) for name in columns]
            for row, fields in enumerate(line for line in reader if line):
                if len(fields) <= max(places):
                    raise BadDataError(f"{path}: row {row}: {len(fields)} fields, expected {len(header)}")
                yield [fields[place] for place in places]
    except (csv.Error, UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise BadDataError(f"{path}: cannot be read as CSV: {error}") from error
    except OSError as error:
        raise BadDataError(f"{path}: {error.strerror or error}") from error


def read_csv(path: Path) -> Dataset:
    """Parse the official CSV. Rows count from 0, without the header. Raises BadDataError naming the row."""
    images, labels, usages, rows, skipped = [], [], [], [], []
    row = -1
    for row, (label, pixels, usage) in enumerate(csv_rows(path, CSV_COLUMNS)):
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


def whole_number(text: str) -> int | None:
    """Of at most `DIGITS_MAX` digits, with blanks around it; None for anything else."""
    text = text.strip(" \t")  # not of everything that str.strip() takes for a blank: int() does not
    return int(text) if text.isdecimal() and len(text) <= DIGITS_MAX else None


def _parse_label(text: str, where: str) -> int:
    label = whole_number(text)
    if label is None or label >= len(EMOTIONS):
        raise BadDataError(f"{where}: emotion is {text[:20]!r}, expected 0 to {len(EMOTIONS) - 1}")
    return label


def _parse_pixels(text: str, where: str) -> npt.NDArray[np.uint8] | None:
    """(48, 48), or None for an empty cell."""
    if not text.strip():
        return None
    with warnings.catch_warnings():
        # numpy announces trailing text that is no number by a DeprecationWarning, and newer ones by a ValueError.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(text, np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            raise BadDataError(f"{where}: pixels hold something that is not a whole number") from None
    if len(values) != FACE_SIZE**2:
        raise BadDataError(f"{where}: {len(values)} pixels, expected {FACE_SIZE}x{FACE_SIZE} = {FACE_SIZE**2}")
    if values.min() < 0 or values.max() > 255:
        raise BadDataError(f"{where}: pixel values {values.min()} to {values.max()}, expected 0 to 255")
    return values.astype(np.uint8).reshape(FACE_SIZE, FACE_SIZE)


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """A picture as (h, w) grey. Raises BadDataError."""
    try:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # a header that promises more than OpenCV's limit on pixels
        image = None
    if image is None:
        raise BadDataError(f"{path}: not a picture that OpenCV can read")
    return np.asarray(image, np.uint8)


def usage_folders(root: Path) -> list[tuple[Path, str]]:
    """The data set's folders with the usage of each, Training first; `Train` and `TEST` are such too."""
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    return [(path, usage) for name, usage in FOLDER_USAGES.items() for path in folders if path.name.lower() == name]


def read_folders(root: Path) -> Dataset:
    """Read Kaggle's layout. Pictures of another size or with colour go through the deployed preprocessing.

    Raises BadDataError for a folder that has no place in it; files that are not read are told.
    """
    images, labels, usages, rows, skipped = [], [], [], [], []
    unread: list[Path] = []
    row = -1
    for row, (path, label, usage) in enumerate(_pictures(root, unread)):
        image = read_grey(path)
        if image.shape != (FACE_SIZE, FACE_SIZE):
            image = crop_face(image, Box(0, 0, image.shape[1], image.shape[0]))
        if image.min() == image.max() and USAGES[usage] == "Training":
            skipped.append(row)
            continue
        images.append(image)
        labels.append(label)
        usages.append(usage)
        rows.append(row)
    if unread:
        say(
            f"{root}: files that are not read: {len(unread)}, {unread[0].relative_to(root)} say; only "
            f"{' '.join(sorted(_PICTURES))} in train/<emotion>/ and test/<emotion>/ are"
        )
    return _assemble(root, images, labels, usages, rows, skipped, row + 1)


def _pictures(root: Path, unread: list[Path]) -> Iterator[tuple[Path, int, int]]:
    """Each picture with its label and usage. unread: takes the files that are none, or are of no emotion."""
    _require_known_folders(root)
    unread += _files(root)
    for folder, usage in usage_folders(root):
        unread += _files(folder)
        for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
            emotion = _SPELLINGS.get(class_folder.name.lower())
            if emotion is None:
                raise BadDataError(f"{class_folder}: no emotion has this name; expected {', '.join(EMOTIONS)}")
            for path in sorted(class_folder.iterdir()):
                if path.is_dir():
                    raise BadDataError(
                        f"{path}: a folder in an emotion's folder; move its pictures up, or it elsewhere"
                    )
                if path.suffix.lower() in _PICTURES:
                    yield path, EMOTIONS.index(emotion), USAGES.index(usage)
                else:
                    unread.append(path)


def _require_known_folders(root: Path) -> None:
    """Raise BadDataError for a folder beside train/ and test/, but a hidden one: a checkout's, say."""
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name.lower() not in FOLDER_USAGES and not path.name.startswith("."):
            raise BadDataError(f"{path}: neither train nor test; rename it, or move it elsewhere")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_dir())


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
