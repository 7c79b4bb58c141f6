"""Training on torch: its network is the Keras one, runs survive as on the other backends, and a teacher is heard.

Keras takes one backend a process, so torch has child processes.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_made import rows, write_csv

pytest.importorskip("keras", reason="the extra `train` is not installed")
if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

TESTS = Path(__file__).parent


# torch's oneDNN damages the heap on some processors where networks are as narrow as here: children crash or hang.
PREPARED = "import torch; torch.backends.mkldnn.enabled = False\n"


CHILD = f"import sys\n{PREPARED}from training.__main__ import main\n"


def _on_torch(script: str) -> None:
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", PREPARED + script]
    done = subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_runs_on_torch_keep_what_other_backends_keep() -> None:
    wanted = "killed_run or finished_run or diverges or early_stopping or tensorboard or withheld or run_of_a_step"
    wanted += " or from_several or rate"
    words = ["-q", "-p", "no:cacheprovider", "test_training_train.py", "-k", wanted]
    _on_torch(f"import pytest, sys\nsys.exit(pytest.main({words}))")


def test_a_run_begun_on_torch_asks_for_it(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", rows(84, 14))
    words = ["train", "--data", str(path), "--out", str(tmp_path / "run"), "--epochs", "1", "--set", "width=4"]
    for backend, more, code in (("torch", [], 0), ("tensorflow", ["--resume"], 78)):
        done = subprocess.run(
            [sys.executable, "-c", f"{CHILD}sys.exit(main({[*words, *more]}))"],
            env=os.environ | {"KERAS_BACKEND": backend, "EMOTIOND_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert done.stderr.endswith("state.npz: this run was begun on torch; set KERAS_BACKEND=torch\n")


def test_the_torch_network_is_the_keras_network() -> None:
    _on_torch(
        """
import keras, numpy as np, torch
from training.model import build_model
from training.torch_network import TorchNetwork

model, random = build_model(4, 0.0, seed=1), np.random.default_rng(0)
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
pixels = random.uniform(0, 255, (8, 48, 48, 1)).astype("float32")
targets = np.eye(7, dtype="float32")[np.arange(8) % 7]
twin = TorchNetwork(4, 0.0).take(model)
views = torch.from_numpy(pixels.reshape(8, 1, 48, 48))
for network in (twin.eval(), twin.folded()):
    found = torch.softmax(network(views), dim=1).detach().numpy()
    np.testing.assert_allclose(found, model.predict(pixels, verbose=0), atol=1e-5)

# A step of training changes both alike, moving statistics included (of which torch counts the variance unbiased).
model.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
model.train_on_batch(pixels, targets)
twin.train()
optimizer = torch.optim.SGD(twin.parameters(), 0.05)
torch.nn.functional.cross_entropy(twin(views), torch.from_numpy(targets)).backward()
optimizer.step()
after = build_model(4, 0.0)
twin.give(after)
for mine, other in zip(after.weights, model.weights, strict=True):
    if not mine.path.endswith("moving_variance"):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), atol=2e-4, err_msg=mine.path)
""",
    )


def test_a_sharpness_aware_step_takes_the_slope_from_uphill() -> None:
    _on_torch(
        """
import numpy as np, torch
from training.config import TrainConfig
from training.model import build_model
from training.torch_loop import TorchLearner
from training.torch_network import TorchNetwork

config = TrainConfig(width=4, dropout=0.0, precision="float32", momentum=0.0, weight_decay=0.0, learning_rate=0.05,
                     warmup_epochs=0, sharpness=0.3)
first, random = build_model(4, 0.0, seed=1), np.random.default_rng(0)
pixels = random.uniform(0, 255, (8, 48, 48, 1)).astype("float32")
targets = np.eye(7, dtype="float32")[np.arange(8) % 7]
learner = TorchLearner(config, first, 10)
learner.learn(pixels, targets)

by_hand = TorchNetwork(4, 0.0).take(first).train()
weights = list(by_hand.parameters())
x, t = torch.from_numpy(pixels.reshape(8, 1, 48, 48)), torch.from_numpy(targets)

def slopes(n):
    return torch.autograd.grad(torch.nn.functional.cross_entropy(by_hand(x[:n]), t[:n]), weights)

up = slopes(4)
statistics = [module.running_var.clone() for module in by_hand.modules() if isinstance(module, torch.nn.BatchNorm2d)]
length = torch.sqrt(sum((slope ** 2).sum() for slope in up))
here = [weight.detach().clone() for weight in weights]
with torch.no_grad():
    for weight, slope in zip(weights, up):
        weight += 0.3 * slope / length
uphill = slopes(8)
for mine, start, slope in zip(learner.network.parameters(), here, uphill, strict=True):
    np.testing.assert_allclose(mine.detach().numpy(), (start - 0.05 * slope).numpy(), atol=1e-5)
