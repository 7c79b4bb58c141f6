"""Train the network: SGD with warm-up and cosine, averaged weights, and a run folder that survives a kill.

A run folder holds `config.json`, `history.csv` (one line per epoch), `state.npz` (all that `--resume` needs, after
the last whole epoch) and `model.keras` (the averaged weights of the best epoch, in float32).
Epoch and batch number alone seed each batch, so a resumed run sees the pictures that it would have seen.
"""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, EmotiondError, InputNotFoundError
from edge.labels import EMOTIONS
from training import augment, data
from training.config import TrainConfig
from training.console import say
from training.model import build_model

AVERAGE_EVERY = 4
"""Steps between updates of the averaged weights; a tenth of a percent of a step's time."""
HISTORY = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_majority",
    "learning_rate",
    "seconds",
    "augment_s",
)


class DiskFullError(EmotiondError):
    """A checkpoint could not be written; the one before it is whole."""

    exit_code = 74


class Batches(keras.utils.PyDataset):
    """Augmented batches of one epoch after another.

    part, parts: with several hosts each makes the same batch and feeds its own part of it.
    """

    def __init__(self, dataset: data.Dataset, config: TrainConfig, part: int = 0, parts: int = 1) -> None:
        super().__init__()
        self._images, self._config = dataset.images, config
        self._targets = data.soft_targets(dataset, config.label_share, config.label_smoothing)
        self._part, self._parts = part, parts
        self.seconds = 0.0
        """Spent on making batches, in all."""
        counts = np.maximum(dataset.class_counts(), 1)
        rarity = (counts.max() / counts) ** config.balance_strength
        self._draw = rarity[dataset.labels] / rarity[dataset.labels].sum()
        if config.balance == "weights":
            # Cross-entropy is linear in the target, so a weighted target is a weighted loss, and mixup blends it too.
            weights = rarity[dataset.labels] / rarity[dataset.labels].mean()
            self._targets = (self._targets * weights[:, None]).astype(np.float32)
        self.start(epoch=0)

    def __len__(self) -> int:
        return max(1, len(self._images) // self._config.batch_size)

    def __getitem__(self, index: int) -> augment.Batch:
        started = time.perf_counter()
        config = self._config
        random = np.random.default_rng([config.seed, self.epoch, index])
        chosen = self._order[index * config.batch_size : (index + 1) * config.batch_size]
        images, targets = augment.augment(self._images[chosen], config, random), self._targets[chosen]
        if config.mixup_alpha > 0 and random.random() < config.mixup_share:
            images, targets = augment.mixup(images, targets, config.mixup_alpha, random)
        self.seconds += time.perf_counter() - started
        part = slice(self._part * len(images) // self._parts, (self._part + 1) * len(images) // self._parts)
        return images[part], targets[part]

    def start(self, epoch: int) -> None:
        """Go to an epoch, counted from 0."""
        self.epoch = epoch
        self._order = self._shuffle()

    def on_epoch_end(self) -> None:
        """Keras calls this after each epoch."""
        self.start(self.epoch + 1)

    def _shuffle(self) -> npt.NDArray[np.int64]:
        random = np.random.default_rng([self._config.seed, self.epoch])
        if self._config.balance == "oversample":
            return random.choice(len(self._images), len(self._images), p=self._draw)
        return random.permutation(len(self._images))


def build_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum, or AdamW; a linear warm-up, then a cosine to zero."""
    warmup = min(round(config.warmup_epochs * steps_per_epoch), config.epochs * steps_per_epoch - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=config.epochs * steps_per_epoch - warmup,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    else:
        # Keras decays weights beside the gradient, not in it: momentum does not multiply it, as it does in L2.
        decay = config.weight_decay / (1 - config.momentum)
        optimizer = keras.optimizers.SGD(schedule, momentum=config.momentum, nesterov=True, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def build_training_model(config: TrainConfig) -> keras.Model:
    """The network with the layers and precision that train fastest on this backend, not yet compiled."""
    on_torch = keras.backend.backend() == "torch"
    precision = ("mixed_bfloat16" if on_torch else "float32") if config.precision == "auto" else config.precision
    if not on_torch:
        return build_model(config.width, config.dropout, precision, seed=config.seed)
    from training.torch_norm import FusedBatchNormalization  # imports torch, which other backends may lack

    return build_model(config.width, config.dropout, precision, FusedBatchNormalization, config.seed)


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
            mean += (1 - keep) * _numpy(weight)


def _numpy(variable: keras.Variable) -> npt.NDArray[np.float32]:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


def _synchronize(model: keras.Model) -> None:
    """JAX keeps the state of a running `fit` outside the model's variables."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


class Epochs(keras.callbacks.Callback):
    """What happens around an epoch: averaging, validation, checkpoint, history, progress, early stopping."""

    def __init__(self, run: "Run", average: Average, best: float, writes: bool) -> None:
        super().__init__()
        self._run, self._average, self._best, self._writes = run, average, best, writes
        self._without_gain = 0
        self._steps = 0
        self._epoch_started = self._run_started = time.monotonic()
        self._done_before = len(run.history)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the epoch's clock."""
        self._epoch_started = time.monotonic()
        self._run.batches.seconds = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Feed the average and the progress line."""
        self._steps += 1
        if self._steps % AVERAGE_EVERY == 0:
            _synchronize(self.model)
            self._average.update(self.model)
        if self._writes and batch % 10 == 0 and logs:
            share = (batch + 1) / len(self._run.batches)
            say(
                f"\repoch {len(self._run.history) + 1}: {share:4.0%}  loss {logs['loss']:.3f} ",
                end="",
                only_terminal=True,
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate the averaged weights, keep the best, and write a checkpoint."""
        _synchronize(self.model)
        run = self._run
        keep_last = run.config.ema_momentum == 0
        run.deployed.set_weights(
            [_numpy(weight) for weight in self.model.weights] if keep_last else self._average.weights
        )
        entry = {"epoch": epoch + 1, "loss": logs["loss"], "accuracy": logs["accuracy"], **run.validate()}
        entry["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        entry["augment_s"] = run.batches.seconds
        entry["seconds"] = time.monotonic() - self._epoch_started
        run.history.append(entry)
        better = entry["val_loss"] < self._best
        self._best = min(self._best, entry["val_loss"])
        self._without_gain = 0 if better else self._without_gain + 1
        if self._writes:
            run.save(self.model, self._average, self._best, better)
            self._tell(entry, better)
        if run.config.patience and self._without_gain >= run.config.patience:
            self.model.stop_training = True

    def _tell(self, entry: dict[str, float], better: bool) -> None:
        done = len(self._run.history)
        pace = (time.monotonic() - self._run_started) / (done - self._done_before)
        left = (self._run.config.epochs - done) * pace
        say(
            f"\repoch {done}/{self._run.config.epochs}  loss {entry['loss']:.3f}  validation: loss "
            f"{entry['val_loss']:.3f} accuracy {entry['val_accuracy']:.1%} majority {entry['val_majority']:.1%}"
            f"{' *' if better else ''}  {entry['seconds']:.0f} s (augmentation {entry['augment_s']:.1f} s), "
            f"{left / 60:.0f} min left"
        )


@dataclass
class Run:
    """A run folder and what is in it."""

    folder: Path
    config: TrainConfig
    batches: Batches
    validation: data.Dataset
    deployed: keras.Model
    """float32, with ordinary layers; holds the averaged weights."""
    history: list[dict[str, float]]

    def validate(self) -> dict[str, float]:
        """Loss against the blended targets, and accuracy by FER2013's labels and by FER+'s clear majorities."""
        pixels = self.validation.images[..., None].astype(np.float32)
        scores = self.deployed.predict(pixels, batch_size=256, verbose=0)
        targets = data.soft_targets(self.validation, self.config.label_share, smoothing=0.0)
        predicted = scores.argmax(axis=1)
        majority = float("nan")
        if self.validation.votes is not None:
            seen = data.clear_majority(self.validation.votes)
            majority = float((predicted == seen)[seen >= 0].mean())
        return {
            "val_loss": float(-(targets * np.log(np.maximum(scores, 1e-7))).sum(axis=1).mean()),
            "val_accuracy": float((predicted == self.validation.labels).mean()),
            "val_majority": majority,
        }

    def save(self, model: keras.Model, average: Average, best: float, better: bool) -> None:
        """Write the checkpoint. Each file replaces the old one only once it is whole; raises DiskFullError."""
        try:
            arrays = {f"variable_{index}": _numpy(variable) for index, variable in enumerate(_state(model))}
            arrays |= {f"average_{index}": weight for index, weight in enumerate(average.weights)}
            history = json.dumps(self.history)
            _replace(
                self.folder / "state.npz",
                lambda path: np.savez(path, history=history, best=best, updates=average.updates, **arrays),
            )
            if better:
                _replace(self.folder / "model.keras", self.deployed.save)
            _replace(self.folder / "history.csv", self._write_history)
        except OSError as error:
            raise DiskFullError(
                f"{self.folder}: {error.strerror or error}; the last good checkpoint is kept"
            ) from error

    def _write_history(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY)
            writer.writeheader()
            writer.writerows({key: f"{entry[key]:.6g}" for key in HISTORY} for entry in self.history)

    def restore(self, model: keras.Model) -> tuple[Average, float]:
        """Load the checkpoint into a compiled model. Raises BadDataError for one of another architecture."""
        path = self.folder / "state.npz"
        if not path.is_file():
            raise InputNotFoundError(f"{path}: no checkpoint to resume; leave out --resume to start")
        model.optimizer.build(model.trainable_variables)
        variables = _state(model)
        try:
            with np.load(path) as arrays:
                saved = [arrays[f"variable_{index}"] for index in range(len(variables))]
                weights = [arrays[f"average_{index}"].copy() for index in range(len(model.weights))]
                self.history[:] = json.loads(str(arrays["history"]))
                best, updates = float(arrays["best"]), int(arrays["updates"])
        except (ValueError, KeyError, OSError) as error:
            raise BadDataError(f"{path}: not a checkpoint of this architecture: {error}") from error
        for variable, value in zip(variables, saved, strict=True):
            if tuple(variable.shape) != value.shape:
                raise BadDataError(
                    f"{path}: a checkpoint of another architecture: {variable.path} is {value.shape} there, "
                    f"{tuple(variable.shape)} here"
                )
            variable.assign(value)
        return Average(self.config.ema_momentum, weights, updates), best


def _state(model: keras.Model) -> list[keras.Variable]:
    """All that training changes: weights, optimizer, and the dropout's random state."""
    return [*model.weights, model.get_layer("dropout").seed_generator.state, *model.optimizer.variables]


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    # The suffix must stay: numpy and Keras choose the format by it.
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def train(
    dataset: data.Dataset, config: TrainConfig, folder: Path, resume: bool = False, part: int = 0, parts: int = 1
) -> Run:
    """Train on the Training rows of `dataset` but the validation share, into `folder`.

    part, parts: this process's place among several hosts; the first one writes the files.
    Raises BadDataError, InputNotFoundError or DiskFullError.
    """
    learned, validation = data.training_and_validation(dataset, config.validation_share, config.seed)
    if not (len(learned) and len(validation)):
        raise BadDataError("too few Training rows for a validation split")
    model = build_training_model(config)
    batches = Batches(learned, config, part=part, parts=parts)
    model.compile(
        build_optimizer(config, len(batches)),
        keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile="auto",
    )
    run = Run(folder, config, batches, validation, build_model(config.width, config.dropout), [])
    average, best = Average(config.ema_momentum, [_numpy(weight).copy() for weight in model.weights]), float("inf")
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        average, best = run.restore(model)
    batches.start(len(run.history))
    if part == 0:
        config.save(folder / "config.json")
        np.save(folder / "validation_rows.npy", validation.rows)
        say(
            f"{len(learned):,} rows to learn from, {len(validation):,} to validate on, {len(EMOTIONS)} emotions; "
            f"{model.count_params():,} parameters on {keras.backend.backend()}, "
            f"{model.get_layer('stem_conv').dtype_policy.name}"
        )
    model.fit(
        batches,
        epochs=config.epochs,
        initial_epoch=len(run.history),
        shuffle=False,  # Batches has its own order
        verbose=0,
        callbacks=[Epochs(run, average, best, writes=part == 0)],
    )
    return run
