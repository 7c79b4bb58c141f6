"""The report, the explanations, the data command and several hosts, on made data."""

import base64
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_made import pattern, rows, write_csv

from edge.errors import BadDataError, InputNotFoundError
from edge.labels import EMOTIONS
from training import __main__ as command
from training import data, evaluate
from training.config import TrainConfig
from training.run import HISTORY

pytest.importorskip("keras", reason="the extra `train` is not installed")
pytest.importorskip("matplotlib", reason="the extra `train` is not installed")

# Warnings of TensorFlow, Keras and matplotlib about their own insides.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PARITY = {
    "n": 14,
    "usage": "PublicTest",
    "accuracy": {"float32": 0.6, "int8": 0.61},
    "top1_agreement": 0.99,
    "mean_abs_difference": 0.002,
    "max_abs_difference": 0.05,
    "per_class": {emotion: {"float32": 0.5, "int8": 0.51, "change": 0.01, "n": 2} for emotion in EMOTIONS},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTIOND_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMOTIOND_DATA", raising=False)


def _run_folder(path: Path, balance: str = "none") -> Path:
    """What `train` leaves behind, without training."""
    path.mkdir()
    dataclasses.replace(TrainConfig(), balance=balance).save(path / "config.json")
    entries = [[epoch, 2 / epoch, 0.3, 1.5 / epoch, 0.4 + epoch / 10, 0.6, 0.1, 30, 0.5] for epoch in (1, 2, 3)]
    lines = [",".join(HISTORY), *(",".join(map(str, entry)) for entry in entries)]
    (path / "history.csv").write_text("\n".join(lines) + "\n")
    (path / "model.keras").write_bytes(b"stands for a network")
    return path


def _always_happy(images: np.ndarray) -> np.ndarray:
    return np.tile(np.eye(7, dtype=np.float32)[3] * 0.8 + 0.2 / 7, (len(images), 1))


def test_the_report_is_one_self_contained_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "open_model", lambda path: _always_happy)
    run, other = _run_folder(tmp_path / "plain"), _run_folder(tmp_path / "balanced", "oversample")
    (tmp_path / "parity.json").write_text(json.dumps(PARITY))
    given = ["--data", str(write_csv(tmp_path / "f.csv", rows(140, 14))), "--parity", str(tmp_path / "parity.json")]
    assert command.main(["report", str(run), *given, "--compare", str(other)]) == 0
    page = (run / "report" / "index.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == page.count("<img") == 8
    assert "http" not in page  # nothing is fetched
    for picture in pictures:
        assert cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR).std() > 5
    assert len(list((run / "report").glob("*.png"))) == 8
    assert "14.3%" in page  # two of fourteen are happy
    assert "99.00%" in page
    assert re.search(r"<td>balanced</td><td>oversample 0.5</td>.*<td>0.0%</td></tr>", page)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    from training import report

    with pytest.raises(InputNotFoundError, match=r"config\.json: not found"):
        report.read_run(tmp_path)
    run = _run_folder(tmp_path / "r")
    for damaged in ("epoch,loss\n1,x\n", "x" * 200_000):
        (run / "history.csv").write_text(damaged)
        with pytest.raises(BadDataError, match=r"history\.csv: not a run's history"):
            report.read_run(run)
    (run / "history.csv").write_text(",".join(HISTORY) + "\n")
    with pytest.raises(BadDataError, match="no epoch was finished"):
        report.read_run(run)


def test_a_map_shows_where_the_evidence_is(tmp_path: Path) -> None:
    """A network made by hand, whose `happy` looks at bright places: the map is hot there and nowhere else."""
    import keras

    from training import explain

    pixels = keras.Input((48, 48, 1))
    bright = keras.layers.Conv2D(2, 1, use_bias=False, name="seen")(keras.layers.Rescaling(1 / 255)(pixels))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.AveragePooling2D(8)(bright))
    logits = keras.layers.Dense(7, use_bias=False, name="logits")(pooled)
    network = keras.Model(pixels, keras.layers.Softmax()(logits))
    network.get_layer("seen").set_weights([np.array([1.0, -1.0], np.float32).reshape(1, 1, 1, 2)])
    weights = np.zeros((2, 7), np.float32)
    weights[0, EMOTIONS.index("happy")] = 30.0
    network.get_layer("logits").set_weights([weights])

    face = np.zeros((48, 48), np.uint8)
    face[32:44, 8:24] = 255
    maps, scores = explain.activation_maps(network, face[None], layer="seen")
    happy = maps[0, EMOTIONS.index("happy")]
    assert maps.shape == (1, 7, 48, 48)
    assert scores[0].argmax() == EMOTIONS.index("happy")
    assert happy[34:42, 10:22].min() > 0.95
    assert happy[:28].max() < 0.05
    assert maps[0, EMOTIONS.index("sad")].max() == 0
    with pytest.raises(BadDataError, match="no layer nowhere"):
        explain.activation_maps(network, face[None], layer="nowhere")