norms = [module for module in learner.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
for norm, seen in zip(norms, statistics, strict=True):
    np.testing.assert_allclose(norm.running_var.numpy(), seen.numpy(), rtol=1e-4)
""",
    )


def test_a_student_learns_what_its_teacher_says(tmp_path: Path) -> None:
    """A teacher that calls everything fear: with no word of the labels, so does its student, which began elsewhere."""
    _on_torch(
        f"""
import dataclasses
from pathlib import Path
import numpy as np
import pytest
from edge.errors import BadDataError
from training_made import rows, write_csv
from training import data
from training.config import TrainConfig
from training.evaluate import load_keras, open_model
from training.train import train

folder = Path({str(tmp_path)!r})
config = TrainConfig(epochs=1, batch_size=28, width=4, learning_rate=0.05, warmup_epochs=0, ema_momentum=0)
dataset = data.read_csv(write_csv(folder / "f.csv", rows(140, 14)))
train(dataset, config, folder / "teacher")
teacher = load_keras(folder / "teacher" / "model.keras")
kernel, bias = teacher.get_layer("logits").get_weights()
teacher.get_layer("logits").set_weights([kernel * 0, np.eye(7)[2] * 6])
teacher.save(folder / "teacher" / "model.keras")
taught = dataclasses.replace(config, epochs=6, teachers=str(folder / "teacher"), teacher_share=1.0)
run = train(dataset, taught, folder / "student")
assert run.history[-1]["accuracy"] > 0.9, run.history  # the share of answers that are the target's
assert run.history[-1]["loss"] < run.history[0]["loss"]
# And a run that starts from another one begins with its network.
started = dataclasses.replace(config, start=str(folder / "teacher"), learning_rate=1e-9)
run = train(dataset, started, folder / "started")
assert abs(run.deployed.get_layer("logits").get_weights()[0]).max() < 1e-6
with pytest.raises(BadDataError, match="teacher: that run did not withhold the rows that this one is judged on"):
    train(dataset, dataclasses.replace(taught, validation_seed=2), folder / "cheat")
""",
    )


def test_the_shipped_network_can_teach(tmp_path: Path) -> None:
    """Read back from its float32 file, it says what the file says; other files are refused in a sentence."""
    _on_torch(
        f"""
from pathlib import Path
import numpy as np
import pytest
import torch
from edge.errors import BadDataError, InputNotFoundError
from training.evaluate import open_model
from training.torch_loop import load_teacher

models, folder = Path("../edge/models"), Path({str(tmp_path)!r})
faces = np.random.default_rng(0).uniform(0, 255, (8, 6, 6)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
views = torch.from_numpy(faces[:, None].astype(np.float32))
teacher = load_teacher(models / "float32.tflite")
found = torch.softmax((teacher(views) + teacher(views.flip(3))) / 2, dim=1)
np.testing.assert_allclose(found, open_model(models / "float32.tflite")(faces), atol=1e-5)
with pytest.raises(BadDataError, match="int8.tflite: is quantized; give the float32 file"):
    load_teacher(models / "int8.tflite")
(folder / "bad.tflite").write_bytes(b"no network")
with pytest.raises(BadDataError, match="bad.tflite: not a TFLite file"):
    load_teacher(folder / "bad.tflite")
with pytest.raises(InputNotFoundError, match="none.tflite: no such file"):
    load_teacher(folder / "none.tflite")
""",
    )


def test_training_can_go_on_from_the_shipped_network() -> None:
    """With batch normalizations again, in use and in training, it says what its float32 file says."""
    _on_torch(
        """
from pathlib import Path
import numpy as np
import torch
from training import train
from training.model import build_model
from training.shipped import load_shipped
from training.torch_network import TorchNetwork

faces = np.random.default_rng(0).uniform(0, 255, (64, 6, 6)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
views = torch.from_numpy(faces[:, None].astype(np.float32))
path, model = Path("../edge/models/float32.tflite"), build_model(32, 0.0)
train._start_from([str(path)], model, faces, on_torch=True)
network = TorchNetwork(32, 0.0).take(model)
with torch.no_grad():
    wanted = torch.softmax(load_shipped(path)(views), dim=1)
    np.testing.assert_allclose(torch.softmax(network.eval()(views), dim=1), wanted, atol=1e-4)
    np.testing.assert_allclose(torch.softmax(network.train()(views), dim=1), wanted, atol=1e-2)
""",
    )


def test_compiling_without_a_compiler_is_one_line(tmp_path: Path) -> None:
    _on_torch(
        f"""
import os
import pytest
from edge.errors import ConfigError
from training.config import TrainConfig
from training.model import build_model
from training.torch_loop import TorchLearner

os.environ["PATH"] = {str(tmp_path)!r}
with pytest.raises(ConfigError, match="compiled: needs a C[+][+] compiler, and there is no g[+][+]; install g[+][+]"):
    TorchLearner(TrainConfig(width=32, compiled=True), build_model(32), 10)
""",
    )


def test_a_compiled_step_is_the_step() -> None:
    _on_torch(
        """
import dataclasses
import numpy as np
from training.config import TrainConfig
from training.model import build_model
from training.torch_loop import TorchLearner

plain = TrainConfig(width=32, dropout=0.0, precision="float32", warmup_epochs=0)
random = np.random.default_rng(0)
pixels = random.uniform(0, 255, (8, 48, 48, 1)).astype("float32")
targets = np.eye(7, dtype="float32")[np.arange(8) % 7]
after = []
for config in (plain, dataclasses.replace(plain, compiled=True)):
    learner = TorchLearner(config, build_model(32, 0.0, seed=1), 10)
    losses = [learner.learn(pixels, targets)[0] for _ in range(3)]
    after.append([*learner.weights(), np.array(losses)])
for mine, other in zip(*after, strict=True):
    np.testing.assert_allclose(mine, other, atol=1e-3)
""",
    )
