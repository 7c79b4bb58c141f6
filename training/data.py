"""FER2013 in its two public forms, with FER+ votes; and which rows may be learned from.

The official CSV (`emotion,pixels,Usage`; Goodfellow et al. 2013, arXiv:1307.0414), plain, .gz or .xz, or Kaggle's
image folders (`train/<emotion>/*.png`, `test/...`). A CSV is parsed once, then kept as an array file named by its hash.
"""

import hashlib
import os
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edge.errors import BadDataError, InputNotFoundError
from edge.labels import EMOTIONS
from training.checks import find_duplicates
from training.console import writing
from training.dataset import USAGES, VOTE_COLUMNS, Dataset, majority_hits
from training.readers import csv_rows, read_csv, read_folders, usage_folders, whole_number

CSV_NAMES: Final = ("fer2013.csv", "fer2013.csv.xz", "fer2013.csv.gz")
VOTES_NAME: Final = "fer2013new.csv"
_CACHE_FORMAT = 2
# Of labels with clear majorities: 72 % on FER2013, 19 % when the rows are shifted by one.
AGREEMENT_MIN, AGREEMENT_ROWS_MIN = 0.4, 200
_HOW_TO_GET = "give --data or EMOTIOND_DATA the path of fer2013.csv, of its folder, or of Kaggle's train/ and test/"


def load(source: Path | None = None, votes: Path | None = None) -> Dataset:
    """The data set at `source`, or at EMOTIOND_DATA, from the cache if it was read before.

    votes: a FER+ file to attach. Raises BadDataError, naming the row or file, or InputNotFoundError.
    """
    path = locate(source)
    dataset = read_folders(path) if path.is_dir() else _load_cached(path)
    return dataset if votes is None else attach_votes(dataset, votes)


def load_with_votes(source: Path | None = None, votes: Path | None = None) -> Dataset:
    """As `load`; without `votes`, with those that lie beside the CSV, should they fit."""
    dataset = load(source, votes)
    beside = None if votes else find_votes(source)
    if beside is None:
        return dataset
    try:
        return attach_votes(dataset, beside)
    except BadDataError as error:
        sys.stderr.write(f"{error}; going on without FER+ votes\n")
        return dataset


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
    if not source.is_dir():
        raise BadDataError(f"{source}: neither a file nor a folder, and it is read more than once; {_HOW_TO_GET}")
    for name in CSV_NAMES:
        if (source / name).is_file():
            return source / name
    if usage_folders(source):
        return source
    raise BadDataError(f"{source}: holds neither {CSV_NAMES[0]} (or .xz, .gz) nor train/ or test/; {_HOW_TO_GET}")


def find_votes(source: Path | None) -> Path | None:
    """The FER+ file that lies beside the CSV, if one does. Its rows are the CSV's: it means nothing for folders."""
    path = locate(source)
    beside = path.parent / VOTES_NAME
    return beside if path.is_file() and beside.is_file() else None


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
            with cached.open("rb") as file, np.load(file) as arrays:
                return Dataset(
                    **{name: arrays[name] for name in arrays.files if name != "total"}, total=int(arrays["total"])
                )
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            pass  # another user's, or cut off while it was written, by a full disk say: read the source again
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
            file.close()
            Path(file.name).chmod(0o666 & ~_umask())  # other users may share the folder; a temporary file is private
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0o022)  # it cannot be read without being set
    os.umask(mask)
    return mask


def attach_votes(dataset: Dataset, path: Path) -> Dataset:
    """Add FER+'s votes, which must align with the CSV row for row. Raises BadDataError naming the first bad row."""
    if not path.is_file():
        raise InputNotFoundError(f"{path}: FER+ votes not found")
    usages, votes = [], []
    for row, (usage, *texts) in enumerate(csv_rows(path, ("Usage", *VOTE_COLUMNS))):
        counts = [whole_number(text) for text in texts]
        if None in counts:
            given = ascii(",".join(texts))[1:-1]
            raise BadDataError(f"{path}: row {row}: votes are {given}, expected ten whole numbers")
        usages.append(usage.strip())
        votes.append(counts)
    if len(votes) != dataset.total:
        raise BadDataError(f"{path}: {len(votes)} rows do not align with the data set's {dataset.total}")
    for row, usage in zip(dataset.rows, dataset.usages, strict=True):
        if usages[row] != USAGES[usage]:
            raise BadDataError(f"{path}: row {row}: Usage is {usages[row]!r}, but {USAGES[usage]!r} in the data set")
    voted = replace(dataset, votes=np.array(votes, np.float32)[dataset.rows])
    hits = majority_hits(voted.labels, voted.votes)
    if len(hits) >= AGREEMENT_ROWS_MIN and hits.mean() < AGREEMENT_MIN:
        raise BadDataError(
            f"{path}: majorities agree with only {hits.mean():.0%} of the labels: its rows are of other pictures"
        )
    return voted


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


def export_folders(dataset: Dataset, root: Path) -> int:
    """Write Kaggle's layout, `train/<emotion>/<row>.png` and `test/...`, and return the number of pictures.

    Lossless, so that loading it gives the same pixels. Raises OutputError if a picture cannot be written.
    """
    for image, label, usage, row in zip(dataset.images, dataset.labels, dataset.usages, dataset.rows, strict=True):
        folder = root / ("train" if USAGES[usage] == "Training" else "test") / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        # Not cv2.imwrite, which takes a full disk for a success.
        with writing(folder / f"{row:05}.png") as path:
            path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return len(dataset)
