"""The dashboard's page for a visitor's own camera, in a browser whose camera is the built-in portrait, twice."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge import clip

WARM_UP_S = 5.0


def camera_flags(path: Path) -> list[str]:
    """With which Chromium takes the file for its camera, and asks nobody."""
    asked_for = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    return [*asked_for, f"--use-file-for-fake-video-capture={path}"]


def write_camera(path: Path, pictures: Iterable[np.ndarray]) -> None:
    """A raw video (Y4M) of 640x480 at the built-in clip's rate; shows each of its `pictures` twice, side by side."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W640 H480 F{clip.FPS:.0f}:1 Ip A1:1 C420jpeg\n".encode())
        for image in pictures:
            face = cv2.resize(image[:, 80:560], (320, 320))  # most of the face's way
            scene = np.full((480, 640, 3), 90, np.uint8)
            scene[80:400] = np.hstack([face, face])
            file.write(b"FRAME\n" + cv2.cvtColor(scene, cv2.COLOR_BGR2YUV_I420).tobytes())


def in_view() -> Iterator[np.ndarray]:
    """The built-in clip while somebody is in it, (480, 640, 3) BGR."""
    return (image for at_s, image in clip.frames() if clip.ENTER_S < at_s < clip.LEAVE_S)


def measure(browser: Any, url: str, seconds: float, patience_s: float) -> dict[str, Any]:
    """The page's own figures, of its last 200 pictures; `p95_ms` from a picture's taking until its faces are there."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(patience_s * 1000)
    page.goto(url + "try")
    page.get_by_role("button", name="Start my camera").click()
    page.locator("#try-faces caption").nth(1).wait_for()
    page.wait_for_timeout((WARM_UP_S + seconds) * 1000)
    shown = page.evaluate("() => ({...document.getElementById('try-rate').dataset})")
    faces = page.locator("#try-faces caption").count()
    page.close()
    return {"frames_per_s": float(shown["fps"]), "p95_ms": float(shown["p95"]), "faces": faces}
