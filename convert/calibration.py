"""The pictures that show the quantizer which values the network's layers take.

`calibration.json` lists what `draw` draws of FER2013, by emotion: a pair of the row's number in the CSV and the hash of
its picture (`checks.fingerprints`, hexadecimal), by which it is found in any edition of the data. It holds no pictures.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, InputNotFoundError
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE, crop_face
from edge.records import Box
from training import checks
from training.dataset import USAGES, Dataset

INDICES: Final = Path(__file__).with_name("calibration.json")
PER_EMOTION: Final = 60
_SEED = 2013


def draw(dataset: Dataset, per_emotion: int = PER_EMOTION) -> Dataset:
    """The same number of Training rows of each emotion, by a fixed seed, without repeats or copies of test rows."""
    usable = dataset.take(~checks.find_duplicates(dataset).redundant).split("Training")
    random = np.random.default_rng(_SEED)
    chosen = []
    for label, emotion in enumerate(EMOTIONS):
        members = np.flatnonzero(usable.labels == label)
        if len(members) < per_emotion:
            raise BadDataError(
                f"calibration wants {per_emotion} Training rows of {emotion}, the data has {len(members)}"
            )
        chosen.append(np.sort(random.choice(members, per_emotion, replace=False)))
    return usable.take(np.concatenate(chosen))


def find(dataset: Dataset, path: Path = INDICES) -> Dataset | None:
    """The rows that `path` lists, or None if this edition of the data (recompressed pictures, say) lacks some.

    Raises InputNotFoundError or BadDataError for a list that cannot be used.
    """
    try:
        listed = json.loads(path.read_text())
        wanted = [digest for emotion in EMOTIONS for _row, digest in listed[emotion]]
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(f"{path}: expected emotions with [row, hash] pairs: {error!r}") from error
    training = np.flatnonzero(dataset.usages == USAGES.index("Training"))
    prints = checks.fingerprints(dataset.images[training])
    places: dict[str, int] = {}
    for place, digest in zip(training, prints, strict=True):
        places.setdefault(digest.hex(), int(place))  # the first of equal pictures, as `draw` takes it
    if not all(digest in places for digest in wanted):
        return None
    return dataset.take(np.array([places[digest] for digest in wanted]))


def inputs(images: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.float32]]:
    """(n, 48, 48) uint8 to n arrays of (1, 48, 48, 1) float32, prepared as the daemon prepares a face.

    The first one ramps from black to white, so that the input's range is all of 0 to 255 whatever the pictures hold.
    """
    ramp = np.linspace(0, 255, FACE_SIZE, dtype=np.float32)
    yield np.tile(ramp, (FACE_SIZE, 1))[None, :, :, None]
    whole = Box(0, 0, FACE_SIZE, FACE_SIZE)
    for image in images:
        yield crop_face(image, whole).astype(np.float32)[None, :, :, None]
