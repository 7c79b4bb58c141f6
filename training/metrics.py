"""How good predictions are. Plain numpy, so that networks of every format are judged by the same code."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.labels import EMOTIONS

BINS = 15  # of the confidence, after Guo et al. 2017 (arXiv:1706.04599)


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
        "n": len(labels),
    }


def _class_scores(confusion: npt.NDArray[np.int64], index: int) -> dict[str, float | int | None]:
    count = int(confusion[index].sum())
    if not count:
        return {"precision": None, "recall": None, "f1": None, "n": 0}
    right, called = int(confusion[index, index]), int(confusion[:, index].sum())
    precision, recall = right / called if called else 0.0, right / count
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "n": count}
