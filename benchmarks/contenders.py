"""What takes part, as it runs in a process of its own (`benchmarks.worker`).

Each function builds one contender; returns what it has to say about itself, and the function that takes its turn.
"""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import faces
from benchmarks.measure import interleaved, machine
from edge import golden
from edge.classifier import TfliteClassifier, installed_runtimes, shipped_model
from edge.errors import EmotiondError, pip
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE, crop_face
from edge.records import Box

Turn = Callable[..., Any]
NAIVE_SCALE, NAIVE_NEIGHBORS = 1.3, 5  # what tutorials write
READER_WARM_UP_FRAMES = 10


def network(model: str) -> Path:
    """The shipped `int8` or `float32` file."""
    return shipped_model().with_name(f"{model}.tflite")


def tflite(threads: Sequence[int], runs: int, warm_up: int) -> tuple[dict[str, Any], Turn]:
    """Every runtime that is installed here, int8 and float32, with each number of threads: one face a call."""
    contenders: dict[str, TfliteClassifier] = {}
    for runtime in installed_runtimes():
        for count in threads:
            for model in ("int8", "float32"):
                contenders[f"{runtime}|{model}|{count}"] = checked(network(model), runtime, count)
        check_agreement(contenders[f"{runtime}|int8|1"], contenders[f"{runtime}|float32|1"], faces.FACES)
    calls = {name: partial(classifier.classify, faces.FACES[:1]) for name, classifier in contenders.items()}
    if not calls:
        raise EmotiondError(f"no TFLite runtime is installed: {pip('install', 'ai-edge-litert')}")
    interleaved(calls, 1, 1, warm_up)
    return {"machine": machine()}, partial(_time, calls, runs)


