"""A run folder, and the checkpoints in it.

`config.json`, `history.csv` (one line per epoch), `validation_rows.npy` (which rows were withheld), `state.npz` (all
that `--resume` needs, after the last whole epoch) and `model.keras` (the averaged weights of the best epoch, float32).
"""

import csv
import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, EmotiondError, InputNotFoundError
from training import hosts
from training.batches import Batches
from training.config import TrainConfig
from training.dataset import Dataset, clear_majority, soft_targets

AVERAGE_EVERY = 4
"""Steps between updates of the averaged weights; under a percent of a step's time."""
HISTORY = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_majority")
HISTORY += ("learning_rate", "seconds", "augment_s")


class DiskFullError(EmotiondError):
    """A checkpoint could not be written; the one before it is whole."""

    exit_code = 74


@dataclass
class Average:
    """Exponential moving average of all weights, the normalization's statistics included."""

    momentum: float
    weights: list[npt.NDArray[np.float32]]
    updates: int = 0

    def update(self, model: keras.Model) -> None:
        """Take in the model's weights, AVERAGE_EVERY steps after the last time."""
        self.updates += 1
        steps = self.updates * AVERAGE_EVERY
        # Young averages forget faster, so that the random first weights do not linger.
        keep = min(self.momentum, (1 + steps) / (10 + steps)) ** AVERAGE_EVERY
        for mean, weight in zip(self.weights, model.weights, strict=True):
            mean *= keep
            mean += (1 - keep) * as_numpy(weight)


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
    """float32, with ordinary layers; holds the averaged weights."""
    history: list[dict[str, float]]

    def validate(self) -> dict[str, float]:
        """Loss against the blended targets, and accuracy by FER2013's labels and by FER+'s clear majorities."""
        pixels = self.validation.images[..., None].astype(np.float32)
        with hosts.alone():
            scores = self.deployed.predict(pixels, batch_size=256, verbose=0)
        targets = soft_targets(self.validation, self.config.label_share, smoothing=0.0)
        predicted = scores.argmax(axis=1)
        majority = float("nan")
        if self.validation.votes is not None:
            seen = clear_majority(self.validation.votes)
            majority = float((predicted == seen)[seen >= 0].mean())
        return {
            "val_loss": float(-(targets * np.log(np.maximum(scores, 1e-7))).sum(axis=1).mean()),
            "val_accuracy": float((predicted == self.validation.labels).mean()),
            "val_majority": majority,
        }

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the lowest validation loss; 0 means that the last epoch is the best."""
        losses = [entry["val_loss"] for entry in self.history]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    def save(self, model: keras.Model, average: Average) -> None:
        """Write the checkpoint. Each file replaces the old one only once it is whole; raises DiskFullError."""
        try:
            arrays = {f"variable_{index}": as_numpy(variable) for index, variable in enumerate(_state(model))}
            arrays |= {f"average_{index}": weight for index, weight in enumerate(average.weights)}
            arrays |= {"history": json.dumps(self.history), "updates": average.updates, "votes": self._votes}
            if self.epochs_without_gain == 0:
                _replace(self.folder / "model.keras", self.deployed.save)
            _replace(self.folder / "history.csv", self._write_history)
            # Last: should this not be reached, a resumed run repeats the epoch, and writes the others again.
            _replace(self.folder / "state.npz", lambda path: np.savez(path, **arrays))
        except OSError as error:
            kept = "the last good checkpoint is kept" if (self.folder / "state.npz").exists() else "nothing is kept yet"
            raise DiskFullError(f"{self.folder}: {error.strerror or error}; {kept}") from error

    def begin(self) -> None:
        """Write what stays the same to the end. Raises DiskFullError."""
        try:
            _replace(self.folder / "config.json", self.config.save)
            _replace(self.folder / "validation_rows.npy", lambda path: np.save(path, self.validation.rows))
        except OSError as error:
            raise DiskFullError(f"{self.folder}: {error.strerror or error}") from error

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

    def restore(self, model: keras.Model) -> Average:
        """Load the checkpoint into a compiled model.

        Raises BadDataError for one of another architecture, of other validation rows (the run may have learned from
        these) or of other votes.
        """
        path = self.folder / "state.npz"
        if not path.is_file():
            raise InputNotFoundError(f"{path}: no checkpoint to resume; leave out --resume to start")
        withheld = self.folder / "validation_rows.npy"
        if not np.array_equal(_load_rows(withheld), self.validation.rows):
            raise BadDataError(
                f"{withheld}: the run withheld other rows; resume it with the data and seed it began with"
            )
        model.optimizer.build(model.trainable_variables)
        variables = _state(model)
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                saved = [arrays[f"variable_{index}"] for index in range(len(variables))]
                weights = [arrays[f"average_{index}"].copy() for index in range(len(model.weights))]
                self.history[:] = json.loads(str(arrays["history"]))
                updates, votes = int(arrays["updates"]), str(arrays["votes"])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BadDataError(f"{path}: not a checkpoint of this architecture: {error}") from error
        if votes != self._votes:
            raise BadDataError(f"{path}: the run was begun with other FER+ votes, or none; give the same --votes")
        for variable, value in zip(variables, saved, strict=True):
            if tuple(variable.shape) != value.shape:
                raise BadDataError(
                    f"{path}: a checkpoint of another architecture: {variable.path} is {value.shape} there, "
                    f"{tuple(variable.shape)} here"
                )
            variable.assign(value)
        return Average(self.config.ema_momentum, weights, updates)


def _load_rows(path: Path) -> npt.NDArray[np.int64]:
    try:
        return np.load(path)
    except (ValueError, OSError, EOFError) as error:
        raise BadDataError(f"{path}: not the withheld rows of a run: {error}") from error


def _state(model: keras.Model) -> list[keras.Variable]:
    """All that training changes: weights, optimizer, and the dropout's random state."""
    # A dropout of 0 has no random state.
    random = getattr(model.get_layer("dropout"), "seed_generator", None)
    return [*model.weights, *([random.state] if random else []), *model.optimizer.variables]


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    # The suffix must stay: numpy and Keras choose the format by it.
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
