"""A run folder, and the checkpoints in it.

`config.json`, `history.csv` (one line per epoch), `validation_rows.npy` (which rows were withheld), `state.npz` (all
that `--resume` needs, after the last whole epoch), `best.keras` (the averaged weights of the best epoch, float32) and
`model.keras`, which is to be used: the same, and calibrated once the run has ended.
"""

import csv
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, ConfigError, InputNotFoundError
from edge.labels import EMOTIONS
from training import calibrate, hosts
from training.batches import Batches
from training.config import TrainConfig
from training.console import OutputError, say, writing
from training.dataset import Dataset, majority_hits, soft_targets
from training.evaluate import Predict, load_keras, open_model

State = Sequence[npt.NDArray[np.float32]]
AVERAGE_EVERY = 4
"""Steps between updates of the averaged weights; under a percent of a step's time."""
HISTORY = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_majority")
HISTORY += ("learning_rate", "seconds", "augment_s")


@dataclass
class Average:
    """Exponential moving average of all weights, the normalization's statistics included."""

    momentum: float
    weights: list[npt.NDArray[np.float32]]
    updates: int = 0

    def update(self, weights: Iterable[npt.NDArray[np.float32]]) -> None:
        """Take in the network's weights, AVERAGE_EVERY steps after the last time."""
        self.updates += 1
        steps = self.updates * AVERAGE_EVERY
        # Young averages forget faster, so that the random first weights do not linger.
        keep = min(self.momentum, (1 + steps) / (10 + steps)) ** AVERAGE_EVERY
        for mean, weight in zip(self.weights, weights, strict=True):
            mean *= keep
            mean += (1 - keep) * weight

    def end_epoch(self, weights: Iterable[npt.NDArray[np.float32]]) -> None:
        """Take them in if none were taken in yet: after a step or three it would still be the random first ones."""
        if not self.updates:
            self.update(weights)


def as_numpy(variable: keras.Variable) -> npt.NDArray[np.float32]:
    """A variable's value; on torch it shares the variable's memory."""
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


