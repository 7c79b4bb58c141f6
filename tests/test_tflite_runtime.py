"""tflite-runtime behind the same door: it lives in an environment of its own, for it needs numpy 1."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from edge.classifier import TfliteClassifier

PYTHON = ROOT / ".venv-tflite-runtime/bin/python"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="no .venv-tflite-runtime (make test makes it, up to Python 3.11)"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([PYTHON, *arguments], capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)


def test_both_runtimes_give_the_same_scores(tmp_path: Path) -> None:
    crops = np.random.default_rng(3).integers(0, 256, (10, 6, 6), np.uint8).repeat(8, 1).repeat(8, 2)
    np.save(tmp_path / "crops.npy", crops)
    code = f"""
import json, numpy as np
from edge.classifier import TfliteClassifier
classifier = TfliteClassifier(runtime="tflite-runtime")
scores = classifier.classify(list(np.load({str(tmp_path / "crops.npy")!r})))
print(json.dumps([classifier.runtime, [s.values.tolist() for s in scores]]))
"""
    runtime, theirs = json.loads(run("-c", code).stdout)
    ours = [scores.values for scores in TfliteClassifier(runtime="litert").classify(list(crops))]
    assert runtime == "tflite-runtime"
    np.testing.assert_allclose(theirs, ours, atol=0.02)  # the kernels round differently by a step or two of 1/256


def test_check_prints_which_runtime_is_taken() -> None:
    done = run("-m", "edge", "check", "--set", "mqtt.broker=null", "--set", "model.runtime=tflite-runtime")
    assert done.returncode == 0, done.stderr
    assert "installed: litert, tflite-runtime; model.runtime: tflite-runtime" in done.stdout
    assert " on tflite-runtime, " in done.stdout
    assert "gives the scores that it must" in done.stdout


def test_the_daemon_runs_on_it(video: Path) -> None:
    settings = ["--set", "mqtt.broker=null", "--set", "model.runtime=tflite-runtime"]
    done = run("-m", "edge", "run", "--source", str(video), "--events", "-", *settings)
    assert done.returncode == 0, done.stderr
    types = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert {"new", "update", "end"} <= set(types)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_shortened_model_is_named(tmp_path: Path, share: float) -> None:
    whole = TfliteClassifier().path.read_bytes()
    (tmp_path / "m.tflite").write_bytes(whole[: int(len(whole) * share)])
    settings = ["--set", "mqtt.broker=null", "--set", "model.runtime=tflite-runtime"]
    done = run("-m", "edge", "run", "--set", f"model.path={tmp_path}/m.tflite", *settings)
    assert (done.returncode, "m.tflite: tflite-runtime cannot load it" in done.stderr) == (78, True)
