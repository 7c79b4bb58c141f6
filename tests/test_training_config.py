"""Settings: read back as written, and wrong ones named."""

from pathlib import Path

import pytest

from edge.errors import ConfigError, InputNotFoundError
from training import config
from training.config import TrainConfig


def test_a_runs_settings_read_back(tmp_path: Path) -> None:
    settings = config.override(TrainConfig(), {"epochs": "3", "weight_decay": "1e-4", "balance": "weights"})
    settings.save(tmp_path / "config.json")
    assert config.load(tmp_path / "config.json") == settings
    assert (settings.epochs, settings.weight_decay) == (3, 1e-4)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"epoch": 3}, r"epoch: unknown setting, did you mean epochs\?"),
        ({"xyz": 3}, "xyz: unknown setting; there are seed, epochs, "),
        ({"epochs": "many"}, "epochs: must be a whole number, not 'many'"),
        ({"epochs": 2.5}, "epochs: must be a whole number"),
        ({"epochs": "1" + 400 * "0"}, "epochs: must be a whole number, not one of 401 characters"),
        ({"rotation": "1" + 400 * "0"}, "rotation: must be a number, not one of 401 characters"),
        ({"epochs": 0}, "epochs: must be at least 1"),
        ({"flip": 1.5}, "flip: must lie between 0 and 1"),
        ({"validation_share": 0}, "validation_share: must lie between 0 and 1"),
        ({"optimizer": "adam"}, "optimizer: must be one of sgd, adamw, not 'adam'"),
        ({"tensorboard": 1}, "tensorboard: must be true or false"),
        ({"rotation": True}, "rotation: must be a number"),
        ({"rotation": "nan"}, "rotation: must be a finite number"),
        ({"epochs": ".inf"}, "epochs: must be a whole number"),
        ({"seed": "["}, "seed: cannot be read as a value"),
        ({"seed": -1}, "seed: must not be negative"),
        ({"seed": 5_000_000_000}, "seed: must be below 4294967296"),
        ({"learning_rate": "2020-13-45"}, "learning_rate: cannot be read as a value: 2020-13-45"),
        ({"start": 7}, "start: must be a text, in quotes, not 7"),
        ({"jitter": -1}, "jitter: must not be negative"),
        ({"momentum": 1}, "momentum: must be at least 0 and below 1"),
        ({"learning_rate": -1}, "learning_rate: must be above 0"),
        ({"width": 10**9}, "width: must be at most 512"),
        ({"width": 16, "compiled": True}, "compiled: takes a width of 32 or more"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.override(TrainConfig(), values)


@pytest.mark.parametrize("path", ["runs/my run #2", "007", "null", "[a]", "a: b", ""])
def test_a_path_is_taken_as_it_is_typed(path: str, tmp_path: Path) -> None:
    settings = config.override(TrainConfig(), {"start": path, "teachers": path})
    assert (settings.start, settings.teachers) == (path, path)
    settings.save(tmp_path / "config.json")
    assert config.load(tmp_path / "config.json") == settings


def test_a_file_is_named_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("optimiser: sgd\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: optimiser: unknown setting"):
        config.load(path)
    path.write_text("start:\n")
    assert config.load(path).start == ""
    path.write_text("learning_rate: 2020-13-45\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: not YAML"):
        config.load(path)
    path.write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: not YAML"):
        config.load(path)
    with pytest.raises(InputNotFoundError):
        config.load(tmp_path / "none.yaml")