def _time(calls: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    return {name: times.tolist() for name, times in interleaved(calls, 1, runs, 0).items()}


def checked(path: Path, runtime: str, threads: int) -> TfliteClassifier:
    """A shipped network that gives the golden scores here: a fast wrong answer is no result."""
    classifier = TfliteClassifier(path, runtime, threads)
    deviation, allowed = golden.deviation(classifier, path.with_name("golden.npz"), path.stem)
    if not deviation <= allowed:
        raise EmotiondError(
            f"{path.name} on {runtime}: off the golden scores by {deviation:.3f}, at most {allowed:.3f}"
        )
    return classifier


def check_agreement(int8: TfliteClassifier, float32: TfliteClassifier, crops: Sequence[np.ndarray]) -> None:
    """Raises EmotiondError unless both networks see the same emotion in nearly all pictures."""
    pairs = zip(int8.classify(crops), float32.classify(crops), strict=True)
    agreement = float(np.mean([a.top[0] == b.top[0] for a, b in pairs]))
    if agreement < faces.AGREEMENT_MIN:
        raise EmotiondError(f"{int8.path} and {float32.path} agree on {agreement:.0%} of faces only: not one network")


def keras(threads: int, runs: int, warm_up: int) -> tuple[dict[str, Any], Turn]:
    """The float32 network in Keras: `predict` on one face, as tutorials do, and the compiled function alone."""
    from benchmarks import keras_twin

    model, backend = keras_twin.load(network("float32"), threads)
    one = faces.FACES[0].reshape(1, FACE_SIZE, FACE_SIZE, 1).astype(np.float32)
    _check_twin(model)
    calls = {
        f"keras-{backend} predict|float32|{threads}": lambda: model.predict(one, verbose=0),
        f"keras-{backend} compiled|float32|{threads}": lambda: model.predict_on_batch(one),
    }
    interleaved(calls, 1, 1, warm_up)
    return {"backend": backend}, partial(_time, calls, runs)


def _check_twin(model: Any) -> None:
    from benchmarks.keras_twin import DIFFERENCE_MAX

    batch = np.stack(faces.FACES)[..., None].astype(np.float32)
    expected = np.stack([scores.values for scores in TfliteClassifier(network("float32")).classify(faces.FACES)])
    difference = float(np.abs(model.predict(batch, verbose=0) - expected).max())
    if not difference <= DIFFERENCE_MAX:
        raise EmotiondError(f"Keras and TFLite differ by {difference:.4f} on float32.tflite: not one network")


def decode() -> tuple[dict[str, Any], Turn]:
    """The ceiling: a video's frames, read and thrown away."""

    def turn(clip: str, seconds: float) -> dict[str, float]:
        frames, took = 0, 0.0
        while took < seconds:
            began_at = time.perf_counter()
            capture = cv2.VideoCapture(clip, cv2.CAP_FFMPEG)
            while capture.read()[0]:
                frames += 1
            capture.release()
            took += time.perf_counter() - began_at
        return {"frames": frames, "seconds": took}

    return {}, turn


def pipeline(overrides: Sequence[str]) -> tuple[dict[str, Any], Turn]:
    """The daemon's source and pipeline on a file, as fast as they go. Each pass begins knowing nothing."""
    from benchmarks import clips

    def turn(clip: str, seconds: float) -> dict[str, float]:
        config = clips.settings(clip, overrides)
        frames, read, took = 0, 0, 0.0
        while took < seconds:
            with clips.assembled(config) as steps:
                began_at = time.perf_counter()
                for frame in clips.frames(config):
                    read += len(steps.step(frame).readings)
                    frames += 1
                took += time.perf_counter() - began_at
        return {"frames": frames, "seconds": took, "faces": read / max(1, frames)}

    return {}, turn


def naive() -> tuple[dict[str, Any], Turn]:
    """What such projects do: Haar over each whole frame, and Keras's `predict` for every face."""
    from benchmarks import keras_twin

    model, backend = keras_twin.load(network("float32"))
    _check_twin(model)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def look(image: np.ndarray) -> list[str]:
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        seen = []
        for box in cascade.detectMultiScale(grey, NAIVE_SCALE, NAIVE_NEIGHBORS):
            crop = crop_face(grey, Box(*map(int, box)))
            scores = model.predict(crop.reshape(1, FACE_SIZE, FACE_SIZE, 1).astype(np.float32), verbose=0)
            seen.append(EMOTIONS[int(scores.argmax())])
        return seen

    def turn(clip: str, frames_max: int, offset: int) -> dict[str, float]:
        """A frame in so many, over the whole clip; frames passed over are read, and not charged."""
        capture = cv2.VideoCapture(clip, cv2.CAP_FFMPEG)
        stride = max(1, round(capture.get(cv2.CAP_PROP_FRAME_COUNT) / frames_max))
        frames, index, took, read = 0, 0, 0.0, 0
        while True:
            began_at = time.perf_counter()
            found, image = capture.read()
            if not found:
                break
            if index % stride == offset % stride:
                read += len(look(image))
                took += time.perf_counter() - began_at
                frames += 1
            index += 1
        capture.release()
        return {"frames": frames, "seconds": took, "faces": read / max(1, frames)}

    return {"backend": backend}, turn


def reader() -> tuple[dict[str, Any], Turn]:
    """The ceiling on a live stream: its frames, read and thrown away."""

    def turn(url: str, seconds: float) -> dict[str, float]:
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
        for _ in range(READER_WARM_UP_FRAMES):
            capture.read()
        frames, began_at, processor_began_at = 0, time.monotonic(), time.process_time()
        while time.monotonic() - began_at < seconds and capture.read()[0]:
            frames += 1
        cpu_s, took = time.process_time() - processor_began_at, time.monotonic() - began_at
        capture.release()
        return {"frames": frames, "seconds": took, "cpu_s": cpu_s}

    return {}, turn


def video(overrides: Sequence[str], folder: str) -> tuple[dict[str, Any], Turn]:
    """`emotiond video` with its tables, and with an annotated copy too: the whole run, network and encoder started."""
    from benchmarks import clips
    from edge import video as command

    table, copied = Path(folder) / "read.csv", Path(folder) / "read.mp4"

    def turn(clip: str, copy: bool) -> dict[str, Any]:
        config = clips.settings(clip, overrides)
        began_at = time.perf_counter()
        command.run(config, command.Outputs(copied if copy else None, table))
        took = time.perf_counter() - began_at
        capture = cv2.VideoCapture(clip, cv2.CAP_FFMPEG)
        frames = 0
        while capture.grab():
            frames += 1
        return {"frames": frames, "seconds": took, "codec": _codec(copied) if copy else None}

    return {}, turn


def _codec(path: Path) -> str:
    code = int(cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little").decode("latin-1")


def has_keras() -> bool:
    """Whether the contenders that need it can take part."""
    from benchmarks.keras_twin import choose_backend

    return importlib.util.find_spec("keras") is not None and choose_backend() is not None


KINDS: dict[str, Callable[..., tuple[dict[str, Any], Turn]]] = {
    "tflite": tflite,
    "keras": keras,
    "decode": decode,
    "pipeline": pipeline,
    "naive": naive,
    "reader": reader,
    "video": video,
}
