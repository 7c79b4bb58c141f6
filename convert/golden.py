"""Synthetic pictures and the scores that a sound copy of the network gives for them, shipped beside the model.

No picture of a person: gradients, waves, noise and drawn faces. A device runs them to prove its file and its runtime.
"""

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge.classifier import TfliteClassifier
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE

# Kernels of other processors round int8 sums differently by a step or two of 1/256 in each layer, which adds up;
# a damaged file or a wrong preprocessing is off by far more.
TOLERANCE = 0.06


def pictures() -> npt.NDArray[np.uint8]:
    """(16, 48, 48) uint8, the same on every machine."""
    drawn = [_face(mouth, brow) for mouth in (-6, 0, 7) for brow in (-3, 3)]
    return np.stack([*_patterns(), *drawn])


def _patterns() -> list[npt.NDArray[np.uint8]]:
    ramp = np.tile(np.linspace(0, 255, FACE_SIZE), (FACE_SIZE, 1))
    place = np.arange(FACE_SIZE)
    wave = 127.5 + 100 * np.sin(place[:, None] / 5) * np.cos(place[None, :] / 7)
    noise = np.random.Generator(np.random.PCG64(7)).integers(0, 256, (4, FACE_SIZE, FACE_SIZE)).astype(np.float64)
    flat = [np.full((FACE_SIZE, FACE_SIZE), level) for level in (0.0, 255.0)]
    blurred = [cv2.GaussianBlur(picture, (0, 0), sigma) for picture, sigma in zip(noise[1:], (1, 2, 4), strict=True)]
    stretched = [(picture - picture.min()) / np.ptp(picture) * 255 for picture in blurred]
    return [np.rint(picture).astype(np.uint8) for picture in (ramp, ramp.T, wave, *flat, noise[0], *stretched)] + [
        _face(12, 0)
    ]


def _face(mouth: int, brow: int) -> npt.NDArray[np.uint8]:
    """A drawn face. mouth: its corners' height over its middle, brow: the inner ends' height; in pixels."""
    canvas = np.full((FACE_SIZE, FACE_SIZE), 90, np.uint8)
    cv2.ellipse(canvas, (24, 24), (19, 23), 0, 0, 360, 190, -1)
    for eye, side in ((16, 1), (32, -1)):
        cv2.ellipse(canvas, (eye, 19), (4, 2), 0, 0, 360, 240, -1)
        cv2.circle(canvas, (eye, 19), 1, 20, -1)
        cv2.line(canvas, (eye - 5, 13 + (brow if side < 0 else 0)), (eye + 5, 13 + (brow if side > 0 else 0)), 60, 2)
    cv2.line(canvas, (24, 21), (24, 28), 150, 1)
    curve = [(x, round(37 + mouth * (0.5 - math.cos((x - 24) / 9 * math.pi / 2)) * -1)) for x in range(15, 34)]
    cv2.polylines(canvas, [np.array(curve, np.int32)], False, 50, 2)
    return canvas


def write(folder: Path) -> None:
    """Make `golden.npz` for the `int8.tflite` and `float32.tflite` in `folder`.

    `edge.golden` compares a device's copy with it. Its arrays: `inputs` (n, 48, 48) uint8, and for each file
    `<name>_scores` (n, 7) float32 and `<name>_sha256`; `tolerance`, the largest difference of a score that is still
    sound; `labels`.
    """
    inputs = pictures()
    arrays: dict[str, npt.ArrayLike] = {"inputs": inputs, "tolerance": TOLERANCE, "labels": np.array(EMOTIONS)}
    for name in ("int8", "float32"):
        classifier = TfliteClassifier(folder / f"{name}.tflite")
        arrays[f"{name}_scores"] = np.stack([scores.values for scores in classifier.classify(list(inputs))])
        arrays[f"{name}_sha256"] = np.array(classifier.sha256)
    np.savez_compressed(folder / "golden.npz", **arrays)
