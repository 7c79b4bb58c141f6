"""A window with the faces of a camera or a file as they are read, and a picker of cameras."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge import clip
from edge.app import build_pipeline, build_search, build_source
from edge.camera import V4L_LIMIT
from edge.classifier import TfliteClassifier
from edge.config import Config
from edge.draw import caption, draw, shrunk_by
from edge.errors import ConfigError, EndOfStream, ServiceUnavailableError, pip
from edge.output import write_picture
from edge.pipeline import FrameSource, Pipeline, Sight
from edge.preprocess import usable

WINDOW = "emotiond"
HELP = ("q  quit", "space  pause", "s  save a still", "b  bars", "f  full screen", "h  help")
TAKE_TIMEOUT_S = 0.03  # how soon a key is seen while no frames come
NOTE_S = 2.0
STILL_LOOKS, STILL_S = 5, 60.0  # at a single picture, and between them: longer than an emotion must lead to be named
TILE, TILES_A_ROW, CHOICES_MAX = (320, 240), 3, 9
ESCAPE, NO_KEY = 27, -1


@dataclass(slots=True)
class Choice:
    """One tile of the picker."""

    source: int | str
    name: str
    picture: npt.NDArray[np.uint8]


@dataclass(slots=True)
class View:
    """What keys have changed."""

    stills: Path
    paused: bool = False
    bars: bool = True
    full_screen: bool = False
    help: bool = False
    quit: bool = False
    note: str = ""
    note_until: float = 0.0
    frame_times: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    def say(self, note: str) -> None:
        """Show a note for a while, and on standard output."""
        self.note, self.note_until = note, time.monotonic() + NOTE_S
        print(note, flush=True)  # noqa: T201

    @property
    def fps(self) -> float:
        """Frames a second over the last ones shown."""
        times = self.frame_times
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0


def run(config: Config, source_given: bool, stills: Path) -> None:
    """Show `config.camera.source`, or what is picked if nobody named one, until the window is closed.

    Stills are saved into the folder `stills`. Raises ConfigError and ServiceUnavailableError where there is no window
    to be had, and as the sources do.
    """
    check_display()
    flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
    cv2.namedWindow(WINDOW, flags)
    camera = config.camera
    try:
        if not source_given:
            choice = pick(find_choices())
            if choice is None:
                return
            camera = camera.model_copy(update={"source": choice.source})
        if camera.realtime is None:
            camera = camera.model_copy(update={"realtime": True})  # people look at a file as fast as it happened
        config = config.model_copy(update={"camera": camera})
        classifier = TfliteClassifier.from_config(config.model)
        with build_search(config) as search, build_source(camera) as source:
            _show(build_pipeline(config, search, classifier), source, View(stills))
    finally:
        cv2.destroyAllWindows()


def check_display() -> None:
    """Say what is missing for a window. Qt ends the process that cannot reach a display, so a child tries it."""
    code = "import cv2; cv2.namedWindow('a try')"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if child.returncode == 0:
        return
    if "not implemented" in child.stderr:
        raise ConfigError(
            f"this OpenCV has no windows: {pip('uninstall', 'opencv-python-headless')}, then the same with install "
            "opencv-python"
        )
    display = os.environ.get("DISPLAY")
    problem = (
        f"the display {display} cannot be reached" if display else "this machine has no display (DISPLAY is not set)"
    )
    raise ServiceUnavailableError(f"{problem}; emotiond watch and emotiond web show events without one")


def find_choices() -> list[Choice]:
    """The webcams that give a picture, and the built-in clip."""
    os.environ[V4L_LIMIT] = "2"
    choices: list[Choice] = []
    for device in sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name)):
        capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
        picture = usable(capture.read()[1]) if capture.isOpened() else None
        capture.release()
        if picture is not None and len(choices) < CHOICES_MAX - 1:
            choices.append(Choice(str(device), f"{device} {picture.shape[1]}x{picture.shape[0]}", picture))
    portrait = next(image for at_s, image in clip.frames() if at_s >= clip.ENTER_S)
    return [*choices, Choice("builtin", "the built-in clip" if choices else "no camera; the built-in clip", portrait)]


def pick(choices: Sequence[Choice]) -> Choice | None:
    """Let someone choose by number or click; None if they would rather not."""
    clicked: list[int] = []

    def on_mouse(event: int, x: int, y: int, flags: int, data: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            clicked.append(y // TILE[1] * TILES_A_ROW + x // TILE[0])

    sheet = contact_sheet(choices)
    cv2.resizeWindow(WINDOW, sheet.shape[1], sheet.shape[0])
    cv2.imshow(WINDOW, sheet)
    cv2.setMouseCallback(WINDOW, on_mouse)
    try:
        while True:
            key = cv2.waitKey(30)
            number = clicked.pop() if clicked else 0 if key in (10, 13) else (key & 0xFF) - ord("1")
            if key != NO_KEY or number >= 0:
                if key & 0xFF in (ESCAPE, ord("q")):
                    return None
                if 0 <= number < len(choices):
                    return choices[number]
            if _closed():
                return None
    finally:
        if not _closed():
            cv2.setMouseCallback(WINDOW, lambda *_: None)


def contact_sheet(choices: Sequence[Choice]) -> npt.NDArray[np.uint8]:
    """The choices as numbered tiles, in rows of three: a (240 x rows, 320 x columns, 3) BGR picture."""
    rows = -(-len(choices) // TILES_A_ROW)
    sheet = np.zeros((rows * TILE[1], min(len(choices), TILES_A_ROW) * TILE[0], 3), np.uint8)
    for index, choice in enumerate(choices):
        colour = choice.picture if choice.picture.ndim == 3 else cv2.cvtColor(choice.picture, cv2.COLOR_GRAY2BGR)
        lines = [f"{index + 1}  {choice.name}", f"press {index + 1}, or click"]
        tile = caption(np.asarray(cv2.resize(colour, TILE), np.uint8), lines)
        top, left = index // TILES_A_ROW * TILE[1], index % TILES_A_ROW * TILE[0]
        sheet[top : top + TILE[1], left : left + TILE[0]] = tile
    return sheet


def _show(pipeline: Pipeline, source: FrameSource, view: View) -> None:
    sight: Sight | None = None
    while not view.quit:
        frame = None
        if view.paused:
            time.sleep(TAKE_TIMEOUT_S)
        else:
            try:
                frame = source.take(TAKE_TIMEOUT_S)
            except EndOfStream:
                if len(view.frame_times) != 1 or sight is None:
                    return
                view.paused = True  # a picture stays until somebody has seen it
                for _ in range(STILL_LOOKS):
                    sight = pipeline.step(replace(sight.frame, media_time=sight.frame.media_time + STILL_S))
        if frame is not None:
            first, sight = sight is None, pipeline.step(frame)
            if first:
                cv2.resizeWindow(WINDOW, *(max(1, round(side / shrunk_by(frame.size))) for side in frame.size))
        if sight is not None:
            picture = draw(sight.frame.image, sight.readings, view.bars)
            status = "" if source.online else "the camera gives no frames"
            if frame is not None:
                view.frame_times.append(time.monotonic())
            cv2.imshow(WINDOW, _with_notes(picture, sight, view, status))
            _obey(cv2.waitKey(1), view, picture)
        else:
            _obey(cv2.waitKey(1), view, None)
        if _closed():
            return


def _with_notes(picture: npt.NDArray[np.uint8], sight: Sight, view: View, status: str) -> npt.NDArray[np.uint8]:
    latency_ms = (time.monotonic() - sight.frame.captured_at) * 1000
    lines = ["paused" if view.paused else f"{view.fps:.1f} frames/s, {latency_ms:.0f} ms"]
    if status and not view.paused:
        lines = [status]
    if time.monotonic() < view.note_until:
        lines.append(view.note)
    lines += HELP if view.help else ["h  help"] if len(view.frame_times) < 30 else []
    return caption(picture, lines)


def _obey(key: int, view: View, picture: npt.NDArray[np.uint8] | None) -> None:
    match chr(key & 0xFF) if key != NO_KEY else "":
        case "q" | "\x1b":
            view.quit = True
        case " ":
            view.paused = not view.paused
        case "b":
            view.bars = not view.bars
        case "h":
            view.help = not view.help
        case "f":
            view.full_screen = not view.full_screen
            mode = cv2.WINDOW_FULLSCREEN if view.full_screen else cv2.WINDOW_NORMAL
            cv2.setWindowProperty(WINDOW, cv2.WND_PROP_FULLSCREEN, mode)
        case "s" if picture is not None:
            _save(picture, view)


def _save(picture: npt.NDArray[np.uint8], view: View) -> None:
    path = view.stills / f"emotiond-{datetime.now():%Y%m%d-%H%M%S-%f}.png"
    try:
        write_picture(path, picture)
    except OSError as error:
        view.say(f"not saved: {path}: {error.strerror}")
    else:
        view.say(f"saved {path}")


def _closed() -> bool:
    try:
        return cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) < 1
    except cv2.error:  # some backends forget a closed window
        return True
