"""Augmented batches. Seed, epoch and batch number alone decide what is in one, so a resumed run sees the same."""

import time

import keras
import numpy as np
import numpy.typing as npt

from training import augment
from training.config import TrainConfig
from training.dataset import Dataset, soft_targets


class Batches(keras.utils.PyDataset):
    """Augmented batches of one epoch after another.

    part, parts: with several hosts each makes the same batch and feeds its own part of it.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, part: int = 0, parts: int = 1) -> None:
        super().__init__()
        self._images, self._config = dataset.images, config
        self.labels = dataset.labels
        """(n,) of the rows that are learned from."""
        self._targets = soft_targets(dataset, config.label_share, config.label_smoothing, config.doubt, config.votes_as)
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
