"""Train the network: SGD with warm-up and cosine, averaged weights, and a run folder that survives a kill."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, ConfigError
from edge.labels import EMOTIONS
from training import data, hosts
from training.batches import Batches
from training.config import TrainConfig, names
from training.console import say
from training.dataset import Dataset
from training.evaluate import load_keras
from training.model import build_model
from training.progress import Progress
from training.run import AVERAGE_EVERY, Average, Run, as_numpy, load_rows

START_FACES = 1024
"""Faces on which the normalizations of a TFLite file's network are measured anew."""


def build_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum, or AdamW; a linear warm-up, then a cosine."""
    warmup = min(round(config.warmup_epochs * steps_per_epoch), config.epochs * steps_per_epoch - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=config.epochs * steps_per_epoch - warmup,
        alpha=config.rate_floor,
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


def train(
    dataset: Dataset, config: TrainConfig, folder: Path, resume: bool = False, part: int = 0, parts: int = 1
) -> Run:
    """Train on the Training rows of `dataset` but the validation share, into `folder`.

    part, parts: this process's place among several hosts; the first one writes the files.
    Raises BadDataError, ConfigError, InputNotFoundError or OutputError.
    """
    on_torch = keras.backend.backend() == "torch"
    for name in ("teachers", "sharpness", "compiled"):
        if getattr(config, name) and not on_torch:
            raise ConfigError(f"{name}: only the torch backend has it; set KERAS_BACKEND=torch")
    learned, validation = data.training_and_validation(dataset, config.validation_share, config.validation_seed)
    if not (len(learned) and len(validation)):
        raise BadDataError("too few Training rows for a validation split")
    if missing := [emotion for emotion, count in zip(EMOTIONS, learned.class_counts(), strict=True) if not count]:
        raise BadDataError(f"no Training rows to learn {', '.join(missing)} from; give data with rows of all emotions")
    starts = [] if resume else names(config.start)  # a resumed run has left them behind
    for name in [*starts, *names(config.teachers)]:
        _require_withheld(Path(name), config, validation)
    # Before sharing: each process judges it by itself.
    deployed = build_model(config.width, config.dropout, seed=config.seed, mirror=config.mirror)
    _start_from(starts, deployed, learned.images, on_torch)
    run = Run(folder, config, Batches(learned, config, part, parts), validation, deployed, [])
    folder.mkdir(parents=True, exist_ok=True)
    if not resume and (folder / "state.npz").exists():
        raise BadDataError(f"{folder}: holds a run already: give --resume to go on with it, or another --out")
    if on_torch:
        _train_on_torch(run, resume)
    else:
        _train_on_keras(run, resume, part, parts)
    if part == 0 and run.finished:
        with hosts.alone():
            run.calibrate()
    return run


def _begin(run: Run, resume: bool, part: int) -> bool:
    """Write and say what a run begins with; whether there is anything to do."""
    if resume and run.finished:
        say(f"{run.folder}: this run has ended after {len(run.history)} epochs; there is nothing to resume")
        return False
    run.batches.start(len(run.history))
    if part == 0:
        run.begin()
        say(
            f"{len(run.batches.labels):,} rows to learn from, {len(run.validation):,} to validate on, "
            f"{len(EMOTIONS)} emotions; {run.deployed.count_params():,} parameters on {keras.backend.backend()}"
        )
    return True


def _require_withheld(path: Path, config: TrainConfig, validation: Dataset) -> None:
    """Raise BadDataError if the run in a folder, or the network in a file, may have learned from withheld rows.

    A TFLite file does not say; the shipped one was withheld the rows of the settings' defaults.
    """
    if path.suffix == ".tflite":
        usual = TrainConfig()
        if (config.validation_seed, config.validation_share) != (usual.validation_seed, usual.validation_share):
            raise BadDataError(
                f"{path}: this run withholds other rows than the shipped network was withheld, those of "
                f"validation_seed={usual.validation_seed} and validation_share={usual.validation_share:g}; leave both "
                "as they are, or give a run's folder"
            )
        return
    if len(np.setdiff1d(validation.rows, load_rows(path / "validation_rows.npy"))):
        raise BadDataError(
            f"{path}: that run did not withhold the rows that this one is judged on; give both the same "
            "validation_seed and validation_share"
        )


def _start_from(starts: list[str], model: keras.Model, faces: npt.NDArray[np.uint8], on_torch: bool) -> None:
    """Give a network the mean weights of runs and float32 TFLite files; of none, it keeps its own.

    Wortsman et al. 2022, arXiv:2203.05482. Raises BadDataError for a network of another shape.
    """
    found = []
    for start in starts:
        _take(Path(start), model, faces, on_torch)
        found.append(model.get_weights())
    if found:
        model.set_weights([np.mean(weights, axis=0) for weights in zip(*found, strict=True)])


def _take(start: Path, model: keras.Model, faces: npt.NDArray[np.uint8], on_torch: bool) -> None:
    """Give a network the weights of a run or of a float32 TFLite file. Raises BadDataError for one of another shape."""
    try:
        if start.suffix != ".tflite":
            model.set_weights(load_keras(start / "model.keras").get_weights())
            return
        if not on_torch:
            raise ConfigError("start: only the torch backend can start from a TFLite file; set KERAS_BACKEND=torch")
        from training import shipped

        shipped.unfolded(shipped.load_shipped(start), faces[:START_FACES]).give(model)
    except ValueError as error:
        raise BadDataError(f"{start}: start: a network of another shape: {str(error).splitlines()[0]}") from error


def _train_on_torch(run: Run, resume: bool) -> None:
    from training import torch_loop  # imports torch, which other backends may lack

    learner = torch_loop.TorchLearner(run.config, run.deployed, len(run.batches))
    average = Average(run.config.ema_momentum, [weight.copy() for weight in learner.weights()])
    if resume:
        state, average = run.restore(learner.shapes(), len(average.weights))
        learner.restore(state, len(run.history))
    if _begin(run, resume, part=0):
        torch_loop.train(run, learner, average, Progress(run))


def _train_on_keras(run: Run, resume: bool, part: int, parts: int) -> None:
    config = run.config
    if parts > 1:
        hosts.share_batches()
    precision = "float32" if config.precision == "auto" else config.precision
    model = build_model(config.width, config.dropout, precision, seed=config.seed)
    model.set_weights(run.deployed.get_weights())
    optimizer = build_optimizer(config, len(run.batches))
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(), metrics=["accuracy"])
    average = Average(config.ema_momentum, [as_numpy(weight).copy() for weight in model.weights])
    if resume:
        optimizer.build(model.trainable_variables)
        variables = _state(model)
        shapes = [(variable.path, tuple(variable.shape)) for variable in variables]
        state, average = run.restore(shapes, len(model.weights))
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)
    if not _begin(run, resume, part):
        return
    model.fit(
        run.batches,
        epochs=config.epochs,
        initial_epoch=len(run.history),
        shuffle=False,  # Batches has its own order
        verbose=0,
        callbacks=[Epochs(run, average, Progress(run, writes=part == 0)), *_tensorboard(run, part)],
    )


def _state(model: keras.Model) -> list[keras.Variable]:
    """All that training changes: weights, optimizer, and the dropout's random state."""
    # A dropout of 0 has no random state.
    random = getattr(model.get_layer("dropout"), "seed_generator", None)
    return [*model.weights, *([random.state] if random else []), *model.optimizer.variables]


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


