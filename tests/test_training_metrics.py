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


def test_wilsons_interval_is_the_textbooks() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert metrics.wilson(right, count) == pytest.approx([low, high], abs=1e-4)
    assert metrics.wilson(1, 29) == pytest.approx([0.0061, 0.1718], abs=1e-4)
    assert metrics.wilson(0, 0) is None


def test_intervals_hold_their_figure_and_narrow_with_rows() -> None:
    labels = np.array([0, 0, 0, 3, 3, 1] * 4)
    scores = _scores(*[(0, 0.9), (0, 0.9), (3, 0.9), (3, 0.9), (0, 0.9), (1, 0.5)] * 4)
    few = metrics.summarize(scores, labels)
    many = metrics.summarize(np.tile(scores, (50, 1)), np.tile(labels, 50))
    for name in ("accuracy", "macro_f1"):
        (low, high), (nearer_low, nearer_high) = few["intervals"][name], many["intervals"][name]
        assert low < nearer_low < few[name] < nearer_high < high
    low, high = few["intervals"]["per_class"]["angry"]["f1"]
    assert low < few["per_class"]["angry"]["f1"] < high
    assert few["intervals"]["per_class"]["neutral"] == {"precision": None, "recall": None, "f1": None}
    assert few["intervals"]["per_class"]["happy"]["recall"] == metrics.wilson(4, 8)
    assert few == metrics.summarize(scores, labels)
