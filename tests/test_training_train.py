"""Training on made data: the network, a run that is killed and resumed, and checkpoints that survive.

Whichever Keras backend the environment names runs these; one Keras process costs seconds, so they share one network.
"""

import dataclasses
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_made import pattern, rows, write_csv, write_votes

from conftest import ROOT
from edge.errors import BadDataError, ConfigError, InputNotFoundError
from training import data
from training.config import TrainConfig
from training.dataset import Dataset

pytest.importorskip("keras", reason="the extra `train` is not installed")

pytestmark = [
    # numpy's own notice about keras' use of `copy`, and TensorFlow's about its Python internals.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

# Three steps an epoch: not a multiple of the steps between updates of the average, which a resumed run must count on.
TINY = dataclasses.replace(TrainConfig(), epochs=4, batch_size=24, width=4, learning_rate=0.05, warmup_epochs=0.5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder, content = tmp_path_factory.mktemp("data"), rows(84, 14)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOTIOND_CACHE", str(folder / "cache"))
        return data.load(write_csv(folder / "f.csv", content), write_votes(folder / "v.csv", content))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Any:
    """A run of TINY, from its beginning to its end."""
    from training.train import train

    return train(dataset, TINY, tmp_path_factory.mktemp("runs") / "straight")


def multiply_adds(model: Any) -> int:
    """Of one image through the convolutions, of both views if there are two, and the dense layer."""
    from keras import layers

    views = 2 if any(operation.name.startswith("flip") for operation in model.operations) else 1
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            total += views * math.prod((*layer.output.shape[1:3], *layer.kernel.shape))
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


def test_the_network_has_its_exact_size() -> None:
    from training.model import build_model

    network = build_model()
    assert network.count_params() == 1_522_263
    assert multiply_adds(network) == 43_980_544
    both = build_model(mirror=True)
    assert both.count_params() == 1_522_263
    assert multiply_adds(both) == 87_959_296
    assert network.get_layer("rescale").scale * 255 + network.get_layer("rescale").offset == pytest.approx(
        1.984, abs=1e-3
    )
    assert network.input_shape == (None, 48, 48, 1)
    assert network.output_shape == (None, 7)


def test_the_mirror_image_has_the_same_say() -> None:
    import keras

    from training.model import build_model

    one, both = build_model(4, seed=3), build_model(4, mirror=True)
    both.set_weights(one.get_weights())
    pixels = np.stack([pattern(index, 1) for index in range(4)])[..., None].astype(np.float32)
    logits = keras.Model(one.input, one.get_layer("logits").output)
    mean = sum(logits.predict(seen, verbose=0) for seen in (pixels, pixels[:, :, ::-1])) / 2
    scores = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(both.predict(pixels, verbose=0), scores, atol=1e-5)
    np.testing.assert_allclose(both.predict(pixels[:, :, ::-1], verbose=0), scores, atol=1e-5)
    assert np.abs(one.predict(pixels, verbose=0) - scores).max() > 1e-3


def test_it_overfits_eight_images() -> None:
    import keras

    from training.model import build_model

    network = build_model(width=8, dropout=0.0)
    images = np.stack([pattern(index % 7, index) for index in range(8)])[..., None].astype(np.float32)
    targets = np.eye(7, dtype=np.float32)[np.arange(8) % 7]
    network.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), "categorical_crossentropy")
    losses = [float(network.train_on_batch(images, targets)) for _ in range(60)]
    assert losses[0] > 1
    assert losses[-1] < 0.05
    for _ in range(40):  # the moving statistics lag behind
        network(images, training=True)
    assert (network.predict(images, verbose=0).argmax(axis=1) == np.arange(8) % 7).all()


