"""`python -m training evaluate` and the command line's errors. The networks here are made, and answer as told."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_made import pattern, rows, write_csv, write_votes

from training import __main__ as command
from training import evaluate

KEYS = {"accuracy", "macro_f1", "ece", "per_class", "confusion", "n", "model_sha256"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTIOND_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMOTIOND_DATA", raising=False)


@pytest.fixture
def oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that knows the first stripes of each label and calls everything else neutral."""

    def predict(images: np.ndarray) -> np.ndarray:
        known = {image.tobytes(): label for label, image, _ in rows(0, 7)}
        return np.eye(7, dtype=np.float32)[[known.get(image.tobytes(), 6) for image in images]] * 0.9 + 0.1 / 7

    monkeypatch.setattr(evaluate, "open_model", lambda path: predict)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"network")
    return path


def _run(*arguments: object) -> int:
    return command.main([str(argument) for argument in arguments])


def test_the_json_has_the_contracts_keys(tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = rows(14, 14)
    path = write_csv(tmp_path / "f.csv", content)
    votes = write_votes(tmp_path / "v.csv", content)
    assert _run("evaluate", "--model", oracle, "--data", path, "--votes", votes, "--json", tmp_path / "e.json") == 0
    result = json.loads((tmp_path / "e.json").read_text())
    assert KEYS | {"majority_accuracy"} <= result.keys()
    # It knows the first seven of fourteen, and is right about neutral by luck.
    assert result["accuracy"] == pytest.approx(8 / 14)
    assert result["n"] == 14
    assert result["model_sha256"] == hashlib.sha256(b"network").hexdigest()
    said = capsys.readouterr().out
    assert "accuracy 57.14%" in said
    assert re.search(r"macro F1 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", said)


def test_without_votes_there_is_no_majority_accuracy(
    tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "f.csv", rows(14, 7))
    assert _run("evaluate", "--model", oracle, "--data", path, "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)  # standard output is the JSON and nothing else
    assert result.keys() >= KEYS
    assert "majority_accuracy" not in result


def test_columns_of_the_table_stay_apart(tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "f.csv", 8 * rows(0, 7))  # all right: the widest interval that there is
    assert _run("evaluate", "--model", oracle, "--data", path) == 0
    angry = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("angry"))
    assert angry.endswith(" to 100.0%  100.0% to 100.0%")


def test_votes_beside_the_csv_are_used(tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = rows(14, 14)
    path, votes = write_csv(tmp_path / "fer2013.csv", content), write_votes(tmp_path / "fer2013new.csv", content)
    assert _run("evaluate", "--model", oracle, "--data", tmp_path, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["majority_n"] == 14
    # What only lies there must not end what went well without it; what was asked for must.
    write_votes(votes, content[:-1])
    assert _run("evaluate", "--model", oracle, "--data", path, "--json", "-") == 0
    said = capsys.readouterr()
    assert "majority_accuracy" not in json.loads(said.out)
    assert "fer2013new.csv: 27 rows do not align with the data set's 28; going on without FER+ votes" in said.err
    assert _run("data", "--data", path) == 0
    assert "going on without FER+ votes" in capsys.readouterr().err
    assert _run("evaluate", "--model", oracle, "--data", path, "--votes", votes) == 65


def test_test_means_both_tests(tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "f.csv", rows(14, 7, 7))
    assert _run("evaluate", "--model", oracle, "--data", path, "--usage", "test", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 14


def test_a_folder_whose_test_lacks_classes(tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label, name in ((0, "angry"), (3, "happy")):
        (tmp_path / "k" / "test" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "k" / "test" / name / "1.png"), pattern(label, 1000 + label))
    assert _run("evaluate", "--model", oracle, "--data", tmp_path / "k", "--usage", "test", "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["n"], result["accuracy"], result["macro_f1"]) == (2, 1.0, 1.0)
    assert result["per_class"]["sad"]["n"] == 0


def test_training_rows_are_not_mixed_in(tmp_path: Path, oracle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = rows(14, 7)
    path = write_csv(tmp_path / "f.csv", [*content, (0, content[0][1], "PublicTest")])
    assert _run("evaluate", "--model", oracle, "--data", path, "--usage", "Training,PublicTest") == 2
    assert "must not mix in Training rows" in capsys.readouterr().err
    assert _run("evaluate", "--model", oracle, "--data", path, "--usage", "public") == 2
    assert "--usage public: unknown; give one of Training, PublicTest," in capsys.readouterr().err
    assert _run("evaluate", "--model", oracle, "--data", path) == 0
    assert "1 of these pictures are Training rows too" in capsys.readouterr().out
    assert _run("evaluate", "--model", oracle, "--data", path, "--usage", "Training") == 0
    assert "no measure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("none.tflite", None, 66, "none.tflite: model not found"),
        ("m.onnx", b"x", 65, "must be a .keras or a .tflite file"),
        ("m.tflite", b"no model at all, but text", 65, "training: {path}: litert cannot load it"),
    ],
)
def test_a_wrong_model_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    data = write_csv(tmp_path / "f.csv", rows(7, 7))
    assert _run("evaluate", "--model", tmp_path / name, "--data", data) == code
    error = capsys.readouterr().err
    assert says.format(path=tmp_path / name) in error
    assert error.count("\n") == 1


def test_a_wrong_keras_file_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("keras", reason="the extra `train` is not installed")
    capfd.readouterr()  # importing it may have greeted
    (tmp_path / "m.keras").write_bytes(b"not a model")
    path = write_csv(tmp_path / "f.csv", rows(7, 7))
    assert _run("evaluate", "--model", tmp_path / "m.keras", "--data", path) == 65
    assert capfd.readouterr().err.startswith("training: " + str(tmp_path / "m.keras"))


# numpy's own notice about keras' use of `copy`, and TensorFlow's about its Python internals.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("ends_in", ["linear", "sigmoid", "nan"])
def test_a_network_that_gives_no_probabilities_is_one_line(
    ends_in: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keras = pytest.importorskip("keras", reason="the extra `train` is not installed")
    last = keras.layers.Dense(7, activation="softmax" if ends_in == "nan" else ends_in)
    network = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.GlobalAveragePooling2D(), last])
    last.set_weights([np.full((1, 7), np.nan if ends_in == "nan" else 0.01), np.zeros(7)])
    network.save(tmp_path / "m.keras")
    path = write_csv(tmp_path / "f.csv", rows(7, 7))
    capfd.readouterr()
    assert _run("evaluate", "--model", tmp_path / "m.keras", "--data", path, "--json", tmp_path / "e.json") == 65
    said = capfd.readouterr().err
    assert f"{tmp_path / 'm.keras'}: gives no probabilities, but " in said
    assert said.endswith("; end it in a softmax\n")
    assert not (tmp_path / "e.json").exists()


def test_missing_data_and_settings_set_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("evaluate", "--model", tmp_path / "m.tflite", "--data", tmp_path / "none.csv") == 66
    assert _run("evaluate", "--model", tmp_path / "m.tflite") == 65
    assert _run("train", "--out", tmp_path / "r", "--set", "epoch=3") == 78
    assert "epoch: unknown setting, did you mean epochs?" in capsys.readouterr().err
    for changes in ("start", "=3", "epochs"):
        assert _run("train", "--out", tmp_path / "r", "--set", changes) == 78
        assert f"--set {changes}: must look like name=value" in capsys.readouterr().err
    assert _run("train", "--out", tmp_path / "r", "--host-index", 1) == 2
    assert "--host-index 1: needs --hosts" in capsys.readouterr().err
    assert "Traceback" not in capsys.readouterr().err


def test_a_backend_or_a_place_that_cannot_be_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "f.csv", rows(490, 7))
    assert _run("train", "--data", data, "--out", tmp_path / "r", "--deploy", data) == 74
    assert f"{data}: cannot be written: File exists" in capsys.readouterr().err
    monkeypatch.setenv("KERAS_BACKEND", "pytorch")
    assert _run("train", "--data", data, "--out", tmp_path / "r") == 78
    assert "KERAS_BACKEND=pytorch: no such backend; set tensorflow, torch or jax" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_help_is_quick_and_usage_errors_are_2() -> None:
    asked = subprocess.run([sys.executable, "-m", "training", "--help"], capture_output=True, text=True, check=False)
    assert asked.returncode == 0
    assert "evaluate" in asked.stdout
    wrong = subprocess.run([sys.executable, "-m", "training", "evaluate"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
