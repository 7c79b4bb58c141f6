"""The golden set: made pictures, and the scores that a sound copy of the shipped network gives them on any device."""

from pathlib import Path

import numpy as np

from edge.classifier import TfliteClassifier


def deviation(classifier: TfliteClassifier, golden: Path, name: str = "int8") -> tuple[float, float]:
    """The largest difference between a network's scores and the golden ones of `name` (int8 or float32), and the
    largest that is still sound. `convert.golden` writes the set and describes its arrays.
    """
    with np.load(golden) as arrays:
        found = np.stack([scores.values for scores in classifier.classify(list(arrays["inputs"]))])
        return float(np.abs(found - arrays[f"{name}_scores"]).max()), float(arrays["tolerance"])
