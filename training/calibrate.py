"""Make a network's confidence mean what it says, on the rows that it was not trained on.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599) with a bias for each emotion (Alexandari et al. 2020,
arXiv:1901.06852): training with softened targets and FER+'s votes, which say "neutral" more often than FER2013's
labels do, shifts how often each emotion is named. Both are folded into the last layer and cost nothing at run time.
"""

from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from edge.labels import EMOTIONS
from training.metrics import softmax

BIAS_ROWS = 4.0
"""How strongly a bias is held at 0: as by so many rows that speak against it. Disgust has about twenty rows."""
NEWTON_STEPS = 50
SCALE_MIN = 0.1
"""What a network says may be weakened, and never turned round: one that has learned nothing may have it backwards."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """New logits are `scale * logits + bias`."""

    scale: float
    """The temperature's inverse."""
    bias: npt.NDArray[np.float64]
    """(7,) in `EMOTIONS` order; sums to 0."""

    def fold(self, model: keras.Model) -> None:
        """Change a network's last layer so that it gives the calibrated scores."""
        kernel, bias = model.get_layer("logits").get_weights()
        model.get_layer("logits").set_weights([kernel * self.scale, bias * self.scale + self.bias])


def fit(
    scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], targets: npt.NDArray[np.float32]
) -> Calibration:
    """The calibration of least log loss, for rows that were not trained on.

    scores: (n, 7) probabilities. labels: (n,), what the confidence is about. targets: (n, 7), how often each emotion
    is to be named; these set the biases.
    """
    logits = _logits(scores)
    _, bias = _least_loss(logits, targets, np.zeros(len(EMOTIONS)), BIAS_ROWS)
    scale, _ = _least_loss(logits, np.eye(len(EMOTIONS))[labels], bias, bias_rows=1e12)
    return Calibration(max(scale, SCALE_MIN), bias)


def _least_loss(
    logits: npt.NDArray[np.float64], targets: npt.NDArray[np.float32], around: npt.NDArray[np.float64], bias_rows: float
) -> tuple[float, npt.NDArray[np.float64]]:
    """Scale and biases, the latter held near `around`, by Newton's method on a convex loss."""
    values = np.array([1.0, *around])
    held = np.diag([0.0, *[bias_rows] * len(EMOTIONS)])
    # How the 7 logits of each row change with the 8 values.
    slopes = np.concatenate([logits[:, :, None], np.tile(np.eye(len(EMOTIONS)), (len(logits), 1, 1))], axis=2)

    def loss(values: npt.NDArray[np.float64]) -> float:
        found = np.maximum(softmax(values[0] * logits + values[1:]), 1e-30)
        return float(bias_rows / 2 * ((values[1:] - around) ** 2).sum() - (targets * np.log(found)).sum())

    for _ in range(NEWTON_STEPS):
        found = softmax(values[0] * logits + values[1:])
        gradient = np.einsum("nk,nkv->v", found - targets, slopes) + held @ (values - [0, *around])
        centred = slopes - np.einsum("nk,nkv->nv", found, slopes)[:, None, :]
        curvature = np.einsum("nk,nkv,nkw->vw", found, centred, slopes) + held
        step = np.linalg.solve(curvature, gradient)
        # Far from the end a whole step may go too far.
        while np.abs(step).max() > 1e-9 and loss(values - step) > loss(values):
            step /= 2
        values -= step
        if np.abs(step).max() < 1e-9:
            break
    return float(values[0]), values[1:] - values[1:].mean()


def _logits(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(n, 7) of such probabilities, but for a constant of each row."""
    return np.log(np.maximum(scores.astype(np.float64), 1e-12))
