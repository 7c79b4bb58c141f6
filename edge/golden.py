"""The golden set: made pictures, and the scores that a sound copy of a network gives them on any device."""

from pathlib import Path

import numpy as np

from edge.classifier import TfliteClassifier
from edge.errors import ConfigError

NAME = "golden.npz"  # beside the network


def deviation(classifier: TfliteClassifier, golden: Path, name: str = "int8") -> tuple[float, float]:
    """The largest difference between a network's scores and the golden ones of `name` (int8 or float32), and the
    largest that is still sound. `convert.golden` writes the set and describes its arrays.
    """
    with np.load(golden) as arrays:
        found = np.stack([scores.values for scores in classifier.classify(list(arrays["inputs"]))])
        return float(np.abs(found - arrays[f"{name}_scores"]).max()), float(arrays["tolerance"])


def prove(classifier: TfliteClassifier) -> bool:
    """Whether there is a golden set beside the network. Raises ConfigError if the network does not hold to it."""
    path = classifier.path.with_name(NAME)
    if not path.is_file():
        return False
    try:
        with np.load(path) as arrays:
            names = [name for name in ("int8", "float32") if str(arrays[f"{name}_sha256"]) == classifier.sha256]
        found = [deviation(classifier, path, name) for name in names]
    except Exception as error:  # noqa: BLE001 - a damaged one ends in errors of zipfile, zlib, tokenize and others
        raise ConfigError(f"model.path: {path}: cannot be read: {error}; copy it and the network anew") from None
    if not found:
        raise ConfigError(f"model.path: {classifier.path}: not the network of the {NAME} beside it: copy both")
    off, tolerance = found[0]
    if not off <= tolerance:  # written so that NaN fails
        raise ConfigError(
            f"model.path: {classifier.path}: a score is off by {off:.2f}: damaged, or {classifier.runtime} is unsound"
        )
    return True