class Epochs(keras.callbacks.Callback):
    """What happens around an epoch of Keras's own `fit`: averaging, then what `Progress` does."""

    def __init__(self, run: Run, average: Average, progress: Progress) -> None:
        super().__init__()
        self._run, self._average, self._progress = run, average, progress
        # Counted on after a resume: the average takes every AVERAGE_EVERY-th step of the whole run.
        self._steps = len(run.history) * len(run.batches)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the epoch's clock."""
        self._progress.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Feed the average and the progress line."""
        self._steps += 1
        if self._steps % AVERAGE_EVERY == 0:
            _synchronize(self.model)
            self._average.update(as_numpy(weight) for weight in self.model.weights)
        self._progress.step(batch, (logs or {}).get("loss", float("nan")))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Judge the averaged weights, and write a checkpoint."""
        _synchronize(self.model)
        run, logs = self._run, {} if logs is None else logs
        last = [as_numpy(weight) for weight in self.model.weights]
        self._average.end_epoch(last)
        run.deployed.set_weights(self._average.weights if run.config.ema_momentum else last)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        state = [as_numpy(variable) for variable in _state(self.model)]
        # The callbacks after this one, TensorBoard's say, see it too.
        logs |= self._progress.end_epoch(logs, run.predict, state, self._average)
        self.model.stop_training = run.finished
