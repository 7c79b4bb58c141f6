"""Conversion of a tiny network on made data, by the command itself; TensorFlow runs in child processes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from training_made import FER2013, rows, write_csv

from convert import calibration, golden, parity
from edge.classifier import TfliteClassifier
from edge.errors import BadDataError
from edge.golden import deviation
from edge.labels import EMOTIONS
from training import checks, data

pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

# Learns nothing: what matters is that its int8 form computes what its float form does.
MAKE_MODELS = """
import sys, keras, numpy as np
from training.model import build_model
folder = sys.argv[1]
# As a run on torch or a graphics card leaves it: mixed precision, and statistics that are not the first ones.
model = build_model(4, policy="mixed_bfloat16", seed=5, mirror=True)
random = np.random.default_rng(5)
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.moving_mean.assign(random.normal(0, 0.2, layer.moving_mean.shape))
model.get_layer("logits").kernel.assign(model.get_layer("logits").kernel * 8)  # so that its answers differ
model.save(folder + "/m.keras")
keras.Sequential([keras.Input((48, 48, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7)]).save(
    folder + "/colour.keras"
)
keras.Sequential([keras.Input((48, 48, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7)]).save(
    folder + "/logits.keras"
)
pixels = np.linspace(0, 255, 3 * 48 * 48).astype(np.uint8).reshape(3, 48, 48)
np.savez(folder + "/expected.npz", pixels=pixels, scores=model.predict(pixels[..., None].astype("float32"), verbose=0))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert")
    write_csv(folder / "f.csv", rows(490, 70))
    _python(folder, "-c", MAKE_MODELS, str(folder))
    return folder


@pytest.fixture(scope="module")
def converted(work: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    done = _convert(work, "m.keras", work / "out")
    assert done.returncode == 0, done.stderr
    return work / "out", done


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Another backend in the environment must not reach the converter.
    environment = os.environ | {"EMOTIOND_CACHE": str(folder / "cache"), "KERAS_BACKEND": "tensorflow"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def _convert(work: Path, model: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    given = ("--model", str(work / model), "--data", str(work / "f.csv"), "--out", str(out))
    return _python(work, "-m", "convert", *given, "--min-agreement", "0.8", "--max-drop", "0.1", *more)


def test_it_says_little_and_writes_four_files(converted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = converted
    assert {path.name for path in out.iterdir()} == {"float32.tflite", "int8.tflite", "golden.npz", "parity.json"}
    assert len(done.stderr.splitlines()) == 2  # calibration drawn anew, and the result
    assert "drawing calibration rows anew" in done.stderr


def test_int8_takes_pixel_minus_128_and_float32_takes_pixels(
    work: Path, converted: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    out, _ = converted
    with np.load(work / "expected.npz") as arrays:
        pixels, scores = list(arrays["pixels"]), arrays["scores"]
    float32 = np.stack([s.values for s in TfliteClassifier(out / "float32.tflite").classify(pixels)])
    int8 = np.stack([s.values for s in TfliteClassifier(out / "int8.tflite").classify(pixels)])  # checks its input
    np.testing.assert_allclose(float32, scores, atol=0.02)  # the trained one rounded to bfloat16
    np.testing.assert_allclose(int8, float32, atol=0.1)


def test_weights_are_int8_per_channel(converted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = converted
    interpreter = Interpreter(str(out / "int8.tflite"))
    tensors = [tensor for tensor in interpreter.get_tensor_details() if tuple(tensor["shape"][1:3]) == (3, 3)]
    kernels = [tensor for tensor in tensors if _constant(interpreter, tensor)]
    # The stem, and two in each of five blocks: the mirror image has no copy of its own.
    assert len(kernels) == 11
    for kernel in kernels:
        assert kernel["dtype"] is np.int8
        assert len(kernel["quantization_parameters"]["scales"]) == kernel["shape"][0]


def test_parity_holds_what_was_measured(converted: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = converted
    found = json.loads((out / "parity.json").read_text())
    assert found["n"] == 70
    assert found["passed"] is True
    assert found["top1_agreement"] >= 0.8
    assert 0 <= found["mean_abs_difference"] <= found["max_abs_difference"] < 0.2
    assert found["accuracy_change"] == pytest.approx(found["accuracy"]["int8"] - found["accuracy"]["float32"])
    assert found["per_class"].keys() == set(EMOTIONS)
    for name, entry in found["files"].items():
        assert entry["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()


def test_the_golden_set_proves_a_copy_and_finds_a_damaged_one(
    tmp_path: Path, converted: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    out, _ = converted
    for name in ("int8", "float32"):
        off, tolerance = deviation(TfliteClassifier(out / f"{name}.tflite"), out / "golden.npz", name)
        assert off <= 1 / 256 < tolerance
    content = (out / "float32.tflite").read_bytes()
    interpreter = Interpreter(model_content=content)
    weights = max((_constant(interpreter, tensor) for tensor in interpreter.get_tensor_details()), key=len)
    (tmp_path / "float32.tflite").write_bytes(content.replace(weights, bytes(len(weights))))
    off, _ = deviation(TfliteClassifier(tmp_path / "float32.tflite"), out / "golden.npz", "float32")
    assert off > 0.01


def _constant(interpreter: Interpreter, tensor: dict[str, Any]) -> bytes:
    """A tensor's bytes if the file holds them, else none."""
    try:
        return bytes(interpreter.get_tensor(tensor["index"]).tobytes()) if len(tensor["shape"]) == 4 else b""
    except ValueError:
        return b""


def test_a_threshold_fails_the_command(
    work: Path, converted: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out, _ = converted
    found = json.loads((out / "parity.json").read_text())
    for limits in (parity.Limits(1.01, 1.0), parity.Limits(0.0, accuracy_drop=-found["accuracy_change"] - 0.001)):
        verdict = parity.judge(found, limits)
        assert verdict["passed"] is False
        with pytest.raises(parity.ParityError, match="do not ship"):
            parity.require(verdict)
    parity.require(parity.judge(found, parity.Limits(0.0, 1.0)))


def test_bad_models_are_one_line(work: Path, tmp_path: Path) -> None:
    done = _convert(work, "colour.keras", tmp_path / "o")
    assert done.returncode == 65
    assert done.stderr.splitlines()[-1].endswith("expected (None, 48, 48, 1) to (None, 7)")
    assert "Traceback" not in done.stderr
    missing = _convert(work, "none.keras", tmp_path / "o")
    assert (missing.returncode, missing.stderr.count("\n")) == (66, 1)
    shipped = Path(__file__).parents[1] / "edge" / "models" / "int8.tflite"
    done = _convert(work, str(shipped), tmp_path / "o")
    assert done.returncode == 65
    assert done.stderr == f"convert: {shipped}: must be a .keras file, as training leaves it in a run's folder\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--min-agreement", "98"), "must be a share, 0 to 1"),
        (("--max-drop", "nan"), "must be a share, 0 to 1"),
        (("--usage", "public"), "--usage public: unknown; give one of Training, PublicTest, PrivateTest, test"),
    ],
)
def test_a_wrong_option_is_told_before_the_work(work: Path, tmp_path: Path, given: tuple[str, str], says: str) -> None:
    done = _convert(work, "m.keras", tmp_path / "o", *given)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(says)
    assert not (tmp_path / "o").exists()


def test_a_conversion_that_fails_leaves_what_was_there(
    work: Path, converted: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out, _ = converted
    shutil.copytree(out, tmp_path / "o")
    done = _convert(work, "logits.keras", tmp_path / "o")
    assert done.returncode == 65
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"convert: {work / 'logits.keras'}: as float32.tflite: must end in a softmax: ")
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()} == {
        path.name: path.read_bytes() for path in out.iterdir()
    }


def test_calibration_is_balanced_and_follows_its_list(work: Path, tmp_path: Path) -> None:
    dataset = data.read_csv(work / "f.csv")
    drawn = calibration.draw(dataset, per_emotion=5)
    assert drawn.class_counts().tolist() == [5] * 7
    pairs = [
        [int(row), digest.hex()] for row, digest in zip(drawn.rows, checks.fingerprints(drawn.images), strict=True)
    ]
    listed = {emotion: pairs[5 * label : 5 * label + 5] for label, emotion in enumerate(EMOTIONS)}
    (tmp_path / "c.json").write_text(json.dumps(listed))
    found = calibration.find(dataset.take(np.arange(len(dataset))[::-1]), tmp_path / "c.json")
    assert found is not None
    assert sorted(checks.fingerprints(found.images)) == sorted(checks.fingerprints(drawn.images))
    assert calibration.find(dataset.take(np.arange(20)), tmp_path / "c.json") is None
    with pytest.raises(BadDataError, match="calibration wants 71 Training rows of angry"):
        calibration.draw(dataset, per_emotion=71)


def test_calibration_inputs_reach_black_and_white(work: Path) -> None:
    samples = list(calibration.inputs(data.read_csv(work / "f.csv").images[:3]))
    assert [sample.shape for sample in samples] == [(1, 48, 48, 1)] * 4
    assert (samples[0].min(), samples[0].max()) == (0, 255)


def test_golden_pictures_are_many_and_made() -> None:
    pictures = golden.pictures()
    assert pictures.shape == (16, 48, 48)
    assert len(set(checks.fingerprints(pictures))) == 16
    np.testing.assert_array_equal(pictures, golden.pictures())


@pytest.mark.skipif(not FER2013.is_dir(), reason="FER2013 is not here (EMOTIOND_SHARED)")
def test_the_checked_in_list_is_what_is_drawn() -> None:
    dataset = data.load(FER2013)
    found = calibration.find(dataset)
    assert found is not None
    assert found.class_counts().tolist() == [calibration.PER_EMOTION] * 7
    assert set(found.usages.tolist()) == {0}
    assert found.rows.tolist() == calibration.draw(dataset).rows.tolist()
    tests = set(checks.fingerprints(dataset.split("test").images))
    assert not tests & set(checks.fingerprints(found.images))
