"""One command from the CSV to the int8 file, report included, as a person types it."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_made import rows, write_csv

import training.__main__
from edge.classifier import TfliteClassifier

pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
pytest.importorskip("matplotlib", reason="the extra `train` is not installed")

# A mirrored stripe is another label.
SETTINGS = ("width=4", "batch_size=14", "learning_rate=0.03", "ema_momentum=0.9", "flip=0", "mirror=false")
SETTINGS += ("rotation=3", "damage=0")


def test_one_command_trains_converts_and_reports(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "f.csv", rows(490, 70))
    words = ["train", "--data", str(path), "--out", str(tmp_path / "run"), "--deploy", str(tmp_path / "out")]
    words += ["--epochs", "4", *(word for setting in SETTINGS for word in ("--set", setting))]
    environment = os.environ | {"EMOTIOND_CACHE": str(tmp_path / "cache"), "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-m", "training", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"^[IWEF]\d{4} .*", done.stderr, re.M)  # TensorFlow's own words
    assert done.stdout.strip() == str(tmp_path / "run" / "report" / "index.html")
    assert "float32 against int8" in (tmp_path / "run" / "report" / "index.html").read_text()
    found = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert found["accuracy"]["int8"] > 0.7  # it has learned the stripes: chance is 0.14
    faces = [image for _, image, usage in rows(490, 70) if usage == "PublicTest"]
    labels = [label for label, _, usage in rows(490, 70) if usage == "PublicTest"]
    tops = [scores.values.argmax() for scores in TfliteClassifier(tmp_path / "out" / "int8.tflite").classify(faces)]
    assert np.mean(np.array(tops) == labels) == pytest.approx(found["accuracy"]["int8"])


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (
            (490, 0),
            "--deploy: usage test: the data holds no such row, only Training; give data that holds them, or leave",
        ),
        (
            (413, 70),
            "--deploy: calibration wants 60 Training rows of angry, the data has 59; give data that holds them",
        ),
    ],
)
def test_what_cannot_be_deployed_is_told_before_the_training(
    counts: tuple[int, int],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EMOTIOND_CACHE", str(tmp_path / "cache"))
    path = write_csv(tmp_path / "f.csv", rows(*counts))
    words = ["train", "--data", str(path), "--out", str(tmp_path / "run"), "--deploy", str(tmp_path / "out")]
    assert training.__main__.main([*words, "--epochs", "1", "--set", "width=4"]) == 65
    assert f"training: {says}" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("compared", [True, False])
def test_a_conversion_that_costs_too_much_is_reported_too(
    compared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    out.mkdir()
    (out / "parity.json").write_text("an older one")
    os.utime(out / "parity.json", (1, 1))

    def fails(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        if compared:
            (out / "parity.json").write_text("{}")
        return subprocess.CompletedProcess(command, 65)

    reported: list[object] = []
    monkeypatch.setattr(subprocess, "run", fails)
    monkeypatch.setattr(
        training.__main__, "_write_report", lambda run, source, parity: reported.extend([run, parity]) or 0
    )
    options = argparse.Namespace(out=run, deploy=out, data=None)
    assert training.__main__._deploy(options) == 65
    assert reported == [run, out / "parity.json" if compared else None]
