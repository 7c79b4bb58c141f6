"""`emotiond preview`: real key presses in a real window on a virtual screen, and machines that have none."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import ROOT, Daemon, wait_for
from edge.draw import COLOURS
from edge.preview import Choice, contact_sheet

HAS_WINDOWS = "GUI:                           NONE" not in cv2.getBuildInformation()
LONG_S = 120.0  # to start a window and read a frame on a busy machine
SCREEN = (1024, 768)


class Screen:
    """A virtual screen with a keyboard."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        # -displayfd: X takes a free number by itself and tells it. -r: keys do not repeat themselves, as one does
        # that a busy machine holds down for long; h twice shows no help.
        command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{SCREEN[0]}x{SCREEN[1]}x24", "-noreset", "-r"]
        self._child = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
        os.close(writer)
        with os.fdopen(reader) as told:
            self.name = f":{told.readline().strip()}"
        # Full screen is a window manager's to give.
        env = {**os.environ, "DISPLAY": self.name}
        self._manager = subprocess.Popen(["openbox"], env=env, stderr=subprocess.DEVNULL)

    def tool(self, *arguments: str) -> str:
        env = {**os.environ, "DISPLAY": self.name}
        return subprocess.run(["xdotool", *arguments], env=env, capture_output=True, text=True).stdout

    def window(self) -> str:
        """The preview's, once it is there."""
        found: list[str] = []
        wait_for(lambda: found.extend(self.tool("search", "--name", "^emotiond$").split()) or found, "window", LONG_S)
        return found[-1]

    def size(self, window: str) -> tuple[int, ...]:
        return tuple(map(int, self.tool("getwindowgeometry", window).rpartition("Geometry: ")[2].split("x")))

    def press(self, window: str, key: str) -> None:
        """Press and let go of a key, and leave the window time: OpenCV keeps only the last key between two looks."""
        self.tool("windowfocus", window, "key", key)
        time.sleep(0.5)

    def look(self, window: str, path: Path) -> np.ndarray:
        """The part of the screen where the window is."""
        told = self.tool("getwindowgeometry", "--shell", window)
        place = dict(line.split("=") for line in told.split())
        x, y = max(0, int(place["X"])), max(0, int(place["Y"]))
        grab = ["ffmpeg", "-v", "error", "-y", "-f", "x11grab", "-i", self.name, "-frames:v", "1", path]
        subprocess.run(grab, check=True, stdin=subprocess.DEVNULL)
        return cv2.imread(str(path))[y : y + int(place["HEIGHT"]), x : x + int(place["WIDTH"])]

    def close(self) -> None:
        for child in (self._manager, self._child):
            child.kill()
            child.wait()


