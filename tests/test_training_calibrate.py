"""Calibration on scores that were made wrong in a known way."""

import numpy as np
import pytest

from training import calibrate, metrics


def _answers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 7) probabilities that are right, and labels drawn from them."""
    random = np.random.default_rng(3)
    logits = random.normal(0, 1.5, (count, 7))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (scores.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return scores, labels


def _calibrated(found: calibrate.Calibration, scores: np.ndarray) -> np.ndarray:
    """(n, 7) what a network that gave these probabilities gives once this is folded into it."""
    return metrics.softmax(found.scale * np.log(scores) + found.bias)


def test_temperature_and_bias_are_found_again() -> None:
    right, labels = _answers(20_000)
    bias = np.array([0.5, -0.5, 0.3, 0.0, -0.3, 0.4, -0.4])
    wrong = np.exp(np.log(right) * 2 - bias * 2)
    wrong /= wrong.sum(axis=1, keepdims=True)
    found = calibrate.fit(wrong.astype(np.float32), labels, np.eye(7)[labels])
    assert found.scale == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(found.bias, bias, atol=0.08)
    assert metrics.reliability(wrong, labels).error > 0.1
    assert metrics.reliability(_calibrated(found, wrong), labels).error < 0.015


def test_a_network_that_is_wrong_is_weakened_and_not_turned_round() -> None:
    right, labels = _answers(2_000)
    reversed_ = (1 / right) / (1 / right).sum(axis=1, keepdims=True)
    found = calibrate.fit(reversed_.astype(np.float32), labels, np.eye(7)[labels])
    assert found.scale == calibrate.SCALE_MIN


def test_calibrating_twice_changes_nothing() -> None:
    scores, labels = _answers(500)
    wrong = scores**3 / (scores**3).sum(axis=1, keepdims=True)
    once = _calibrated(calibrate.fit(wrong, labels, np.eye(7)[labels]), wrong)
    again = calibrate.fit(once, labels, np.eye(7)[labels])
    assert again.scale == pytest.approx(1, abs=0.02)
    assert np.abs(again.bias).max() < 0.05


def test_few_rows_move_a_bias_little() -> None:
    """Two rows of one emotion must not make the network name nothing else."""
    scores = np.full((2, 7), 1 / 7, np.float32)
    scores[:, 1] += 0.01
    found = calibrate.fit(scores, np.array([1, 1]), np.eye(7)[[1, 1]])
    assert np.abs(found.bias).max() < 1


def test_the_last_layer_takes_it_in() -> None:
    pytest.importorskip("keras", reason="the extra `train` is not installed")
    from training.model import build_model

    network = build_model(4, seed=2)
    pixels = np.random.default_rng(0).uniform(0, 255, (6, 48, 48, 1)).astype(np.float32)
    before = network.predict(pixels, verbose=0)
    found = calibrate.Calibration(1.7, np.array([0.3, -0.1, 0.2, -0.4, 0.1, 0.0, -0.1]))
    found.fold(network)
    np.testing.assert_allclose(network.predict(pixels, verbose=0), _calibrated(found, before), atol=1e-5)
