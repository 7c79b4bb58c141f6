"""Training by torch's own loop, the quickest way on a CPU; and the only one that learns from teachers."""

import contextlib
import math
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt
import torch

from edge.errors import ConfigError
from training import config as settings
from training.augment import Batch
from training.batches import Batches
from training.config import TrainConfig
from training.console import quiet
from training.evaluate import load_keras
from training.model import NORM_MOMENTUM
from training.progress import Progress
from training.run import AVERAGE_EVERY, Average, Run
from training.shipped import load_shipped
from training.torch_network import TorchNetwork

AHEAD = 4
"""Batches that are made while one is learned from."""


class TorchLearner:
    """A network in training, with its optimizer and its teachers."""

    def __init__(self, config: TrainConfig, first: keras.Model, steps_per_epoch: int) -> None:
        """first: whose weights to begin with, and whose shape to have."""
        if config.precision == "mixed_float16":
            raise ConfigError("precision: mixed_float16 is not for torch; choose mixed_bfloat16 or float32")
        self._config, self._steps_per_epoch = config, steps_per_epoch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        compiler = os.environ.get("CXX", "g++")  # as torch looks for it
        if config.compiled and self._device.type == "cpu" and not shutil.which(compiler):
            raise ConfigError(f"compiled: needs a C++ compiler, and there is no {compiler}; install g++")
        self.network = TorchNetwork(config.width, config.dropout).take(first).to(self._device)
        self._logits = torch.compile(self.network) if config.compiled else self.network
        self._judged = TorchNetwork(config.width, 0.0).to(self._device)
        self._norms = [module for module in self.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        self._optimizer, self._kept = self._build_optimizer()
        self._teachers = [load_teacher(Path(name)).to(self._device) for name in settings.names(config.teachers)]
        self._steps = 0

    def _build_optimizer(self) -> tuple[torch.optim.Optimizer, tuple[str, ...]]:
        """The optimizer, and which values it keeps for each weight."""
        kernels = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim == 1]  # biases and normalizations do not decay
        groups = [{"params": kernels, "weight_decay": self._config.weight_decay}, {"params": others, "weight_decay": 0}]
        rate, momentum = self._config.learning_rate, self._config.momentum
        if self._config.optimizer == "adamw":
            return torch.optim.AdamW(groups, rate, foreach=True), ("exp_avg", "exp_avg_sq", "step")
        kept = ("momentum_buffer",) if momentum else ()
        return torch.optim.SGD(groups, rate, momentum, nesterov=momentum > 0, foreach=True), kept

    def learn(self, images: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]) -> tuple[float, float]:
        """One step on (n, 48, 48, 1) grey levels and (n, 7) targets; returns the loss and the share of right ones."""
        pixels = _channel_first(images).to(self._device)
        wanted = torch.from_numpy(targets).to(self._device)
        if self._teachers:
            share = self._config.teacher_share
            wanted = (1 - share) * wanted + share * self._taught(pixels) * wanted.sum(dim=1, keepdim=True)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._config, self._steps, self._steps_per_epoch)
        self.network.train()
        with self._where_it_is_steeper(pixels, wanted):
            loss, logits = self._slope(pixels, wanted)
        self._optimizer.step()
        self._steps += 1
        return loss.item(), (logits.argmax(dim=1) == wanted.argmax(dim=1)).float().mean().item()

    def _slope(self, pixels: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Leave the gradient with the parameters; returns the loss and the logits."""
        with self._precision():
            logits = self._logits(pixels)
        loss = torch.nn.functional.cross_entropy(logits, wanted)
        self._optimizer.zero_grad()
        loss.backward()
        return loss, logits

    @contextlib.contextmanager
    def _where_it_is_steeper(self, pixels: torch.Tensor, wanted: torch.Tensor) -> Iterator[None]:
        """Sharpness-aware minimization: within, the weights are a step uphill from where they are.

        Foret et al. 2021, arXiv:2010.01412, but the way up is that of half of the batch: it costs half as much.
        """
        if not self._config.sharpness:
            yield
            return
        half = len(pixels) // 2 or 1
        self._slope(pixels[:half], wanted[:half])
        weights = list(self.network.parameters())
        slopes = [weight.grad for weight in weights]
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(slopes))) + 1e-12
        with torch.no_grad():
            here = [weight.clone() for weight in weights]
            torch._foreach_add_(weights, torch._foreach_mul(slopes, self._config.sharpness / length.item()))
        for norm in self._norms:
            norm.momentum = 0.0  # what is seen up there is not what the network will be used with
        yield
        for norm in self._norms:
            norm.momentum = 1 - NORM_MOMENTUM
        with torch.no_grad():
            torch._foreach_copy_(weights, here)

    def _taught(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 7) the mean of the teachers' probabilities."""
        with torch.inference_mode(), self._precision():
            scores = torch.stack([torch.softmax(teacher(pixels), dim=1) for teacher in self._teachers]).mean(dim=0)
        return scores.clone()  # not of inference any more

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.precision != "float32")

    def weights(self) -> list[npt.NDArray[np.float32]]:
        """Parameters and moving statistics; on a CPU they share the network's memory."""
        return [_as_numpy(tensor) for tensor in self.network.tensors()]

    def judge(self, weights: list[npt.NDArray[np.float32]], deployed: keras.Model) -> TorchNetwork:
        """Put `weights` (as of `weights()`) into the Keras network, and return a quick twin of it."""
        with torch.no_grad():
            for tensor, value in zip(self._judged.tensors(), weights, strict=True):
                tensor.copy_(torch.from_numpy(value))
        self._judged.give(deployed)
        return self._judged.folded()

    def predict(self, network: TorchNetwork, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, 48, 48) faces to (n, 7) probabilities, as the deployed network has them."""
        found = []
        for start in range(0, len(images), 256):
            pixels = _channel_first(images[start : start + 256].astype(np.float32)).to(self._device)
            with torch.inference_mode(), self._precision():
                logits = network(pixels)
                if self._config.mirror:
                    logits = (logits + network(pixels.flip(3))) / 2
            found.append(torch.softmax(logits, dim=1).cpu().numpy())
        return np.concatenate(found)

    def state(self) -> list[npt.NDArray[np.float32]]:
        """Weights, and what the optimizer keeps."""
        kept = [self._optimizer.state[p][name] for p in self.network.parameters() for name in self._kept]
        return [*self.weights(), *(_as_numpy(value) for value in kept)]

    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and shape of each array of `state`."""
        found = [(name, tuple(tensor.shape)) for name, tensor in self.network.named_tensors()]
        for name, parameter in self.network.named_parameters():
            found += [(f"{name}.{key}", () if key == "step" else tuple(parameter.shape)) for key in self._kept]
        return found

    def restore(self, state: list[npt.NDArray[np.float32]], epochs: int) -> None:
        """Go back to a `state` that was saved after so many epochs."""
        values = iter(state)
        with torch.no_grad():
            for tensor in self.network.tensors():
                tensor.copy_(torch.from_numpy(next(values)))
            for parameter in self.network.parameters():
                for name in self._kept:
                    value = torch.tensor(next(values))
                    self._optimizer.state[parameter][name] = (
                        value if name == "step" else torch.empty_like(parameter).copy_(value)
                    )
        self._steps = epochs * self._steps_per_epoch


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """A linear warm-up to the peak, then a cosine to the floor. step: counted from 0 over the whole run."""
    whole = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup_epochs * steps_per_epoch), whole - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    descent = (1 + math.cos(math.pi * (step - warmup) / (whole - warmup))) / 2
    return config.learning_rate * (config.rate_floor + (1 - config.rate_floor) * descent)


