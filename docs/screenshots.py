"""Makes the pictures of the papers from real runs on the built-in clip.

    python docs/screenshots.py [working] [timeline] [dashboard]       without names: all

`dashboard` takes the extras `web` and `dev`, and Debian's chromium.
"""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from edge.app import build_pipeline, build_search, build_source
from edge.classifier import TfliteClassifier
from edge.config import CameraConfig, Config
from edge.draw import draw

HERE = Path(__file__).parent
MOMENTS_S = (1.6, 4.2, 8.0)
HISTORY_S = 100.0  # of the dashboard, so that there is something to see
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
    """What a browser shows while a daemon runs."""
    from playwright.sync_api import sync_playwright

    broker_port, web_port = _free_port(), _free_port()
    mqtt = ["--set", f"mqtt.port={broker_port}"]
    device = ["--set", "device=lab-pi", "--set", "camera.name=front", "--set", "mqtt.stats_interval_s=5"]
    with ExitStack() as stack:
        _start(stack, "run", *mqtt, *device)
        web = _start(stack, "web", "--port", str(web_port), *mqtt, "--set", "mqtt.broker=127.0.0.1")
        url = web.stdout.readline().strip()
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], timeout=BROWSER_S * 1000
        )
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.set_default_timeout(BROWSER_S * 1000)
        page.goto(url)
        page.get_by_label("happy of face").first.wait_for()
        time.sleep(HISTORY_S)
        page.locator("caption", has_text="happy").wait_for()
        page.screenshot(path=str(HERE / "dashboard.png"))
        browser.close()


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
    makers = {maker.__name__: maker for maker in (working, timeline, dashboard)}
    for name in sys.argv[1:] or makers:
        makers[name]()
