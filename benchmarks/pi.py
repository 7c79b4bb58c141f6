"""An estimate, not a measurement: what emotiond would cost on Raspberry Pis, from instructions counted without one.

QEMU runs the daemon's own stages as an arm64 program and counts what they execute (`insn_count.c`, `pi_guest.py`).
How many instructions a core finishes in a cycle is assumed, as a range; see docs/pi.md.
"""

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, stamp
from edge import configfile
from edge.errors import BadDataError, EmotiondError, InputNotFoundError
from edge.pipeline import READ_EARLY

GUEST_PYTHON = "usr/bin/python3.11"
GUEST_PACKAGES = "opt/site"
ESTIMATE = "an estimate from counted instructions and assumed instructions per cycle; measured on no Raspberry Pi"


@dataclass(frozen=True, slots=True)
class Core:
    """What QEMU emulates: decides which kernels LiteRT picks. Features as Linux names them."""

    part: str
    features: str


CORES = {
    "cortex-a72": Core("0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": Core(
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}


@dataclass(frozen=True, slots=True)
class Board:
    """A Raspberry Pi. ipc: instructions a cycle on such code, low, likely and high; assumed."""

    name: str
    core: str
    counted_as: str
    ghz: float
    ipc: tuple[float, float, float]


# Two instructions a cycle at most and in order (A53), three out of order (A72), four out of order (A76). Interpreted
# Python and Haar's scattered reads and branches reach a third to a half of that.
BOARDS = (
    Board("Zero 2 W", "Cortex-A53", "cortex-a72", 1.0, (0.4, 0.65, 0.9)),
    Board("3 B+", "Cortex-A53", "cortex-a72", 1.4, (0.4, 0.65, 0.9)),
    Board("4 B", "Cortex-A72", "cortex-a72", 1.5, (0.8, 1.2, 1.7)),
    Board("5", "Cortex-A76", "cortex-a76", 2.4, (1.4, 2.0, 2.8)),
)
STREAM_FPS = (15.0, 30.0)
COUNTED_FPS = 30.0  # of the frames that the guest counts


def run(root: Path) -> dict[str, Any]:
    """Count under both emulated cores, and estimate; `root` is what `arm64_root.sh` made.

    Raises InputNotFoundError for what is not installed, EmotiondError if the guest fails.
    """
    config = configfile.load(ROOT / "config.yaml")
    interval_s, reads_per_s = config.search.steady_interval_s, config.emotion.reads_per_s
    counts = {core: count(root.resolve(), core) for core in CORES}
    return {
        **stamp(),
        "what": ESTIMATE,
        "picture": counts["cortex-a72"]["picture"],
        "million_instructions": {core: counted["stages"] for core, counted in counts.items()},
        "sweep_interval_s": interval_s,
        "reads_per_s": reads_per_s,
        "boards": [estimate(board, counts[board.counted_as]["stages"], interval_s, reads_per_s) for board in BOARDS],
    }


def readings_a_frame(fps: float, reads_per_s: float) -> float:
    """How often a face is read in each of so many frames a second: in every one, in every second, and so on."""
    return 1 / max(1, math.ceil(READ_EARLY * fps / reads_per_s))


def estimate(
    board: Board, stages: Mapping[str, Mapping[str, float]], interval_s: float, reads_per_s: float
) -> dict[str, Any]:
    """What a board would do, low, likely and high. stages: million instructions by stage, `all` of each.

    One face, known and followed, nobody new; sweeps every `interval_s` at most. `fps`: on one core, with sweeps.
    `fps_naive`: a Haar search (1.3, 5) of every frame and the float32 network.
    """
    million = {name: stage["all"] for name, stage in stages.items()}
    reading, sweep = million["crop"] + million["network int8"], million["sweep"]
    unread = million["decode"] + million["frame, one face"] - reading * readings_a_frame(COUNTED_FPS, reads_per_s)

    def per_frame(fps: float) -> float:
        return unread + reading * readings_a_frame(fps, reads_per_s)

    def fps_at(rate: float) -> float:
        left = max(0.0, rate - sweep / interval_s)  # a core that has no time for anything but sweeps gives no frames
        each_read = left / (unread + reading)
        return each_read if each_read <= reads_per_s else (left - reads_per_s * reading) / unread

    naive = million["naive decode"] + million["naive search"] + million["crop"] + million["network float32"]
    rates = [board.ghz * 1000 * ipc for ipc in board.ipc]  # million instructions a second
    result: dict[str, Any] = {
        "board": board.name,
        "core": f"{board.core} {board.ghz} GHz",
        "ipc_assumed": list(board.ipc),
        "fps": [fps_at(rate) for rate in rates],
        "fps_naive": [rate / naive for rate in rates],
        "sweep_ms": [1000 * sweep / rate for rate in reversed(rates)],
        "frame_ms": [1000 * per_frame(COUNTED_FPS) / rate for rate in reversed(rates)],
        "network_int8_ms": [1000 * million["network int8"] / rate for rate in reversed(rates)],
        "network_float32_ms": [1000 * million["network float32"] / rate for rate in reversed(rates)],
    }
    for fps in STREAM_FPS:
        load = fps * per_frame(fps) + sweep / interval_s
        result[f"core_share_at_{fps:.0f}_fps"] = [load / rate for rate in reversed(rates)]
    return result


def count(root: Path, core: str) -> dict[str, Any]:
    """Million instructions of each stage, once: `all`, `vector` (SIMD and floating point), `memory`."""
    for program in ("qemu-aarch64", "gcc"):
        if shutil.which(program) is None:
            raise InputNotFoundError(f"{program} is not installed: apt-get install qemu-user gcc")
    if not (root / GUEST_PYTHON).is_file():
        raise InputNotFoundError(f"--root: {root}: no arm64 root there; benchmarks/arm64_root.sh makes one")
    # LiteRT and XNNPACK read it, and QEMU would show the host's.
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(_cpuinfo(CORES[core]))
    with tempfile.TemporaryDirectory(prefix="emotiond-pi-") as folder:
        plugin, marks = Path(folder) / "insn_count.so", Path(folder) / "marks"
        source = Path(__file__).with_name("insn_count.c")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", plugin, source], check=True)
        emulate = ["qemu-aarch64", "-cpu", core, "-L", root, "-plugin", f"{plugin},out={marks}", root / GUEST_PYTHON]
        environment = {**os.environ, "PYTHONPATH": f"{root / GUEST_PACKAGES}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*emulate, "-m", "benchmarks.pi_guest", ROOT / "config.yaml"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise EmotiondError(f"the guest ended with {done.returncode}: {said[-1] if said else 'without a word'}")
        told = json.loads(done.stdout.strip().splitlines()[-1])
        stages = by_stage(told["stages"], marks.read_text())
    return {"stages": stages, "picture": {"size": told["size"], "face_px": told["face_px"]}}


def by_stage(stages: list[tuple[str, int]], marks: str) -> dict[str, dict[str, float]]:
    """Million instructions of each stage from the plugin's lines, two for every stage."""
    lines = [[int(word) for word in line.split()] for line in marks.splitlines()]
    if len(lines) != 2 * len(stages):
        raise BadDataError(f"{len(lines)} marks for {len(stages)} stages: two are expected for each")
    result = {}
    for (name, times), before, after in zip(stages, lines[::2], lines[1::2], strict=True):
        counted = [(b - a) / times / 1e6 for a, b in zip(before, after, strict=True)]
        result[name] = dict(zip(("all", "vector", "memory"), counted, strict=True))
    return result


def _cpuinfo(core: Core) -> str:
    one = "\n".join(
        [
            "BogoMIPS\t: 108.00",
            f"Features\t: {core.features}",
            "CPU implementer\t: 0x41",
            "CPU architecture: 8",
            "CPU variant\t: 0x0",
            f"CPU part\t: {core.part}",
            "CPU revision\t: 3",
        ]
    )
    return "\n\n".join(f"processor\t: {number}\n{one}" for number in range(4)) + "\n"
