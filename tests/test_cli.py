"""What the command says where OpenCV, the one package that people must choose, is not there or does not load."""

import os
import re
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
            f"emotiond: OpenCV is not installed: {sys.executable} -m pip install opencv-python-headless",
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


def test_every_command_says_in_its_own_help_what_it_does(tmp_path: Path) -> None:
    listed = emotiond(tmp_path, "", "--help").stdout
    commands = re.findall(r"^    ([a-z-]+)\b", listed, re.M)
    assert {"run", "check", "forget", "model", "web"} <= set(commands)
    for command in commands:
        usage, what, *_ = emotiond(tmp_path, "", command, "--help").stdout.split("\n\n")
        assert usage.startswith(f"usage: emotiond {command}")
        assert what.count(".") >= 2, f"{command}: {what}"


def test_help_and_version_need_nothing(tmp_path: Path) -> None:
    assert emotiond(tmp_path, "raise ImportError", "--help").returncode == 0
    assert emotiond(tmp_path, "raise ImportError", "--version").stdout.startswith("emotiond 0.")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupt_while_packages_are_loaded_is_quiet(tmp_path: Path, number: str) -> None:
    # As numpy does: what breaks its parts off is an ImportError to it.
    cv2 = (
        "import os, signal, time\n"
        f"try: os.kill(os.getpid(), signal.{number}); time.sleep(60)\n"
        "except KeyboardInterrupt: raise ImportError('numpy.core.multiarray failed to import') from None\n"
    )
    done = emotiond(tmp_path, cv2, "image", "a.png")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_interrupt_before_the_command_line_is_read_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text(
        "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    )
    done = emotiond(tmp_path, "", "image", "a.png")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("output", ["config.yaml", "mine", "net", "cascade", "link"])
@pytest.mark.parametrize("read", [("image", str(ROOT / "edge/assets/portrait.jpg")), ("video", "builtin")])
def test_the_files_of_the_settings_are_not_written_over(
    start, tmp_path: Path, read: tuple[str, str], output: str
) -> None:
    (tmp_path / "config.yaml").write_text("detector: {cascade: cascade}\n")
    (tmp_path / "mine").write_text("{}\n")
    (tmp_path / "net").write_bytes((ROOT / "edge/models/int8.tflite").read_bytes())
    (tmp_path / "cascade").write_text("<opencv_storage/>\n")
    (tmp_path / "link").symlink_to("config.yaml")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = ["--config", "mine"] if output == "mine" else ["--set", "model.path=net"]
    code, _, err = start(*read, "--output-csv", output, *options, cwd=tmp_path).finish()
    said = f"emotiond: --output-csv: {output} is one of the files that are read; choose another name\n"
    assert (code, err) == (2, said)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
