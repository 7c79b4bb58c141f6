"""The network on the device: a TFLite file run by LiteRT or tflite-runtime. The only module that imports a runtime."""

import contextlib
import hashlib
import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.config import ModelConfig
from edge.errors import ConfigError, pip
from edge.givenfile import read_given
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE
from edge.quantization import PIXEL_QUANTIZATION, Quantization, dequantize, pixels_to_int8
from edge.quiet import silent_stderr
from edge.records import Scores

log = logging.getLogger(__name__)

# In order of preference: tflite-runtime runs int8 without XNNPACK, many times slower.
RUNTIMES = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
NETWORK_MAX = 256_000_000  # bytes; the shipped one has 1.6 million
INPUT_SHAPE = (1, FACE_SIZE, FACE_SIZE, 1)
OUTPUT_SHAPE = (1, len(EMOTIONS))
INSTALLED, NETWORK = "current", "int8.tflite"  # link in model.folder to an installed bundle, and its network
PROBABILITY_SLACK = len(EMOTIONS) / 256  # each int8 score is rounded by up to half a step of 1/256; twice that


def shipped_model() -> Path:
    """The int8 network that comes with emotiond."""
    return Path(str(resources.files("edge").joinpath("models/int8.tflite")))


def is_link(place: Path) -> bool:
    """Whether a bundle's link is there. Raises ConfigError for a folder in its place, OSError."""
    if not place.is_symlink() and place.is_dir():
        raise ConfigError(
            f"model.folder: {place}: is a folder and no link, as after a copy that follows links; remove it, and "
            "install the bundle anew"
        )
    return place.is_symlink()


def installed_model(config: ModelConfig) -> Path | None:
    """The network of the installed bundle (`emotiond model install`), if there is one. Raises ConfigError."""
    current = config.folder / INSTALLED if config.folder is not None else None
    try:
        # Resolved, so that a bundle installed meanwhile does not mix with this one.
        return current.resolve() / NETWORK if current is not None and is_link(current) else None
    except OSError as error:
        raise ConfigError(
            f"model.folder: {current}: {error.strerror}; the daemon's user must be able to read it"
        ) from None


def network_of(config: ModelConfig) -> Path:
    """The network that the settings ask for: the file named, the installed bundle's, or what comes with emotiond.

    Raises ConfigError.
    """
    return config.path or installed_model(config) or shipped_model()


