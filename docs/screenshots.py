"""Makes the pictures of the papers from real runs on the built-in clip.

    PYTHONPATH=. python docs/screenshots.py [working] [timeline] [dashboard] [tryit]       without names: all

`dashboard` and `tryit` take the extras `web` and `dev`, and Debian's chromium.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.visitor import camera_flags, write_camera
from edge import clip
from edge.app import build_pipeline, build_search, build_source
from edge.classifier import TfliteClassifier
from edge.config import CameraConfig, Config
from edge.draw import draw

HERE = Path(__file__).parent
STILL_S = 4.2
MOMENTS_S = (1.6, 4.2, 8.0)
HISTORY_S = 100.0  # of the dashboard, so that there is something to see
SETTLE_S = 8.0  # until frames/s are those of a page that has run for a while
BROWSER_S = 300.0  # to start one on a busy machine


def working() -> None:
    """The clip as the daemon reads it, at three moments."""
    config = Config(device="demo", camera=CameraConfig(realtime=False, loop=False))
    pictures: list[np.ndarray] = []
    with build_search(config) as search, build_source(config.camera) as source:
        pipeline = build_pipeline(config, search, TfliteClassifier.from_config(config.model))
        while len(pictures) < len(MOMENTS_S):
            frame = source.take(1.0)
            sight = pipeline.step(frame)
            if frame.media_time >= MOMENTS_S[len(pictures)]:
                pictures.append(draw(frame.image, sight.readings))
    strip = cv2.resize(np.hstack(pictures), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(HERE / "working.png"), strip, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def timeline() -> None:
    """What `emotiond video` makes of the clip."""
    command = [sys.executable, "-m", "edge", "video", "builtin", "--output-timeline", str(HERE / "timeline.png")]
    subprocess.run(command, check=True)


def dashboard() -> None:
    """What a browser shows while a daemon runs, and another has ended."""
    broker_port = _free_port()
    mqtt = ["--set", f"mqtt.port={broker_port}"]
    device = ["--set", "device=lab-pi", "--set", "camera.name=front", "--set", "mqtt.stats_interval_s=5"]
    device += ["--set", "mqtt.snapshots=true", "--set", "mqtt.snapshot_width=320"]
    loopback = ["--set", "mqtt.broker=127.0.0.1"]
    with ExitStack() as stack:
        _start(stack, "run", *mqtt, *device)
        page = _page(stack, "", *mqtt, *loopback)
        page.locator("button.camera").wait_for()
        _start(stack, "run", "--max-frames", "20", *mqtt, *loopback, "--set", "device=hall-pi").wait()
        page.get_by_role("button", name="lab-pi / front").click()
        page.get_by_label("happy of face").first.wait_for()
        time.sleep(HISTORY_S)
        page.get_by_role("switch", name="Live picture").click()
        page.locator("img.picture").wait_for()
        page.locator("caption", has_text="happy").wait_for()
        page.screenshot(path=str(HERE / "dashboard.png"), full_page=True)


def tryit() -> None:
    """The page for visitors; before their camera is the portrait, twice."""
    with ExitStack() as stack:
        camera = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "camera.y4m"
        still = next(image for at_s, image in clip.frames() if at_s >= STILL_S)
        write_camera(camera, [still, still])
        page = _page(stack, "try", "--set", "mqtt.broker=127.0.0.1", flags=camera_flags(camera))
        page.get_by_role("button", name="Start my camera").click()
        happy = page.locator("#try-faces caption", has_text="happy")
        happy.nth(1).wait_for()
        time.sleep(SETTLE_S)
        happy.nth(1).wait_for()
        page.screenshot(path=str(HERE / "tryit.png"), full_page=True)


def _page(stack: ExitStack, path: str, *options: str, flags: Sequence[str] = ()) -> Any:
    """A page of `emotiond web` in a browser."""
    from playwright.sync_api import sync_playwright

    web = _start(stack, "web", "--port", str(_free_port()), *options)
    url = web.stdout.readline().strip()
    browser = stack.enter_context(sync_playwright()).chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", *flags], timeout=BROWSER_S * 1000
    )
    stack.callback(browser.close)
    page = browser.new_page(viewport={"width": 1000, "height": 760})
    page.set_default_timeout(BROWSER_S * 1000)
    page.goto(url + path)
    return page


def _start(stack: ExitStack, *arguments: str) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-m", "edge", *arguments], stdout=subprocess.PIPE, text=True)
    stack.callback(child.wait)
    stack.callback(child.terminate)
    return child


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    makers = {maker.__name__: maker for maker in (working, timeline, dashboard, tryit)}
    for name in sys.argv[1:] or makers:
        makers[name]()
