"""How good predictions are. Plain numpy, so that networks of every format are judged by the same code."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.labels import EMOTIONS

BINS = 15  # of the confidence, after Guo et al. 2017 (arXiv:1706.04599)
LEVEL, Z = 0.95, 1.959964
"""Of the intervals, and how many standard deviations of a normal distribution that is."""
RESAMPLES = 2000


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, k) logits to (n, k) probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions in equal bins of their confidence."""

    count: npt.NDArray[np.int64]
    """(15,) predictions."""
    confidence: npt.NDArray[np.float64]
    """(15,) their mean confidence; 0 where there are none."""
    accuracy: npt.NDArray[np.float64]
    """(15,) their share of right ones; 0 where there are none."""

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy."""
        return float(np.abs(self.confidence - self.accuracy) @ self.count / self.count.sum())


def reliability(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Reliability:
    """scores: (n, 7) probabilities, labels: (n,)."""
    confidence = scores.max(axis=1).astype(np.float64)
    right = (scores.argmax(axis=1) == labels).astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    shares = [np.bincount(place, values, minlength=BINS) / np.maximum(count, 1) for values in (confidence, right)]
    return Reliability(count, *shares)


def confusion_matrix(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(7, 7) counts: rows are the true emotion, columns the predicted one."""
    classes = len(EMOTIONS)
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def summarize(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Everything that `evaluate` prints, ready for JSON.

    scores: (n, 7), labels: (n,). Precision, recall and F1 of an emotion without rows are None, and the macro F1
    is the mean over the emotions that have rows.
    """
    confusion = confusion_matrix(scores.argmax(axis=1), labels)
    per_class = {emotion: _class_scores(confusion, index) for index, emotion in enumerate(EMOTIONS)}
    calibration = reliability(scores, labels)
    return {
        "accuracy": float(np.trace(confusion) / len(labels)),
        "macro_f1": float(np.mean([entry["f1"] for entry in per_class.values() if entry["n"]])),
        "ece": calibration.error,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "labels": list(EMOTIONS),
        "confidence_histogram": {
            "count": calibration.count.tolist(),
            "confidence": calibration.confidence.round(4).tolist(),
            "accuracy": calibration.accuracy.round(4).tolist(),
        },
        "intervals": _intervals(confusion),
        "n": len(labels),
    }


def wilson(right: int, count: int) -> list[float] | None:
    """The interval in which a share lies with 95 % (Wilson 1927), from so many of `count`; None of none."""
    if not count:
        return None
    share, spread = right / count, Z**2 / count
    centre, half = share + spread / 2, Z * math.sqrt(share * (1 - share) / count + spread / count / 4)
    return [max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))]


def _intervals(confusion: npt.NDArray[np.int64]) -> dict[str, Any]:
    """95 % intervals: Wilson's of the shares; of the F1s, which are none, from pictures drawn again (bootstrap)."""
    count = int(confusion.sum())
    drawn = np.random.default_rng(0).multinomial(count, confusion.ravel() / count, RESAMPLES)
    drawn = drawn.reshape(-1, *confusion.shape)
    right = np.diagonal(drawn, axis1=1, axis2=2)
    f1 = 2 * right / np.maximum(drawn.sum(axis=1) + drawn.sum(axis=2), 1)
    rows, called = confusion.sum(axis=1), confusion.sum(axis=0)

    def middle(values: npt.NDArray[np.float64]) -> list[float]:
        return [float(value) for value in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]

    return {
        "level": LEVEL,
        "accuracy": wilson(int(np.trace(confusion)), count),
        "macro_f1": middle(f1[:, rows > 0].mean(axis=1)),
        "per_class": {
            emotion: {
                "precision": wilson(int(confusion[index, index]), int(called[index])),
                "recall": wilson(int(confusion[index, index]), int(rows[index])),
                "f1": middle(f1[:, index]) if rows[index] else None,
            }
            for index, emotion in enumerate(EMOTIONS)
        },
    }


def _class_scores(confusion: npt.NDArray[np.int64], index: int) -> dict[str, float | int | None]:
    count = int(confusion[index].sum())
    if not count:
        return {"precision": None, "recall": None, "f1": None, "n": 0}
    right, called = int(confusion[index, index]), int(confusion[:, index].sum())
    precision, recall = right / called if called else 0.0, right / count
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "n": count}