def _killed_after(folder: Path, dataset: Dataset, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train TINY, and die while the epoch after `epochs` is under way."""
    from training.progress import Progress
    from training.train import train

    def dies(self: Progress, batch: int, loss: float) -> None:
        if len(self._run.history) == epochs and batch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            train(dataset, TINY, folder)


def test_a_killed_run_resumes_to_the_same_end(
    straight: Any,
    tmp_path: Path,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from training.train import train

    _killed_after(tmp_path / "killed", dataset, 2, monkeypatch)
    resumed = train(dataset, TINY, tmp_path / "killed", resume=True)

    assert [entry["epoch"] for entry in resumed.history] == [1, 2, 3, 4]
    for key in ("loss", "val_loss", "learning_rate"):
        expected = [entry[key] for entry in straight.history]
        np.testing.assert_allclose([entry[key] for entry in resumed.history], expected, rtol=1e-4)
    for mine, other in zip(resumed.deployed.get_weights(), straight.deployed.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)

    lines = (tmp_path / "killed" / "history.csv").read_text().splitlines()
    assert lines[0].split(",")[:3] == ["epoch", "loss", "accuracy"]
    assert len(lines) == 5
    assert json.loads((tmp_path / "killed" / "config.json").read_text())["width"] == 4
    withheld = np.load(tmp_path / "killed" / "validation_rows.npy")
    assert len(withheld) == 7
    assert "0 min left" in capfd.readouterr().err

    _another_architecture(tmp_path / "killed", dataset)
    _another_beginning(tmp_path / "killed", dataset)
    _a_full_disk(tmp_path / "killed", straight, monkeypatch)
    _what_was_saved_scores_the_same(straight)


def _another_architecture(folder: Path, dataset: Dataset) -> None:
    from training.train import train

    with pytest.raises(BadDataError, match="the run withheld other rows"):
        train(dataset, dataclasses.replace(TINY, validation_seed=2), folder, resume=True)
    with pytest.raises(BadDataError, match="another architecture: .*stem_conv"):
        train(dataset, dataclasses.replace(TINY, width=8), folder, resume=True)
    with pytest.raises(InputNotFoundError, match="no checkpoint to resume"):
        train(dataset, TINY, folder / "empty", resume=True)


def _another_beginning(folder: Path, dataset: Dataset) -> None:
    from training.train import train

    with pytest.raises(BadDataError, match="begun with other FER\\+ votes, or none"):
        train(dataclasses.replace(dataset, votes=None), TINY, folder, resume=True)
    for name, other in (("label_share", 0.5), ("optimizer", "adamw")):
        begun = f"{name}={getattr(TINY, name)}"
        with pytest.raises(ConfigError, match=f"state.npz: this run was begun with {begun}, .*; leave {name} as it is"):
            train(dataset, dataclasses.replace(TINY, **{name: other}), folder, resume=True)
    with pytest.raises(ConfigError, match="begun with label_share=0.7"):  # which wants no votes
        train(dataclasses.replace(dataset, votes=None), dataclasses.replace(TINY, label_share=1.0), folder, resume=True)
    with pytest.raises(BadDataError, match="holds a run already: give --resume"):
        train(dataset, TINY, folder)
    before = (folder / "history.csv").read_text()
    assert len(train(dataset, TINY, folder, resume=True).history) == 4  # it has ended: nothing is trained
    assert (folder / "history.csv").read_text() == before
    whole = (folder / "state.npz").read_bytes()
    (folder / "state.npz").write_bytes(b"")
    with pytest.raises(BadDataError, match="not a checkpoint"):
        train(dataset, TINY, folder, resume=True)
    (folder / "state.npz").write_bytes(whole)


def test_resuming_a_finished_run_changes_nothing(straight: Any, tmp_path: Path, dataset: Dataset) -> None:
    """Not even after a kill before the calibration; and of a run whose start is gone, which is no more needed."""
    from training.evaluate import open_model
    from training.train import train

    # Soft targets: the biases are set by others than the labels, so that calibrating twice is not calibrating once.
    soft = dataclasses.replace(dataset, votes=dataset.votes + np.array([9, 3, 0, 1, 0, 0, 2, 0, 0, 0], np.float32))
    shutil.copytree(straight.folder, tmp_path / "first")
    config = dataclasses.replace(TINY, epochs=1, start=str(tmp_path / "first"))
    folder = tmp_path / "run"
    train(soft, config, folder)
    shutil.rmtree(tmp_path / "first")
    config = dataclasses.replace(config, epochs=2)
    run = train(soft, config, folder, resume=True)
    calibrated, scores = (folder / "model.keras").read_bytes(), open_model(folder / "model.keras")(soft.images)
    for _ in range(2):
        assert len(train(soft, config, folder, resume=True).history) == 2
        assert (folder / "model.keras").read_bytes() == calibrated

    (folder / "model.keras").write_bytes((folder / "best.keras").read_bytes())
    assert np.abs(open_model(folder / "model.keras")(soft.images) - scores).max() > 1e-3
    run = train(soft, config, folder, resume=True)
    np.testing.assert_allclose(open_model(folder / "model.keras")(soft.images), scores, atol=1e-5)
    np.testing.assert_allclose(run.predict(soft.images), scores, atol=1e-5)


def test_a_run_from_several_begins_with_their_mean(straight: Any, tmp_path: Path, dataset: Dataset) -> None:
    from training.evaluate import load_keras
    from training.train import train

    other = train(dataset, dataclasses.replace(TINY, epochs=1, seed=2), tmp_path / "other")
    several = dataclasses.replace(TINY, epochs=1, start=f"{straight.folder}, {other.folder}", learning_rate=1e-9)
    run = train(dataset, several, tmp_path / "several")
    first, second, mean = (
        load_keras(folder / "best.keras").get_layer("stage1_1_a_conv").get_weights()[0]
        for folder in (straight.folder, other.folder, run.folder)
    )
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-5)
    assert len(run.history) == 1

    with pytest.raises(InputNotFoundError, match="none/validation_rows.npy: not found"):
        train(dataset, dataclasses.replace(several, start=f"{other.folder},{tmp_path}/none"), tmp_path / "run")


def test_the_rate_falls_to_its_floor(straight: Any, tmp_path: Path, dataset: Dataset) -> None:
    from training.train import train

    for floor, run in (
        (0.0, straight),
        (0.5, train(dataset, dataclasses.replace(TINY, rate_floor=0.5), tmp_path / "run")),
    ):
        rates = [entry["learning_rate"] for entry in run.history]
        assert sorted(rates, reverse=True) == rates
        assert TINY.learning_rate * floor <= rates[-1] < TINY.learning_rate * (floor + 0.1)


def test_a_run_of_a_step_keeps_what_it_learned(tmp_path: Path, dataset: Dataset) -> None:
    from training.model import build_model
    from training.train import train

    def stem(model: object) -> np.ndarray:
        return model.get_layer("stem_conv").get_weights()[0]

    config = dataclasses.replace(TINY, epochs=1, batch_size=len(dataset))
    first = stem(build_model(config.width, config.dropout, seed=config.seed, mirror=config.mirror))
    averaged = stem(train(dataset, config, tmp_path / "averaged").deployed)
    last = stem(train(dataset, dataclasses.replace(config, ema_momentum=0.0), tmp_path / "last").deployed)
    learned = np.abs(last - first).max()
    assert learned > 0
    assert np.abs(averaged - last).max() < 0.1 * learned


def test_a_run_that_diverges_ends_with_its_reason(tmp_path: Path, dataset: Dataset) -> None:
    from training.progress import DivergedError
    from training.train import train

    with pytest.raises(DivergedError, match="the loss is no longer finite; train with a smaller learning_rate than 1e"):
        train(dataset, dataclasses.replace(TINY, learning_rate=1e30), tmp_path / "run")


def _a_full_disk(folder: Path, run: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before the full disk stays whole, and nothing half-written stays."""
    from training.console import OutputError
    from training.run import Average

    def full(path: Path, **arrays: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    before = (folder / "state.npz").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OutputError, match="No space left on device; the last good checkpoint is kept"):
            dataclasses.replace(run, folder=folder).save([], Average(0.9, []))
    assert (folder / "state.npz").read_bytes() == before
    assert not list(folder.glob(".unfinished*"))


def _what_was_saved_scores_the_same(run: Any) -> None:
    """model.keras holds the best epoch in float32; here that is a loadable network that knows the stripes."""
    from training.evaluate import open_model

    scores = open_model(run.folder / "model.keras")(run.validation.images)
    best = min(run.history, key=lambda entry: entry["val_loss"])
    assert (scores.argmax(axis=1) == run.validation.labels).mean() == pytest.approx(best["val_accuracy"])


def test_early_stopping_ends_a_run_without_gain(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.run import Run
    from training.train import train

    losses = iter([1.0, 0.9, 0.95, 0.92, 0.5])
    monkeypatch.setattr(
        Run, "validate", lambda self, predict: {"val_loss": next(losses), "val_accuracy": 0.5, "val_majority": 0.5}
    )
    run = train(dataset, dataclasses.replace(TINY, epochs=5, patience=2), tmp_path / "r")
    assert len(run.history) == 4
    assert run.epochs_without_gain == 2


@pytest.mark.parametrize(("name", "value"), [("teachers", "a_run"), ("sharpness", 0.1)])
def test_what_only_torch_has(name: str, value: object, tmp_path: Path, dataset: Dataset) -> None:
    import keras

    from training.train import train

    if keras.backend.backend() == "torch":
        pytest.skip("this is torch")
    with pytest.raises(ConfigError, match=f"{name}: only the torch backend"):
        train(dataset, dataclasses.replace(TINY, **{name: value}), tmp_path / "r")


def test_an_emotion_without_rows_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    from training.train import train

    few = dataset.take((dataset.labels != 1) & ((dataset.labels != 2) | (dataset.usages > 0)))
    with pytest.raises(BadDataError, match="no Training rows to learn disgust, fear from; give data with rows of all"):
        train(few, TINY, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["start", "teachers"])
@pytest.mark.parametrize("changed", [{"validation_seed": 2}, {"validation_share": 0.1}])
def test_a_tflite_file_may_have_learned_from_other_withheld_rows(
    name: str, changed: dict[str, object], tmp_path: Path, dataset: Dataset
) -> None:
    import keras

    from training.train import train

    if name == "teachers" and keras.backend.backend() != "torch":
        pytest.skip("only torch has teachers")
    path = ROOT / "edge/models/float32.tflite"
    with pytest.raises(BadDataError, match=r"float32\.tflite: .*validation_seed=1 and validation_share=0\.05.*run"):
        train(dataset, dataclasses.replace(TINY, **{name: str(path)}, **changed), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_tensorboard_logs_are_written_or_asked_for(tmp_path: Path, dataset: Dataset) -> None:
    from training.train import train

    logging = dataclasses.replace(TINY, epochs=1, tensorboard=True)
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(ConfigError, match="tensorboard: needs the package"):
            train(dataset, logging, tmp_path / "r")
    else:
        train(dataset, logging, tmp_path / "r")
        assert list((tmp_path / "r" / "tensorboard").rglob("events.out.*"))


@pytest.mark.parametrize("balance", ["none", "oversample", "weights"])
def test_balance_lifts_the_rare_emotion(tmp_path: Path, balance: str, dataset: Dataset) -> None:
    from training.batches import Batches

    few = dataset.take(np.flatnonzero((dataset.labels != 1) | (np.arange(len(dataset)) < 8)))
    config = dataclasses.replace(TINY, balance=balance, balance_strength=1.0, mixup_alpha=0.0, batch_size=len(few))
    batches = Batches(few, config)
    share = 0.0
    for epoch in range(20):
        batches.start(epoch)
        targets = batches[0][1]
        share += targets[targets.argmax(axis=1) == 1].sum() / targets.sum() / 20
    natural = (few.labels == 1).mean()
    assert share == pytest.approx(natural if balance == "none" else 1 / 7, abs=0.03)


def test_a_picture_looks_different_in_every_epoch_and_the_same_when_seen_again(dataset: Dataset) -> None:
    from training.batches import Batches

    batches = Batches(dataset.take(np.array([0])), TINY)
    seen = []
    for epoch in (0, 1, 0):
        batches.start(epoch)
        seen.append(batches[0][0])
    assert np.abs(seen[0] - seen[1]).max() > 1
    np.testing.assert_array_equal(seen[0], seen[2])


def test_parts_of_a_batch_make_the_whole(dataset: Dataset) -> None:
    from training.batches import Batches

    whole = Batches(dataset, TINY)[1][0]
    halves = [Batches(dataset, TINY, part, 2)[1][0] for part in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_every_backend_makes_the_same_network(tmp_path: Path) -> None:
    there = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name)]
    if len(there) < 2:
        pytest.skip(f"one backend only: {there}")
    code = f"""
import os, keras, numpy as np
from training.model import build_model
path = {str(tmp_path / "m.keras")!r}
if not os.path.exists(path):
    build_model(4).save(path)
pixels = np.linspace(0, 255, 2 * 48 * 48, dtype="float32").reshape(2, 48, 48, 1)
fresh = build_model(4)
fresh.set_weights(keras.models.load_model(path).get_weights())
np.save({str(tmp_path)!r} + "/" + keras.backend.backend() + ".npy", fresh.predict(pixels, verbose=0))
"""
    for name in there:
        _in_backend(name, code)
    first, *others = [np.load(tmp_path / f"{name}.npy") for name in there]
    for other in others:
        np.testing.assert_allclose(first, other, atol=1e-4)


def _in_backend(name: str, code: str) -> None:
    environment = os.environ | {"KERAS_BACKEND": name}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_backend_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    content = rows(84, 14)
    path = write_csv(tmp_path / "f.csv", content)
    code = "import sys; sys.modules['torch'] = None; from training.__main__ import main; sys.exit(main())"
    environment = {**os.environ, "KERAS_BACKEND": "torch", "EMOTIOND_CACHE": str(tmp_path / "cache")}
    arguments = ["train", "--data", str(path), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == ConfigError.exit_code
    assert (
        done.stderr.strip().splitlines()[-1]
        == f"training: torch is not installed: {sys.executable} -m pip install torch"
    )
