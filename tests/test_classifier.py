"""The shipped network through the door that the daemon uses, and files that are not one."""

from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from edge.classifier import TfliteClassifier, installed_runtimes, shipped_model
from edge.errors import ConfigError
from edge.labels import EMOTIONS

FLOAT32 = shipped_model().with_name("float32.tflite")


@pytest.mark.parametrize("path", [None, FLOAT32])
def test_scores_are_probabilities_in_the_order_of_the_crops(path: Path | None) -> None:
    classifier = TfliteClassifier(path)
    random = np.random.default_rng(1)
    crops = list(random.integers(0, 256, (5, 48, 48), np.uint8))
    together = classifier.classify(crops)
    for crop, scores in zip(crops, together, strict=True):
        assert scores.values.shape == (len(EMOTIONS),)
        assert scores.values.dtype == np.float32
        assert abs(scores.values.sum() - 1) < 0.02
        np.testing.assert_array_equal(classifier.classify([crop])[0].values, scores.values)
    assert classifier.classify([]) == []


def test_int8_and_float32_are_one_network() -> None:
    crops = list(np.random.default_rng(2).integers(0, 256, (20, 6, 6), np.uint8).repeat(8, 1).repeat(8, 2))
    pairs = zip(TfliteClassifier().classify(crops), TfliteClassifier(FLOAT32).classify(crops), strict=True)
    assert max(float(np.abs(a.values - b.values).max()) for a, b in pairs) < 0.15


def test_the_model_is_named_by_its_hash() -> None:
    classifier = TfliteClassifier()
    assert len(classifier.sha256) == 64
    assert classifier.sha256.startswith(classifier.model_id)
    assert len(classifier.model_id) == 12


def test_auto_takes_litert_first() -> None:
    assert TfliteClassifier().runtime == next(installed_runtimes()) == "litert"


def test_a_runtime_that_is_not_installed_is_named() -> None:
    if "tflite-runtime" in installed_runtimes():
        pytest.skip("tflite-runtime is installed here")
    with pytest.raises(ConfigError, match="model.runtime: tflite-runtime: not installed"):
        TfliteClassifier(runtime="tflite-runtime")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file"),
        (b"", "cannot load it"),
        (b"not a model, but long enough to be one, perhaps", "cannot load it"),
        (shipped_model().read_bytes()[:100_000], "cannot load it"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "m.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"model.path: .*m.tflite: .*{expected}"):
        TfliteClassifier(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("five_classes", r"output must be one tensor \(1, 7\) of float32 or int8, not \(1, 5\) float32"),
        ("colour", r"input must be one tensor \(1, 48, 48, 1\) of float32 or int8, not \(1, 48, 48, 3\) float32"),
        ("integers", r"input must be one tensor .* not \(1, 48, 48, 1\) int32"),
        ("other_scale", r"int8 input must have scale 1 and zero point -128 \(pixel - 128\), not \(0.0039"),
    ],
)
def test_a_network_of_another_kind_is_named(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        TfliteClassifier(ROOT / f"tests/models/{name}.tflite")
