"""Every setting of a training run, with its default and its reason. A run's folder keeps the settings it ran with."""

import dataclasses
import difflib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from edge.errors import ConfigError, InputNotFoundError

Optimizer = Literal["sgd", "adamw"]
Balance = Literal["none", "oversample", "weights"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
VotesAs = Literal["seen", "labelled"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run. Rates are per image, sizes in pixels of the 48x48 crop, angles in degrees."""

    seed: int = 1
    epochs: int = 72
    batch_size: int = 128
    validation_share: float = 0.05
    """Of the Training rows, stratified by emotion."""
    validation_seed: int = 1
    """Which rows these are. Apart from `seed`, so that a teacher withheld the rows that its student is judged on."""

    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    """The peak. AdamW wants about 0.002."""
    rate_floor: float = 0.0
    """Share of the peak at which the cosine ends. Above zero for short runs from a trained network, whose weights are
    averaged with others' afterwards (`start`)."""
    momentum: float = 0.9
    warmup_epochs: float = 2.0
    weight_decay: float = 5e-4
    """In the L2 sense of SGD papers; `train.build_optimizer` turns it into Keras's decoupled decay."""
    sharpness: float = 0.0
    """Radius of sharpness-aware minimization (Foret et al. 2021, arXiv:2010.01412); 0 is off. Torch only.
    With 0.1 and other changes beside it, the shipped network gained nothing (experiments.md)."""
    ema_momentum: float = 0.999
    """Per step, of the averaged weights that are saved. 0 saves the last weights as they are."""
    patience: int = 0
    """Epochs without a lower validation loss before the run stops; 0 never stops early."""
    precision: Precision = "auto"
    """auto: mixed_bfloat16 on torch (1.4x there on a CPU with AMX), float32 elsewhere."""
    compiled: bool = False
    """Let torch fuse the network's steps: 1.3x on a CPU, after a minute of compiling. Torch only; needs g++."""
    start: str = ""
    """Run folders, or on torch float32 TFLite files, comma-separated, whose networks' mean weights to start from,
    instead of random ones. The mean is for networks that began from one trained network."""
    teachers: str = ""
    """Run folders or float32 TFLite files, comma-separated, whose scores for the same augmented picture join the
    target. Torch only."""
    teacher_share: float = 0.6
    """Of the target, when there are teachers; labels and votes are the rest."""

    tensorboard: bool = False
    """Write TensorBoard logs beside history.csv; needs tensorboard installed, and but for torch tensorflow."""

    label_share: float = 0.7
    """Of the target; FER+ votes are the rest. FER2013's labels are about 11 % wrong, the votes are softer."""
    votes_as: VotesAs = "seen"
    """seen: the taggers' shares. labelled: how FER2013 labels faces that got such votes, which is not the same: it says
    "sad" or "fear" of many that the taggers call neutral."""
    doubt: float = 0.5
    """Share of a label's weight that goes to the votes when none of FER+'s taggers saw that emotion."""
    label_smoothing: float = 0.05
    calibration_share: float = 0.8
    """Of FER2013's labels, the rest being votes, in what sets how often each emotion is named; 1 names "neutral" less
    and the others more, as the labels do, at the cost of agreement with FER+'s majorities."""
    balance: Balance = "none"
    """oversample: rare emotions drawn more often. weights: their loss counts more."""
    balance_strength: float = 0.5
    """0 leaves the classes as they are, 1 makes them equal; between, powers of the class frequency."""

    width: int = 32
    """Channels of the first stage; the others are multiples."""
    dropout: float = 0.1
    mirror: bool = True
    """The finished network looks at the mirror image too. Not for pictures in which left and right mean something."""

    flip: float = 0.5
    shift: float = 0.06
    """Of the side, each way."""
    rotation: float = 10.0
    zoom: float = 0.1
    shear: float = 0.05
    jitter: float = 0.03
    """Detector jitter: standard deviation of a Haar box's corner and side, of the side."""
    contrast: float = 0.25
    brightness: float = 20.0
    """Grey levels."""
    damage: float = 0.12
    """Share of images that a poor camera spoils: few pixels, blur, JPEG, or a dark and noisy sensor."""
    erasing: float = 0.15
    """Share of images that lose a rectangle."""
    mixup_alpha: float = 0.2
    """Of the Beta distribution; 0 is off. On to the last epoch: without it the end learns label noise."""
    mixup_share: float = 0.5
    """Of the batches."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, not {getattr(self, name)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: must lie between 0 and 1, not {getattr(self, name)}")
        for name in _BELOW_ONE:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 0 and below 1, not {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, as {getattr(self, name)} is")
        if self.seed > SEED_MAX:
            raise ConfigError(f"seed: must be below {SEED_MAX + 1}, not {self.seed}")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate: must be above 0, not {self.learning_rate}")
        if self.width > WIDTH_MAX:
            raise ConfigError(f"width: must be at most {WIDTH_MAX}, not {self.width}")
        if self.compiled and self.width < COMPILED_WIDTH_MIN:
            raise ConfigError(
                f"compiled: takes a width of {COMPILED_WIDTH_MIN} or more; torch's compiler may crash on less"
            )
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"validation_share: must lie between 0 and 1, both excluded, not {self.validation_share}")

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


COMPILED_WIDTH_MIN = 32  # torch 2.13 corrupted its heap at widths of 4, 8 and 16
WIDTH_MAX = 512  # 280 M parameters
SHOWN_MAX = 80  # characters of a wrong value
SEED_MAX = 2**32 - 1  # Keras takes no larger one
_SHARES = ("label_share", "label_smoothing", "balance_strength", "flip", "erasing", "mixup_share", "contrast")
_SHARES += ("doubt", "damage", "teacher_share", "calibration_share", "rate_floor")
_BELOW_ONE = ("dropout", "ema_momentum", "momentum", "shift", "zoom")
_NOT_NEGATIVE = ("seed", "patience", "warmup_epochs", "weight_decay", "rotation", "shear", "jitter", "brightness")
_NOT_NEGATIVE += ("mixup_alpha", "validation_seed", "sharpness")


def names(text: str) -> list[str]:
    """The parts of a comma-separated setting."""
    return [part.strip() for part in text.split(",") if part.strip()]


def load(path: Path) -> TrainConfig:
    """Read settings from YAML or JSON. Raises InputNotFoundError or ConfigError, which names the file and the key."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # a ValueError is of what is not UTF-8, or of a 13th month
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings to values")
    try:
        return override(TrainConfig(), values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def override(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """A copy with some settings changed; strings are read as YAML scalars, but where the setting is a text itself.

    Raises ConfigError, naming the key.
    """
    hints = get_type_hints(TrainConfig)
    changes = {}
    for name, value in values.items():
        if name not in hints:
            nearest = difflib.get_close_matches(str(name), hints, n=1)
            hint = f", did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(hints)}"
            raise ConfigError(f"{name}: unknown setting{hint}")
        try:
            value = yaml.safe_load(value) if isinstance(value, str) and hints[name] is not str else value
        except (yaml.YAMLError, ValueError):  # a ValueError is of a date that is none
            raise ConfigError(f"{name}: cannot be read as a value: {value}") from None
        changes[name] = _typed(name, hints[name], value)
    return dataclasses.replace(config, **changes)


def _typed(name: str, hint: Any, value: Any) -> Any:
    if choices := get_args(hint):
        if value not in choices:
            raise ConfigError(f"{name}: must be one of {', '.join(choices)}, not {value!r}")
        return value
    if hint is str:
        if not isinstance(value, str | None):  # YAML has read it: what was typed, 007 say, is lost
            raise ConfigError(f"{name}: must be a text, in quotes, not {value!r}")
        return value or ""
    if hint is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: must be true or false, not {value!r}")
        return value
    # YAML 1.1 reads 5e-4 as a string, because it has no dot.
    try:
        number = hint(value)
        whole = number == float(value)  # which an endless row of digits is beyond
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or isinstance(value, bool) or (hint is int and not whole):
        given = repr(value) if len(repr(value)) <= SHOWN_MAX else f"one of {len(repr(value))} characters"
        raise ConfigError(f"{name}: must be {'a whole number' if hint is int else 'a number'}, not {given}")
    if not math.isfinite(number):
        raise ConfigError(f"{name}: must be a finite number, not {value!r}")
    return number