def load_teacher(path: Path) -> TorchNetwork:
    """The network of a run's folder or of a float32 TFLite file, for inference.

    Raises InputNotFoundError, BadDataError or ConfigError.
    """
    if path.suffix == ".tflite":
        return load_shipped(path)
    model = load_keras(path / "model.keras")
    return TorchNetwork(settings.load(path / "config.json").width, 0.0).take(model).folded()


def train(run: Run, learner: TorchLearner, average: Average, progress: Progress) -> None:
    """Run the epochs that are left. Raises ConfigError, DivergedError or OutputError."""
    board = _open_tensorboard(run) if run.config.tensorboard else None
    while not run.finished:
        progress.begin_epoch()
        epoch = len(run.history)
        run.batches.start(epoch)
        torch.manual_seed(run.config.seed * 100_003 + epoch)  # dropout's: a resumed epoch drops the same
        sums = np.zeros(2)
        for index, (images, targets) in enumerate(made_ahead(run.batches)):
            result = learner.learn(images, targets)
            sums += result
            if (epoch * len(run.batches) + index + 1) % AVERAGE_EVERY == 0:
                average.update(learner.weights())
            progress.step(index, result[0])
        average.end_epoch(learner.weights())
        loss, accuracy = sums / len(run.batches)
        rate = learning_rate(run.config, (epoch + 1) * len(run.batches) - 1, len(run.batches))
        judged = learner.judge(average.weights if run.config.ema_momentum else learner.weights(), run.deployed)
        logs = {"loss": float(loss), "accuracy": float(accuracy), "learning_rate": rate}
        logs = progress.end_epoch(
            logs, lambda images, judged=judged: learner.predict(judged, images), learner.state(), average
        )
        if board:
            for name, value in logs.items():
                board.add_scalar(f"epoch_{name}", value, epoch)
            board.flush()


def _open_tensorboard(run: Run) -> Any:
    """A writer of TensorBoard's logs; what an epoch that is now repeated left there is not shown."""
    if not find_spec("tensorboard"):
        raise ConfigError("tensorboard: needs the package tensorboard; history.csv needs nothing")
    with quiet():  # it imports TensorFlow, if that is there
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(run.folder / "tensorboard", purge_step=len(run.history))


def made_ahead(batches: Batches) -> Iterator[Batch]:
    """The batches of an epoch, made by a thread of their own while others are learned from."""
    cv2.setNumThreads(1)  # the cores are torch's
    with ThreadPoolExecutor(1) as maker:
        waiting = deque(maker.submit(batches.__getitem__, index) for index in range(min(AHEAD, len(batches))))
        for index in range(len(batches)):
            batch = waiting.popleft().result()
            if index + AHEAD < len(batches):
                waiting.append(maker.submit(batches.__getitem__, index + AHEAD))
            yield batch


def _channel_first(images: npt.NDArray[np.float32]) -> torch.Tensor:
    """(n, 48, 48) or (n, 48, 48, 1) to (n, 1, 48, 48); with one channel it is the same memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).reshape(len(images), 1, *images.shape[1:3])


def _as_numpy(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy())
