"""Float against int8, on the code that ships: how far quantizing moved the scores, and what it cost."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.classifier import TfliteClassifier
from edge.errors import EmotiondError
from edge.labels import EMOTIONS


@dataclass(frozen=True)
class Limits:
    """What an int8 file may cost at most."""

    agreement: float
    """Share of faces for which both files name the same emotion."""
    accuracy_drop: float
    """Share of faces that it may name rightly less often."""


class ParityError(EmotiondError):
    """The int8 file strays too far from the float32 one."""

    exit_code = 65


def measure(float32: Path, int8: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Run both files on (n, 48, 48) faces with (n,) labels and compare; ready for JSON."""
    files = {"float32": TfliteClassifier(float32), "int8": TfliteClassifier(int8)}
    scores = {name: np.stack([s.values for s in file.classify(list(images))]) for name, file in files.items()}
    right = {name: values.argmax(axis=1) == labels for name, values in scores.items()}
    difference = np.abs(scores["float32"] - scores["int8"])
    accuracy = {name: float(hits.mean()) for name, hits in right.items()}
    return {
        "n": len(labels),
        "runtime": files["int8"].runtime,
        "top1_agreement": float((scores["float32"].argmax(axis=1) == scores["int8"].argmax(axis=1)).mean()),
        "max_abs_difference": float(difference.max()),
        "mean_abs_difference": float(difference.mean()),
        "accuracy": accuracy,
        "accuracy_change": accuracy["int8"] - accuracy["float32"],
        "per_class": {
            emotion: _class_change(right, labels == label)
            for label, emotion in enumerate(EMOTIONS)
            if (labels == label).any()
        },
        "files": {
            path.name: {"sha256": files[name].sha256, "bytes": path.stat().st_size}
            for name, path in (("float32", float32), ("int8", int8))
        },
    }


def _class_change(right: dict[str, npt.NDArray[np.bool_]], members: npt.NDArray[np.bool_]) -> dict[str, float | int]:
    recall = {name: float(hits[members].mean()) for name, hits in right.items()}
    return {**recall, "change": recall["int8"] - recall["float32"], "n": int(members.sum())}


def judge(parity: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """`parity` with the limits and whether it keeps them."""
    passed = parity["top1_agreement"] >= limits.agreement and parity["accuracy_change"] >= -limits.accuracy_drop
    return {**parity, "limits": asdict(limits), "passed": passed}


def require(parity: dict[str, Any]) -> None:
    """Raise ParityError unless `judge` passed it."""
    if not parity["passed"]:
        limits = parity["limits"]
        raise ParityError(
            f"int8 strays from float32: top-1 agreement {parity['top1_agreement']:.2%} (at least "
            f"{limits['agreement']:.2%}), accuracy change {parity['accuracy_change']:+.2%} (at least "
            f"-{limits['accuracy_drop']:.2%}); the files are written, do not ship them"
        )
