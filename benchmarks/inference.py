"""The network alone: the shipped int8 file against its float32 twin, per runtime and number of threads."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import has_keras
from benchmarks.measure import in_turn, stamp
from benchmarks.worker import Worker

ROUNDS, RUNS_PER_ROUND, WARM_UP = 40, 25, 50


def run(rounds: int = ROUNDS, pythons: Sequence[Path] = (), keras: bool = True) -> dict[str, Any]:
    """Measure; returns `rows` (runtime, model, threads, median_ms, p95_ms, fps) and `int8_over_float32`.

    pythons: interpreters of other environments, whose runtimes take part too. keras: whether Keras does, if installed.
    The ratio is one of frames per second, one thread, for the runtime that the daemon would take;
    `int8_over_float32_by_runtime` has the others.
    Raises EmotiondError if a network gives other scores than it should.
    """
    counts = sorted({1, os.cpu_count() or 1})
    times: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for python in (None, *pythons):
            options = {"threads": counts, "runs": RUNS_PER_ROUND, "warm_up": WARM_UP}
            workers[str(python)] = stack.enter_context(Worker("tflite", python, **options))
        for count in counts if keras and has_keras() else ():
            options = {"threads": count, "runs": max(1, RUNS_PER_ROUND // 5), "warm_up": 5}  # many times dearer
            workers[f"keras {count}"] = stack.enter_context(Worker("keras", **options))
        for name in in_turn(list(workers), rounds):
            for key, taken in workers[name].turn().items():
                times.setdefault((name, key), []).extend(taken)
        environments = [workers[str(python)].about["machine"] for python in pythons]
    first: dict[str, list[float]] = {}
    for worker in workers:  # two environments may hold one runtime: the first speaks for it
        for (measured_by, key), taken in times.items():
            if measured_by == worker:
                first.setdefault(key, taken)
    rows = [_row(key, np.array(taken)) for key, taken in first.items()]
    ratios = _ratios(rows)
    return {
        **stamp(),
        "other_environments": [{k: m[k] for k in ("python", "packages")} for m in environments],
        "rows": rows,
        "int8_over_float32": ratios[rows[0]["runtime"]],
        "int8_over_float32_by_runtime": ratios,
    }


def _row(key: str, times_ms: np.ndarray) -> dict[str, Any]:
    runtime, model, threads = key.split("|")
    median_ms = float(np.median(times_ms))
    return {
        "runtime": runtime,
        "model": model,
        "threads": int(threads),
        "median_ms": median_ms,
        "p95_ms": float(np.percentile(times_ms, 95)),
        "fps": 1000 / median_ms,
    }


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """int8 over float32 on one thread, for every runtime that has both."""
    fps = {(row["runtime"], row["model"]): row["fps"] for row in rows if row["threads"] == 1}
    return {runtime: fps[runtime, "int8"] / fps[runtime, "float32"] for runtime, model in fps if model == "int8"}
