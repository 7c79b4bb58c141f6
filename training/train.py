"""Train the network: SGD with warm-up and cosine, averaged weights, and a run folder that survives a kill."""

import math
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

from edge.errors import BadDataError, ConfigError, EmotiondError
from edge.labels import EMOTIONS
from training import data, hosts
from training.batches import Batches
from training.config import TrainConfig
from training.console import say
from training.dataset import Dataset
from training.model import build_model
from training.run import AVERAGE_EVERY, Average, Run, as_numpy


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


def train(
    dataset: Dataset, config: TrainConfig, folder: Path, resume: bool = False, part: int = 0, parts: int = 1
) -> Run:
    """Train on the Training rows of `dataset` but the validation share, into `folder`.

    part, parts: this process's place among several hosts; the first one writes the files.
    Raises BadDataError, ConfigError, InputNotFoundError or DiskFullError.
    """
    learned, validation = data.training_and_validation(dataset, config.validation_share, config.seed)
    if not (len(learned) and len(validation)):
        raise BadDataError("too few Training rows for a validation split")
    deployed = build_model(config.width, config.dropout)  # before sharing: each process judges it by itself
    if parts > 1:
        hosts.share_batches()
    model = build_training_model(config)
    batches = Batches(learned, config, part, parts)
    model.compile(build_optimizer(config, len(batches)), keras.losses.CategoricalCrossentropy(), metrics=["accuracy"])
    run = Run(folder, config, batches, validation, deployed, [])
    average = Average(config.ema_momentum, [as_numpy(weight).copy() for weight in model.weights])
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        average = run.restore(model)
        if run.finished:
            say(f"{folder}: this run has ended after {len(run.history)} epochs; there is nothing to resume")
            return run
    elif (folder / "state.npz").exists():
        raise BadDataError(f"{folder}: holds a run already: give --resume to go on with it, or another --out")
    batches.start(len(run.history))
    if part == 0:
        run.begin()
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
        callbacks=[Epochs(run, average, writes=part == 0), *_tensorboard(run, part)],
    )
    return run


def _tensorboard(run: Run, part: int) -> list[keras.callbacks.Callback]:
    if not run.config.tensorboard or part:
        return []
    if not (find_spec("tensorboard") and find_spec("tensorflow")):
        raise ConfigError("tensorboard: needs the packages tensorboard and tensorflow; history.csv needs neither")
    return [keras.callbacks.TensorBoard(run.folder / "tensorboard", write_graph=False)]


def _synchronize(model: keras.Model) -> None:
    """JAX keeps the state of a running `fit` outside the model's variables."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


class DivergedError(EmotiondError):
    """Training has run away; the checkpoint of the epoch before is kept."""

    exit_code = 65


class Epochs(keras.callbacks.Callback):
    """What happens around an epoch: averaging, validation, checkpoint, progress, early stopping."""

    def __init__(self, run: Run, average: Average, writes: bool) -> None:
        super().__init__()
        self._run, self._average, self._writes = run, average, writes
        # Counted on after a resume: the average takes every AVERAGE_EVERY-th step of the whole run.
        self._steps = len(run.history) * len(run.batches)
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
        if self._writes and batch % 10 == 0:
            self._show_progress(batch, (logs or {}).get("loss", float("nan")))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate the averaged weights, keep the best, and write a checkpoint."""
        _synchronize(self.model)
        run, logs = self._run, {} if logs is None else logs
        last = [as_numpy(weight) for weight in self.model.weights]
        run.deployed.set_weights(self._average.weights if run.config.ema_momentum else last)
        logs |= run.validate()  # the callbacks after this one, TensorBoard's say, see it too
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        seconds = time.monotonic() - self._epoch_started
        logs |= {"learning_rate": rate, "augment_s": run.batches.seconds, "seconds": seconds}
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
            raise DivergedError(
                f"epoch {epoch + 1}: the loss is no longer finite; train with a smaller learning_rate than "
                f"{run.config.learning_rate:g}"
            )
        run.history.append({"epoch": epoch + 1, **logs})
        if self._writes:
            run.save(self.model, self._average)
            self._tell()
        if run.config.patience and run.epochs_without_gain >= run.config.patience:
            say(f"no better validation loss for {run.config.patience} epochs: stopping early")
            self.model.stop_training = True

    def _minutes_left(self, epochs_done: float) -> float:
        pace = (time.monotonic() - self._run_started) / max(epochs_done - self._done_before, 1e-3)
        return (self._run.config.epochs - epochs_done) * pace / 60

    def _show_progress(self, batch: int, loss: float) -> None:
        share = (batch + 1) / len(self._run.batches)
        done = len(self._run.history)
        bar = "#" * round(20 * share)
        left = self._minutes_left(done + share)
        text = f"\repoch {done + 1}/{self._run.config.epochs} [{bar:20}] loss {loss:.3f}, {left:.0f} min left in all "
        say(text, end="", only_terminal=True)

    def _tell(self) -> None:
        entry, done = self._run.history[-1], len(self._run.history)
        majority = "" if math.isnan(entry["val_majority"]) else f" majority {entry['val_majority']:.1%}"
        say(
            f"\repoch {done}/{self._run.config.epochs}  loss {entry['loss']:.3f}  validation: loss "
            f"{entry['val_loss']:.3f} accuracy {entry['val_accuracy']:.1%}{majority}"
            f"{' *' if self._run.epochs_without_gain == 0 else ''}  {entry['seconds']:.0f} s "
            f"(augmentation {entry['augment_s']:.1f} s), {self._minutes_left(done):.0f} min left"
        )
