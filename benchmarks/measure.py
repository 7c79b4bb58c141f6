"""How times are taken: contenders take turns, so that a noisy machine is noisy for all of them alike."""

import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edge import __version__

ROOT = Path(__file__).parent.parent
CPUCLOCK_SCHED = 2  # kernel: include/linux/posix-timers_types.h; the processor time of a whole process
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
PACKAGES = (
    *("ai-edge-litert", "tflite-runtime", "numpy", "opencv-python", "opencv-python-headless"),
    *("keras", "tensorflow", "torch", "jax"),
)


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
    for name in in_turn(names, rounds):
        call, taken = contenders[name], times[name]
        call()  # brings its weights back into the caches
        for _ in range(runs_per_round):
            began_at = time.perf_counter()
            call()
            taken.append((time.perf_counter() - began_at) * 1000)
    return {name: np.array(taken) for name, taken in times.items()}


def in_turn(names: Sequence[str], rounds: int) -> Iterable[str]:
    """Every name once a round; who begins changes from round to round."""
    for index in range(rounds):
        first = index % len(names)
        yield from (*names[first:], *names[:first])


def percentiles(times_ms: Sequence[float] | np.ndarray) -> dict[str, float]:
    """`p50`, `p95` and `p99`."""
    p50, p95, p99 = np.percentile(np.asarray(times_ms), [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def stamp() -> dict[str, Any]:
    """When, what and where: what a reader must know to judge the figures. Names no host and no path."""
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "version": __version__,
        "commit": _commit(),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """The processor and what runs on it. `load` is the number of processes that wanted to run in the last minute."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else None,
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one shape as text in columns."""
    return aligned([list(rows[0]), *([_text(value) for value in row.values()] for row in rows)])


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each as text in columns."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def processor_s(process: int) -> float:
    """Processor time of all threads of a process until now, in seconds."""
    return time.clock_gettime(((~process) << 3) | CPUCLOCK_SCHED)


def memory_mb(process: int) -> tuple[float, float]:
    """Resident memory of a process now, and at most until now, in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "VmHWM:"))}
    return kib["VmRSS"] * 1024 / 1e6, kib["VmHWM"] * 1024 / 1e6


def free_port() -> int:
    """A port of loopback on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ratio(above: float | None, below: float | None) -> float | None:
    """None where one of them was not measured."""
    return above / below if above is not None and below else None


def _text(value: object) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _commit() -> str | None:
    """The checkout's commit, with a + where files differ from it; None outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return None if head.returncode else head.stdout.strip() + ("+" if changed.returncode else "")


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