@dataclass
class Run:
    """A run folder and what is in it."""

    folder: Path
    config: TrainConfig
    batches: Batches
    validation: Dataset
    deployed: keras.Model
    """float32, with ordinary layers and both views; holds the averaged weights."""
    history: list[dict[str, float]]

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The deployed network's scores, (n, 7), of (n, 48, 48) faces."""
        with hosts.alone():
            return np.asarray(self.deployed.predict(images[..., None].astype(np.float32), batch_size=256, verbose=0))

    def validate(self, predict: Predict) -> dict[str, float]:
        """Loss against the blended targets, and accuracy by FER2013's labels and by FER+'s clear majorities."""
        scores = predict(self.validation.images)
        targets = soft_targets(self.validation, self.config.label_share, smoothing=0.0)
        predicted = scores.argmax(axis=1)
        majority = float("nan")
        if self.validation.votes is not None:
            majority = float(majority_hits(predicted, self.validation.votes).mean())
        return {
            "val_loss": float(-(targets * np.log(np.maximum(scores, 1e-7))).sum(axis=1).mean()),
            "val_accuracy": float((predicted == self.validation.labels).mean()),
            "val_majority": majority,
        }

    def calibrate(self) -> None:
        """Make the best epoch's network, calibrated, the one that is used. Doing it again changes nothing.

        Raises InputNotFoundError or BadDataError for a best.keras that cannot be read, or OutputError.
        """
        # Always from there: to calibrate what is calibrated would not end at the same numbers.
        self.deployed.set_weights(load_keras(self.folder / "best.keras").get_weights())
        targets = soft_targets(self.validation, self.config.calibration_share, smoothing=0.0)
        found = calibrate.fit(self.predict(self.validation.images), self.validation.labels, targets)
        found.fold(self.deployed)
        if self._is_in_use():
            return
        self._write("model.keras", self.deployed.save)
        biases = ", ".join(f"{emotion} {value:+.2f}" for emotion, value in zip(EMOTIONS, found.bias, strict=True))
        say(f"calibrated on the validation rows: temperature {1 / found.scale:.3f}, biases {biases}")

    def _is_in_use(self) -> bool:
        """Whether model.keras says what the network says; written anew, its hash would change all the same."""
        try:
            said = open_model(self.folder / "model.keras")(self.validation.images)
        except (InputNotFoundError, BadDataError):
            return False
        return np.allclose(said, self.predict(self.validation.images), atol=1e-4)

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the lowest validation loss; 0 means that the last epoch is the best."""
        losses = [entry["val_loss"] for entry in self.history]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    def save(self, state: State, average: Average) -> None:
        """Write the checkpoint. Each file replaces the old one only once it is whole; raises OutputError.

        state: all that training changes. `restore` gives it back.
        """
        try:
            arrays = {f"variable_{index}": value for index, value in enumerate(state)}
            arrays |= {f"average_{index}": weight for index, weight in enumerate(average.weights)}
            arrays |= {"history": json.dumps(self.history), "updates": average.updates, "votes": self._votes}
            arrays |= {"backend": keras.backend.backend(), "optimizer": self.config.optimizer}
            arrays["label_share"] = self.config.label_share
            if self.epochs_without_gain == 0:
                _replace(self.folder / "best.keras", self.deployed.save)
                _replace(self.folder / "model.keras", lambda path: shutil.copyfile(self.folder / "best.keras", path))
            _replace(self.folder / "history.csv", self._write_history)
            # Last: should this not be reached, a resumed run repeats the epoch, and writes the others again.
            _replace(self.folder / "state.npz", lambda path: np.savez(path, **arrays))
        except OSError as error:
            kept = "the last good checkpoint is kept" if (self.folder / "state.npz").exists() else "nothing is kept yet"
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}; {kept}") from error

    def begin(self) -> None:
        """Write what stays the same to the end. Raises OutputError."""
        self._write("config.json", self.config.save)
        self._write("validation_rows.npy", lambda path: np.save(path, self.validation.rows))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        with writing(self.folder):
            _replace(self.folder / name, write)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping has ended them."""
        patience = self.config.patience
        return len(self.history) >= self.config.epochs or bool(patience and self.epochs_without_gain >= patience)

    @property
    def _votes(self) -> str:
        """A digest of the FER+ votes in the targets: with others, losses could not be compared."""
        votes = self.validation.votes
        return "none" if votes is None else hashlib.sha256(votes.tobytes()).hexdigest()

    def _write_history(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY)
            writer.writeheader()
            writer.writerows({key: f"{entry[key]:.6g}" for key in HISTORY} for entry in self.history)

    def restore(self, shapes: Sequence[tuple[str, tuple[int, ...]]], averaged: int) -> tuple[State, Average]:
        """The checkpoint's state and averaged weights; the history is taken over.

        shapes: name and shape of each array of the state. averaged: number of weights in the average.
        Raises BadDataError for one of another architecture, of other validation rows (the run may have learned from
        these) or of other votes; ConfigError for one that another backend or optimizer began, or of other targets.
        """
        path = self.folder / "state.npz"
        if not path.is_file():
            raise InputNotFoundError(f"{path}: no checkpoint to resume; leave out --resume to start")
        withheld = self.folder / "validation_rows.npy"
        if not np.array_equal(load_rows(withheld), self.validation.rows):
            raise BadDataError(
                f"{withheld}: the run withheld other rows; resume it with the data and validation_seed it began with"
            )
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                _require_backend(path, str(arrays["backend"]))
                self._require_same_settings(path, arrays)
                saved = [arrays[f"variable_{index}"] for index in range(len(shapes))]
                weights = [arrays[f"average_{index}"].copy() for index in range(averaged)]
                self.history[:] = json.loads(str(arrays["history"]))
                updates, votes = int(arrays["updates"]), str(arrays["votes"])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BadDataError(f"{path}: not a checkpoint of this architecture and optimizer: {error}") from error
        if votes != self._votes:
            raise BadDataError(f"{path}: the run was begun with other FER+ votes, or none; give the same --votes")
        for (name, shape), value in zip(shapes, saved, strict=True):
            if shape != value.shape:
                raise BadDataError(
                    f"{path}: a checkpoint of another architecture: {name} is {value.shape} there, {shape} here"
                )
        return saved, Average(self.config.ema_momentum, weights, updates)

    def _require_same_settings(self, path: Path, saved: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raise ConfigError if the state, or what the validation losses are about, is of other settings."""
        optimizer = str(saved["optimizer"])
        if optimizer != self.config.optimizer:
            raise ConfigError(_begun_with(path, "optimizer", optimizer, "whose state no other one can use"))
        label_share = float(saved["label_share"])
        if label_share != self.config.label_share and {str(saved["votes"]), self._votes} != {"none"}:
            why = "and losses against other targets could not be compared"
            raise ConfigError(_begun_with(path, "label_share", f"{label_share:g}", why))


def _begun_with(path: Path, name: str, value: str, why: str) -> str:
    return f"{path}: this run was begun with {name}={value}, {why}; leave {name} as it is, or begin another run"


def _require_backend(path: Path, begun_on: str) -> None:
    """Raise ConfigError if a checkpoint is torch's and this is not torch, or the other way round.

    Keras's own loop keeps the same on any backend.
    """
    here = keras.backend.backend()
    if begun_on != here and "torch" in (begun_on, here):
        raise ConfigError(f"{path}: this run was begun on {begun_on}; set KERAS_BACKEND={begun_on}")


def load_rows(path: Path) -> npt.NDArray[np.int64]:
    """The rows that a run withheld, from its `validation_rows.npy`. Raises InputNotFoundError or BadDataError."""
    if not path.is_file():
        raise InputNotFoundError(f"{path}: not found; give a folder that `training train --out` wrote")
    try:
        return np.load(path)
    except (ValueError, OSError, EOFError) as error:
        raise BadDataError(f"{path}: not the withheld rows of a run: {error}") from error


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    # The suffix must stay: numpy and Keras choose the format by it.
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
