"""How times are taken: contenders take turns, so that a noisy machine is noisy for all of them alike."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
PACKAGES = ("ai-edge-litert", "tflite-runtime", "numpy", "opencv-python", "opencv-python-headless")


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, runs_per_round: int, warm_up: int
) -> dict[str, np.ndarray]:
    """Call every contender `rounds` times `runs_per_round`; returns each one's times in ms, shape (rounds * runs,).

    The order is turned by one from round to round: who goes first finds colder caches.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for call in contenders.values():
        for _ in range(warm_up):
            call()
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            call, taken = contenders[name], times[name]
            call()  # brings its weights back into the caches
            for _ in range(runs_per_round):
                began_at = time.perf_counter()
                call()
                taken.append((time.perf_counter() - began_at) * 1000)
    return {name: np.array(taken) for name, taken in times.items()}


def machine() -> dict[str, Any]:
    """What a reader must know to judge the figures."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else None,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one shape as text in columns."""
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))), "")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
