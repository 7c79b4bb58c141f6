"""The network alone: the shipped int8 file against its float32 twin, per runtime and number of threads."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import interleaved, machine
from edge.classifier import TfliteClassifier, installed_runtimes, shipped_model
from edge.errors import EmotiondError
from edge.preprocess import FACE_SIZE

ROUNDS, RUNS_PER_ROUND, WARM_UP = 40, 25, 50
AGREEMENT_MIN = 0.9  # of the top emotion on noise, where scores are close; on faces it is 98 % and more (parity.json)


def _faces(count: int) -> list[np.ndarray]:
    """Smooth noise with the contrast of a picture: what a face costs does not depend on what it shows."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, FACE_SIZE // 8, FACE_SIZE // 8), np.uint8)
    return list(coarse.repeat(8, axis=1).repeat(8, axis=2))


FACES = _faces(64)


def run(rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; returns `rows` (runtime, model, threads, median_ms, p95_ms, fps) and `int8_over_float32`.

    The ratio is one of frames per second, one thread, for the runtime that the daemon would take.
    Raises EmotiondError if the two networks disagree: a fast wrong answer is no result.
    """
    contenders: dict[tuple[str, str, int], TfliteClassifier] = {}
    for runtime in installed_runtimes():
        for threads in sorted({1, os.cpu_count() or 1}):
            for model in ("int8", "float32"):
                contenders[runtime, model, threads] = TfliteClassifier(_path(model), runtime, threads)
        check_agreement(contenders[runtime, "int8", 1], contenders[runtime, "float32", 1], FACES)
    calls: dict[str, Callable[[], object]] = {
        "|".join(map(str, key)): partial(classifier.classify, FACES[:1]) for key, classifier in contenders.items()
    }
    rows = []
    for name, times_ms in interleaved(calls, rounds, RUNS_PER_ROUND, WARM_UP).items():
        runtime, model, threads_text = name.split("|")
        median_ms = float(np.median(times_ms))
        rows.append(
            {
                "runtime": runtime,
                "model": model,
                "threads": int(threads_text),
                "median_ms": median_ms,
                "p95_ms": float(np.percentile(times_ms, 95)),
                "fps": 1000 / median_ms,
            }
        )
    return {"machine": machine(), "rows": rows, "int8_over_float32": _ratio(rows)}


def _path(model: str) -> Path:
    return shipped_model().with_name(f"{model}.tflite")


def check_agreement(int8: TfliteClassifier, float32: TfliteClassifier, faces: list[np.ndarray]) -> None:
    """Raises EmotiondError unless both networks see the same emotion in nearly all faces."""
    pairs = zip(int8.classify(faces), float32.classify(faces), strict=True)
    agreement = float(np.mean([a.top[0] == b.top[0] for a, b in pairs]))
    if agreement < AGREEMENT_MIN:
        raise EmotiondError(f"{int8.path} and {float32.path} agree on {agreement:.0%} of faces only: not one network")


def _ratio(rows: list[dict[str, Any]]) -> float:
    fps = {row["model"]: row["fps"] for row in rows if row["runtime"] == rows[0]["runtime"] and row["threads"] == 1}
    return float(fps["int8"] / fps["float32"])
