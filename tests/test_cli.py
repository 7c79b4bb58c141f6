"""What the command says where OpenCV, the one package that people must choose, is not there or does not load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT


def emotiond(tmp_path: Path, cv2: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with a module `cv2` of this content found first."""
    (tmp_path / "cv2.py").write_text(cv2)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("cv2", "expected"),
    [
        (
            "raise ModuleNotFoundError(name='cv2')",
            "emotiond: OpenCV is not installed: pip install opencv-python-headless",
        ),
        (
            "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
            "emotiond: libGL.so.1: cannot open shared object file: No such file or directory; without a desktop take "
            "opencv-python-headless instead of opencv-python",
        ),
    ],
)
def test_opencv_that_is_missing_or_does_not_load_is_told(tmp_path: Path, command: str, cv2: str, expected: str) -> None:
    done = emotiond(tmp_path, cv2, command)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_help_and_version_need_nothing(tmp_path: Path) -> None:
    assert emotiond(tmp_path, "raise ImportError", "--help").returncode == 0
    assert emotiond(tmp_path, "raise ImportError", "--version").stdout.startswith("emotiond 0.")
