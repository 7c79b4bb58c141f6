"""The arithmetic behind the estimate for Raspberry Pis, and the count itself where an arm64 root is at hand."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import pi
from benchmarks_made import run
from conftest import ROOT
from edge.errors import BadDataError

STAGES = {
    "decode": 10.0,
    "naive decode": 20.0,
    "sweep": 100.0,
    "frame, one face": 15.0,
    "naive search": 400.0,
    "crop": 1.0,
    "network int8": 4.0,
    "network float32": 14.0,
}
COUNTED = {name: {"all": millions, "vector": 0.0, "memory": 0.0} for name, millions in STAGES.items()}
BOARD = pi.Board("made", "Cortex-X", "cortex-a72", ghz=1.0, ipc=(0.5, 1.0, 2.0))


def test_frames_a_second_are_what_the_sweeps_leave() -> None:
    result = pi.estimate(BOARD, COUNTED, interval_s=0.5, reads_per_s=10)
    # 1,000 million instructions a second: 200 for sweeps, 50 for readings, 25 a frame with a third of a reading.
    unread = 25 - 5 / 3
    assert result["fps"] == pytest.approx([250 / unread, 750 / unread, 1750 / unread])
    assert result["fps_naive"][1] == pytest.approx(1000 / 435)
    assert result["sweep_ms"] == pytest.approx([50, 100, 200])
    assert result["core_share_at_30_fps"][1] == pytest.approx((30 * 25 + 200) / 1000)
    assert result["core_share_at_15_fps"][1] == pytest.approx((15 * (unread + 5 / 2) + 200) / 1000)
    for low, likely, high in (value for value in result.values() if isinstance(value, list)):
        assert low < likely < high


def test_a_core_that_only_sweeps_gives_no_frames_and_never_less() -> None:
    assert pi.estimate(BOARD, COUNTED, interval_s=0.05, reads_per_s=10)["fps"][0] == 0


def test_a_core_slower_than_the_readings_reads_every_frame() -> None:
    assert pi.estimate(BOARD, COUNTED, interval_s=0.25, reads_per_s=10)["fps"][0] == pytest.approx(100 / (25 + 10 / 3))


@pytest.mark.parametrize(("fps", "readings"), [(5, 1), (10, 1), (15, 1 / 2), (25, 1 / 3), (30, 1 / 3), (60, 1 / 6)])
def test_a_face_is_read_as_often_as_its_frames_allow(fps: float, readings: float) -> None:
    assert pi.readings_a_frame(fps, reads_per_s=10) == pytest.approx(readings)


def test_marks_become_millions_for_each_call() -> None:
    marks = "1000000 0 0\n7000000 3000000 300000\n7000010 3000000 300000\n8000010 3000000 400000\n"
    assert pi.by_stage([("a", 3), ("b", 2)], marks) == {
        "a": pytest.approx({"all": 2.0, "vector": 1.0, "memory": 0.1}),
        "b": pytest.approx({"all": 0.5, "vector": 0.0, "memory": 0.05}),
    }


def test_what_is_counted_runs_here_too() -> None:
    """It goes through all stages, and says itself where it no longer counts what it should."""
    guest = [sys.executable, "-m", "benchmarks.pi_guest", ROOT / "config.yaml"]
    done = subprocess.run(guest, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    stages = {name for name, _ in json.loads(done.stdout.splitlines()[-1])["stages"]}
    assert stages == {*STAGES, "motion", "follow", "frame, nothing moved"}


def test_a_missing_mark_is_an_error_and_not_a_wrong_stage() -> None:
    with pytest.raises(BadDataError, match="3 marks for 2 stages"):
        pi.by_stage([("a", 1), ("b", 1)], "1 1 1\n2 2 2\n3 3 3\n")


def test_every_board_is_counted_as_a_core_that_is_emulated_and_has_a_range() -> None:
    for board in pi.BOARDS:
        assert board.counted_as in pi.CORES
        assert 0 < board.ipc[0] < board.ipc[1] < board.ipc[2] < 4


def test_a_root_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    done = run("pi", "--root", tmp_path, code=66)
    assert done.stderr.count("\n") == 1
    assert "arm64_root.sh makes one" in done.stderr or "is not installed" in done.stderr


def test_the_estimate_is_called_one_everywhere() -> None:
    assert "estimate" in pi.ESTIMATE
    paper = (ROOT / "docs/pi.md").read_text()
    assert paper.splitlines()[0].lower().startswith("# an estimate")


def elf(code: list[int]) -> bytes:
    """A static arm64 program: one segment, code right behind the headers."""
    base, headers = 0x400000, 64 + 56
    size = headers + 4 * len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return ident + head + segment + struct.pack(f"<{len(code)}I", *code)


def test_the_plugin_counts_what_a_program_executes(tmp_path: Path) -> None:
    """A program of known length, in arm64's machine code: marks around 1,000 turns of a loop of four."""
    if not (shutil.which("qemu-aarch64") and shutil.which("gcc")):
        pytest.skip("needs qemu-user and gcc")
    code = [
        *(0xD28015A8, 0xD4000001),  # mov x8, #173; svc #0: getppid
        0xD2807D00,  # mov x0, #1000
        *(0x91000421, 0x1E604020, 0xF1000400, 0x54FFFFA1),  # add x1, x1, #1; fmov d0, d1; subs x0, x0, #1; b.ne
        *(0xD28015A8, 0xD4000001),
        *(0xD2800BA8, 0xD4000001),  # exit
    ]
    program, plugin, out = tmp_path / "loop", tmp_path / "insn_count.so", tmp_path / "out"
    program.write_bytes(elf(code))
    program.chmod(0o755)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-fvisibility=hidden", "-o", plugin, ROOT / "benchmarks/insn_count.c"], check=True
    )
    subprocess.run(["qemu-aarch64", "-plugin", f"{plugin},out={out}", program], check=False)
    first, second = ([int(word) for word in line.split()] for line in out.read_text().splitlines())
    assert second[0] - first[0] == 4 * 1000 + 3
    assert second[1] - first[1] == 1000
