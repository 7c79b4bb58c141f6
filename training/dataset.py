"""Labelled faces as arrays, FER+ votes beside them, and what a network should say about them."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, UsageError
from edge.labels import EMOTIONS
from training.config import VotesAs
from training.metrics import softmax

USAGES: Final = ("Training", "PublicTest", "PrivateTest", "test")
"""The CSV's three, and `test`: both tests of a CSV, or the `test/` of the folders."""
# FER+'s columns (Barsoum et al. 2016, arXiv:1608.01041); the last three name no emotion of FER2013.
VOTE_COLUMNS: Final = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"),
    *("contempt", "unknown", "NF"),
)
_VOTES_IN_EMOTION_ORDER = (4, 5, 6, 1, 3, 2, 0)


def require_usage(given: str | None) -> None:
    """Raise UsageError for a `--usage` that is none of `USAGES`; None is the data's own `default_test`."""
    if given not in (None, *USAGES):
        why = "an evaluation must not mix in Training rows" if "Training" in given else "unknown"
        raise UsageError(f"--usage {given}: {why}; give one of {', '.join(USAGES)}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures and their labels, row for row."""

    images: npt.NDArray[np.uint8]
    """(n, 48, 48) grey."""
    labels: npt.NDArray[np.int64]
    """(n,) index into `EMOTIONS`."""
    usages: npt.NDArray[np.int64]
    """(n,) index into `USAGES`."""
    rows: npt.NDArray[np.int64]
    """(n,) data row of the CSV, from 0, or the number of the file in sorted order."""
    skipped: npt.NDArray[np.int64]
    """Rows left out: those without a picture, and Training rows of one grey level (the full FER2013 has some).
    Such rows stay in the tests, so that a figure is about the same rows as everyone's."""
    total: int
    """Rows of the source."""
    votes: npt.NDArray[np.float32] | None = None
    """(n, 10) FER+ votes in `VOTE_COLUMNS` order."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Dataset":
        """The rows that an index or a mask selects, in its order."""
        return replace(
            self,
            images=self.images[which],
            labels=self.labels[which],
            usages=self.usages[which],
            rows=self.rows[which],
            votes=None if self.votes is None else self.votes[which],
        )

    def split(self, usage: str) -> "Dataset":
        """The rows of one usage; `test` is everything but Training. Raises BadDataError if there are none."""
        training = self.usages == USAGES.index("Training")
        chosen = self.take(~training if usage == "test" else self.usages == USAGES.index(usage))
        if not len(chosen):
            there = [name for index, name in enumerate(USAGES) if (self.usages == index).any()]
            raise BadDataError(f"usage {usage}: the data holds no such row, only {', '.join(there)}")
        return chosen

    @property
    def default_test(self) -> str:
        """The usage that networks are judged on unless another one is named."""
        return "PublicTest" if (self.usages == USAGES.index("PublicTest")).any() else "test"

    def class_counts(self) -> npt.NDArray[np.int64]:
        """(7,) rows per emotion."""
        return np.bincount(self.labels, minlength=len(EMOTIONS))


def emotion_votes(votes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, 10) FER+ votes to (n, 7) votes in `EMOTIONS` order; contempt, unknown and no-face are left out."""
    return votes[:, _VOTES_IN_EMOTION_ORDER]


def clear_majority(votes: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(n,) the emotion that more than half of all taggers saw, or -1 where there is none."""
    counts = emotion_votes(votes)
    clear = counts.max(axis=1) > votes.sum(axis=1) / 2
    return np.where(clear, counts.argmax(axis=1), -1)


def majority_hits(answers: npt.NDArray[np.int64], votes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether the (n,) answers are what FER+'s clear majority saw, of those rows alone that have one."""
    seen = clear_majority(votes)
    return (answers == seen)[seen >= 0]


def soft_targets(
    dataset: Dataset, label_share: float, smoothing: float, doubt: float = 0.0, votes_as: VotesAs = "seen"
) -> npt.NDArray[np.float32]:
    """(n, 7) what the network should say: the smoothed label, blended with the votes where there are any.

    doubt: share of its weight that a label loses to the votes when not one tagger saw that emotion.
    votes_as: "labelled" blends with `labels_given_votes` in place of the votes.
    """
    classes = len(EMOTIONS)
    hard = np.eye(classes, dtype=np.float32)[dataset.labels] * (1 - smoothing) + smoothing / classes
    if dataset.votes is None:
        return hard.astype(np.float32)
    counts = emotion_votes(dataset.votes)
    total = counts.sum(axis=1, keepdims=True)
    voted = (
        labels_given_votes(dataset.votes, dataset.labels) if votes_as == "labelled" else counts / np.maximum(total, 1)
    )
    soft = np.where(total > 0, voted, hard)
    unseen = (total > 0) & (np.take_along_axis(counts, dataset.labels[:, None], axis=1) == 0)
    share = label_share * (1 - doubt * unseen)
    return np.asarray(share * hard + (1 - share) * soft, np.float32)


RIDGE = 3.0
NEWTON_STEPS, NEWTON_STRIDE = 30, 0.5


def labels_given_votes(votes: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(n, 7) how often a face with such votes has each label, in these rows.

    Multinomial logistic regression on the roots of the ten vote shares, with a ridge, by Newton's method. On rows that
    it was not fitted to it has a log loss of 0.90, against 0.89 of a network of one hidden layer.
    """
    shares = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    seen = np.column_stack([np.sqrt(shares), np.ones(len(shares))]).astype(np.float64)
    wanted = np.eye(len(EMOTIONS))[labels]
    weights = np.zeros((seen.shape[1], len(EMOTIONS)))
    for _ in range(NEWTON_STEPS):
        said = softmax(seen @ weights)
        gradient = seen.T @ (said - wanted) + RIDGE * weights
        # How the gradient of weight (f, k) changes with weight (g, l), in blocks of k and l.
        spread = said[:, :, None] * (np.eye(len(EMOTIONS)) - said[:, None, :])
        blocks = [[(seen * column[:, None]).T @ seen for column in row] for row in spread.transpose(1, 2, 0)]
        step = np.linalg.solve(np.block(blocks) + RIDGE * np.eye(weights.size), gradient.T.ravel())
        weights -= NEWTON_STRIDE * step.reshape(weights.T.shape).T
    return softmax(seen @ weights).astype(np.float32)