class TfliteClassifier:
    """A float32 or fully int8 network of one (1, 48, 48, 1) input, pixels of 0 to 255, and seven probabilities.

    Raises ConfigError, naming the file and what was expected, if `path` is not such a network or no runtime is
    installed. `sha256` is the file's, in hex.
    """

    def __init__(self, path: Path | None = None, runtime: str = "auto", threads: int = 1) -> None:
        self.path = path or shipped_model()
        try:
            content = read_given(self.path, NETWORK_MAX)
        except OSError as error:
            raise ConfigError(f"model.path: {self.path}: cannot be read: {error.strerror}") from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.runtime, module = _load_runtime(runtime)
        self._interpreter = self._build_interpreter(module, content, threads)
        self._input = self._checked(self._interpreter.get_input_details(), "input", INPUT_SHAPE)
        self._output = self._checked(self._interpreter.get_output_details(), "output", OUTPUT_SHAPE)
        self._is_int8 = self._input["dtype"] is np.int8
        if self._input["dtype"] is not self._output["dtype"]:
            raise ConfigError(f"model.path: {self.path}: input and output must have one type, float32 or int8")
        if self._is_int8 and Quantization(*self._input["quantization"]) != PIXEL_QUANTIZATION:
            raise ConfigError(
                f"model.path: {self.path}: int8 input must have scale 1 and zero point -128 (pixel - 128), "
                f"not {self._input['quantization']}; convert it with python -m convert"
            )
        self._output_quantization = Quantization(*self._output["quantization"])
        total = float(self._infer(np.zeros((FACE_SIZE, FACE_SIZE), np.uint8)).sum())
        if not abs(total - 1) < PROBABILITY_SLACK:  # written so that NaN fails
            raise ConfigError(
                f"model.path: {self.path}: must end in a softmax: its scores add up to {total:.3g}, not 1"
            )

    @classmethod
    def from_config(cls, config: ModelConfig) -> "TfliteClassifier":
        """As `config` says."""
        return cls(network_of(config), config.runtime, config.threads)

    def is_current(self) -> bool:
        """Whether the file still holds this network."""
        try:
            return hashlib.sha256(read_given(self.path, NETWORK_MAX)).hexdigest() == self.sha256
        except OSError:
            return False

    @property
    def model_id(self) -> str:
        """What events call this network: the beginning of its file's hash."""
        return self.sha256[:12]

    def classify(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[Scores]:
        """Scores of (48, 48) uint8 faces, in their order."""
        return [Scores(self._infer(crop)) for crop in crops]

    def _infer(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        pixels: npt.NDArray[Any] = pixels_to_int8(crop) if self._is_int8 else crop.astype(np.float32)
        self._interpreter.set_tensor(self._input["index"], pixels.reshape(INPUT_SHAPE))
        self._interpreter.invoke()
        output = self._interpreter.get_tensor(self._output["index"])[0]
        return dequantize(output, self._output_quantization) if self._is_int8 else np.asarray(output, np.float32)

    def _build_interpreter(self, module: Any, content: bytes, threads: int) -> Any:
        if self.runtime == "tflite-runtime" and self.path != shipped_model():
            self._try_in_a_child(module.__name__)
        try:
            with silent_stderr():  # LiteRT tells about its delegate
                interpreter = module.Interpreter(model_content=content, num_threads=threads)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigError(f"model.path: {self.path}: {self.runtime} cannot load it: {problem}") from None
        return interpreter

    def _try_in_a_child(self, module: str) -> None:
        """tflite-runtime does not verify a file: a damaged one may end the process that loads it, now or next time."""
        code = "import sys, importlib as i; i.import_module(sys.argv[1]).Interpreter(sys.argv[2]).allocate_tensors()"
        child = subprocess.run([sys.executable, "-c", code, module, str(self.path)], capture_output=True, check=False)
        if child.returncode:
            raise ConfigError(f"model.path: {self.path}: {self.runtime} cannot load it: cut off, damaged or not TFLite")

    def _checked(self, tensors: list[dict[str, Any]], what: str, shape: tuple[int, ...]) -> dict[str, Any]:
        found = [f"{tuple(map(int, tensor['shape']))} {np.dtype(tensor['dtype']).name}" for tensor in tensors]
        fits = (
            len(tensors) == 1 and tuple(tensors[0]["shape"]) == shape and tensors[0]["dtype"] in (np.float32, np.int8)
        )
        if not fits:
            raise ConfigError(
                f"model.path: {self.path}: {what} must be one tensor {shape} of float32 or int8, not {', '.join(found)}"
            )
        return tensors[0]


def _load_runtime(wanted: str) -> tuple[str, Any]:
    candidates = RUNTIMES if wanted == "auto" else [wanted]
    for name in candidates:
        # An ImportError is a runtime that is not there; tflite-runtime beside numpy 2 ends in others.
        with contextlib.suppress(ImportError, AttributeError, SystemError):
            return name, importlib.import_module(RUNTIMES[name])
    raise ConfigError(
        f"model.runtime: {wanted}: not installed or not usable here; {pip('install', 'ai-edge-litert')}"
        " (on 32-bit ARM, or with numpy 1: tflite-runtime)"
    )


def installed_runtimes() -> Iterator[str]:
    """The runtimes that can be used here, best first."""
    for name in RUNTIMES:
        with contextlib.suppress(ConfigError):
            yield _load_runtime(name)[0]