def test_explain_writes_a_grid_of_real_and_bad_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from training.model import build_model

    build_model(width=4, mirror=True).save(tmp_path / "m.keras")
    cv2.imwrite(str(tmp_path / "a.png"), pattern(3, 1))
    cv2.imwrite(str(tmp_path / "b.jpg"), np.full((200, 160, 3), 90, np.uint8))  # no face to find: all of it
    pictures = [str(tmp_path / "a.png"), str(tmp_path / "b.jpg")]
    given = ["--model", str(tmp_path / "m.keras"), "--out", str(tmp_path / "grid.png")]
    assert command.main(["explain", *pictures, *given, "--emotion", "happy", "--emotion", "sad"]) == 0
    grid = cv2.imread(str(tmp_path / "grid.png"))
    assert grid.shape[0] / grid.shape[1] == pytest.approx(2 * 1.6 / (3 * 1.35), rel=0.02)
    bare = [str(tmp_path / "a.png"), *given[:2], "--out", str(tmp_path / "bare")]
    assert command.main(["explain", *bare]) == 0
    assert cv2.imread(str(tmp_path / "bare")) is not None  # under the name that was said
    assert command.main(["explain", *bare[:-1], str(tmp_path)]) == 74
    assert f"{tmp_path}: cannot be written: Is a directory" in capfd.readouterr().err
    (tmp_path / "c.png").write_text("no picture")
    assert command.main(["explain", str(tmp_path / "c.png"), *given]) == 65
    assert command.main(["explain", str(tmp_path / "none.png"), *given]) == 66
    assert "c.png: not a picture" in capfd.readouterr().err


def test_the_largest_face_of_a_photograph_is_cut_out() -> None:
    from training.explain import read_face

    portrait = Path(__file__).parents[1] / "edge" / "assets" / "portrait.jpg"
    face = read_face(portrait)
    whole = cv2.resize(cv2.imread(str(portrait), cv2.IMREAD_GRAYSCALE), (48, 48), interpolation=cv2.INTER_AREA)
    assert face.shape == (48, 48)
    assert np.abs(face.astype(int) - whole).mean() > 20  # a cut, not the whole picture


def test_the_data_command_tells_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = [*rows(14, 7), (3, np.zeros((48, 48), np.uint8), "Training")]
    content.append((2, content[0][1], "Training"))
    path = write_csv(tmp_path / "f.csv", content)
    assert command.main(["data", "--data", str(path), "--export-folders", str(tmp_path / "k")]) == 0
    told = capsys.readouterr().out
    assert "one grey level): 21" in told
    assert "1 in Training; 1 with another label" in told
    assert "22 pictures" in told
    exported, original = data.load(tmp_path / "k"), data.load(path)
    for usage in ("Training", "test"):
        mine, theirs = exported.split(usage), original.split(usage)
        # Folders are read by emotion; the file's name is the row.
        by_name = sorted(range(len(theirs)), key=lambda i: (EMOTIONS[theirs.labels[i]], theirs.rows[i]))
        np.testing.assert_array_equal(mine.images, theirs.images[by_name])
        assert mine.labels.tolist() == theirs.labels[by_name].tolist()


def test_several_hosts_want_jax_and_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "f.csv", rows(14, 7))
    given = ["train", "--data", str(path), "--out", str(tmp_path / "r"), "--hosts", "a:1,b:1"]
    assert command.main([*given, "--host-index", "2"]) == 78
    assert "--host-index 2: must be 0 to 1" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.soak  # for it takes a minute
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "f.csv", rows(84, 7))
    settings = ["width=4", "batch_size=16", "learning_rate=0.02", "dropout=0"]
    given = ["-m", "training", "train", "--data", str(path), "--epochs", "2"]
    given += [word for setting in settings for word in ("--set", setting)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hosts = f"127.0.0.1:{free.getsockname()[1]},127.0.0.1:1"  # nobody listens at any but the first
    environment = os.environ | {"KERAS_BACKEND": "jax"}

    def start(out: str, *more: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, *given, "--out", str(tmp_path / out), *more]
        return subprocess.Popen(words, env=environment, stderr=(tmp_path / f"{out}.log").open("wb"))

    alone = start("alone")
    assert alone.wait(180) == 0, (tmp_path / "alone.log").read_text()[-2000:]
    pair = [start(f"part{index}", "--hosts", hosts, "--host-index", str(index)) for index in range(2)]
    for index, process in enumerate(pair):
        assert process.wait(180) == 0, (tmp_path / f"part{index}.log").read_text()[-2000:]
    losses = [np.genfromtxt(tmp_path / out / "history.csv", delimiter=",", names=True) for out in ("alone", "part0")]
    for key in ("loss", "val_loss"):
        np.testing.assert_allclose(losses[0][key], losses[1][key], rtol=1e-4)
    assert not (tmp_path / "part1" / "history.csv").exists()
