"""Metrics against values worked out by hand."""

import numpy as np
import pytest

from training import metrics


def _scores(*picks: tuple[int, float]) -> np.ndarray:
    """One row per (predicted emotion, confidence); the rest is spread evenly."""
    rows = np.stack([np.full(7, (1 - confidence) / 6) for _, confidence in picks])
    for row, (emotion, confidence) in zip(rows, picks, strict=True):
        row[emotion] = confidence
    return rows.astype(np.float32)


def test_accuracy_f1_and_confusion() -> None:
    labels = np.array([0, 0, 0, 3, 3])
    result = metrics.summarize(_scores((0, 0.9), (0, 0.9), (3, 0.9), (3, 0.9), (0, 0.9)), labels)
    assert result["accuracy"] == pytest.approx(0.6)
    assert result["n"] == 5
    angry, happy = result["per_class"]["angry"], result["per_class"]["happy"]
    assert (angry["precision"], angry["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (happy["precision"], happy["recall"], happy["f1"]) == (0.5, 0.5, 0.5)
    assert result["macro_f1"] == pytest.approx((2 / 3 + 0.5) / 2)  # emotions without rows do not count
    assert result["confusion"][0][3] == 1  # one angry face called happy
    assert result["confusion"][3][0] == 1
    assert result["per_class"]["disgust"] == {"precision": None, "recall": None, "f1": None, "n": 0}


def test_a_class_that_is_never_right_has_zero_f1() -> None:
    result = metrics.summarize(_scores((3, 0.5), (3, 0.5)), np.array([1, 3]))
    assert result["per_class"]["disgust"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 1}


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    # Ten predictions at 0.8, of which six are right; ten at 0.5, of which five are.
    labels = np.array([0] * 6 + [1] * 4 + [0] * 5 + [1] * 5)
    scores = _scores(*[(0, 0.8)] * 10, *[(0, 0.5)] * 10)
    assert metrics.summarize(scores, labels)["ece"] == pytest.approx(0.5 * 0.2, abs=1e-6)


def test_a_sure_prediction_falls_into_the_last_bin() -> None:
    counts = metrics.reliability(_scores((0, 1.0)), np.array([0])).count
    assert counts[-1] == 1
    assert counts.sum() == 1