@pytest.fixture
def screen() -> Iterator[Screen]:
    if not HAS_WINDOWS:
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    for program in ("Xvfb", "openbox", "xdotool", "ffmpeg"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (tests/system_packages.sh installs it)")
    screen = Screen()
    yield screen
    screen.close()


def saved(folder: Path) -> list[Path]:
    """The finished stills, oldest first."""
    return sorted(path for path in folder.glob("*.png") if path.read_bytes().endswith(b"IEND\xaeB`\x82"))


def test_every_key_does_as_it_says(screen: Screen, start: Callable[..., Daemon], tmp_path: Path) -> None:
    stills = tmp_path / "stills"
    stills.mkdir()
    daemon = start("preview", "--stills", str(stills), env={"DISPLAY": screen.name})
    window = screen.window()

    def still() -> np.ndarray:
        before = len(saved(stills))
        screen.press(window, "s")
        wait_for(lambda: len(saved(stills)) > before, "a still was saved")
        return cv2.imread(str(saved(stills)[-1]))

    # The picker: nothing is saved there, and 1 takes the first tile.
    screen.press(window, "s")
    time.sleep(1)
    assert saved(stills) == []
    deadline = time.monotonic() + LONG_S
    while not saved(stills) and time.monotonic() < deadline:
        screen.press(window, "1")
        screen.press(window, "s")
        time.sleep(1)

    def yellow(picture: np.ndarray) -> int:
        return int((picture == COLOURS["happy"]).all(axis=2).sum())

    wait_for(lambda: yellow(still()) > 800, "a happy face with its box", LONG_S)
    screen.press(window, "space")
    time.sleep(1)
    while yellow(paused := still()) < 800:  # a face that is just gone
        screen.press(window, "space")
        time.sleep(1)
        screen.press(window, "space")
        time.sleep(1)
    assert (still() == paused).all()
    screen.press(window, "b")
    wait_for(lambda: yellow(still()) < yellow(paused), "the bars are gone")
    assert (still() == still()).all()

    panel = (slice(60, 130), slice(4, 60))
    without_help = screen.look(window, tmp_path / "screen.png")[panel].astype(int)
    screen.press(window, "h")
    wait_for(
        lambda: np.abs(screen.look(window, tmp_path / "screen.png")[panel] - without_help).mean() > 20,
        "the help is shown",
    )
    assert screen.size(window) != SCREEN
    screen.press(window, "f")
    wait_for(lambda: screen.size(window) == SCREEN, "the window fills the screen")
    screen.press(window, "f")
    wait_for(lambda: screen.size(window) != SCREEN, "the window is small again")
    screen.press(window, "space")
    wait_for(lambda: (still() != paused).any(), "it goes on")

    shutil.rmtree(stills)  # nowhere to save: told, and no reason to end
    screen.press(window, "s")
    time.sleep(1)
    screen.press(window, "q")
    code, out, err = daemon.finish(LONG_S)
    assert (code, err) == (0, "")
    assert out.count("saved ") >= 5
    assert f"not saved: {stills}" in out


def test_the_picker_can_be_left(screen: Screen, start: Callable[..., Daemon]) -> None:
    daemon = start("preview", env={"DISPLAY": screen.name})
    window = screen.window()
    while daemon.process.poll() is None:
        screen.press(window, "Escape")
        time.sleep(0.2)
    assert daemon.finish() == (0, "", "")


def test_a_picture_is_shown_until_a_key_says_otherwise(
    screen: Screen, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    photo = str(ROOT / "edge/assets/portrait.jpg")
    daemon = start("preview", "--source", photo, "--stills", str(tmp_path), env={"DISPLAY": screen.name})
    window = screen.window()

    def press_until(key: str, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + LONG_S
        while not condition() and time.monotonic() < deadline:
            screen.press(window, key)

    press_until("s", lambda: len(saved(tmp_path)) > 1 or daemon.process.poll() is not None)
    still = cv2.imread(str(saved(tmp_path)[-1]))
    assert still.shape == (512, 512, 3)
    assert (still == COLOURS["happy"]).all(axis=2).sum() > 1500  # its box and label too: nothing is to be waited for
    screen.press(window, "space")
    time.sleep(1)
    assert daemon.process.poll() is None
    press_until("q", lambda: daemon.process.poll() is not None)
    code, _, err = daemon.finish(LONG_S)
    assert (code, err) == (0, "")


def test_a_picture_that_is_larger_than_screens_is_seen_whole_with_its_help(
    screen: Screen, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.full((3000, 4000, 3), 90, np.uint8))
    start("preview", "--source", str(photo), env={"DISPLAY": screen.name})
    window = screen.window()
    wait_for(lambda: screen.size(window) == (960, 720), "the window fits on a screen", LONG_S)

    def written() -> np.ndarray:
        """Rows of the corner in which there are letters."""
        corner = screen.look(window, tmp_path / "screen.png")[:300, :120].astype(int)
        return np.flatnonzero((corner.max(axis=(1, 2)) - corner.min(axis=(1, 2))) > 60)

    wait_for(lambda: written().size > 0, "its caption is shown")
    without_help = written().max()
    screen.press(window, "h")
    wait_for(lambda: written().max() > without_help + 5 * 20, "help in letters that can be read")


def test_it_ends_quietly_when_it_is_asked_to(screen: Screen, start: Callable[..., Daemon]) -> None:
    daemon = start("preview", "--source", "builtin", env={"DISPLAY": screen.name})
    screen.window()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.finish(LONG_S) == (130, "", "")


@pytest.mark.skipif(not HAS_WINDOWS, reason="this OpenCV has no windows (opencv-python-headless)")
@pytest.mark.parametrize(
    ("display", "said"),
    [
        ("", "this machine has no display (DISPLAY is not set)"),
        (":4711", "the display :4711 cannot be reached"),
    ],
)
def test_a_machine_without_a_display_is_told(start: Callable[..., Daemon], display: str, said: str) -> None:
    code, out, err = start("preview", env={"DISPLAY": display, "WAYLAND_DISPLAY": ""}).finish()
    assert (code, out) == (69, "")
    assert err == f"emotiond: {said}; emotiond watch and emotiond web show events without one\n"


def test_an_opencv_without_windows_is_told(tmp_path: Path) -> None:
    # What opencv-python-headless does: all of OpenCV but for this.
    (tmp_path / "cv2.py").write_text(
        "import importlib, sys\n"
        "here = sys.path.index(__file__.rpartition('/')[0]); folder = sys.path.pop(here); del sys.modules['cv2']\n"
        "real = importlib.import_module('cv2'); sys.path.insert(here, folder); sys.modules['cv2'] = real\n"
        "def namedWindow(*arguments): raise real.error('The function is not implemented. Rebuild the library')\n"
        "real.namedWindow = namedWindow\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "DISPLAY": ":0"}
    done = subprocess.run([sys.executable, "-m", "edge", "preview"], env=env, capture_output=True, text=True)
    assert done.returncode == 78
    way_out = f"{sys.executable} -m pip uninstall opencv-python-headless, then the same with install opencv-python"
    assert done.stderr == f"emotiond: this OpenCV has no windows: {way_out}\n"


def test_the_picker_shows_every_camera_with_its_number() -> None:
    tiles = [Choice(n, f"camera {n}", np.full((20, 30, 3), 40 * n, np.uint8)) for n in range(4)]
    sheet = contact_sheet([*tiles, Choice(4, "grey", np.full((20, 30), 160, np.uint8))])
    assert sheet.shape == (480, 960, 3)
    assert [int(sheet[y, x, 0]) for y, x in ((200, 160), (200, 480), (200, 800), (440, 160), (440, 480))] == [
        0,
        40,
        80,
        120,
        160,
    ]
