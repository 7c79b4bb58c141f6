"""`emotiond web` with a real broker and browser: first paint, the way from event to page, smoothness, cost, Try it."""

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks import visitor
from benchmarks.measure import ROOT, free_port, percentiles, processor_s, stamp
from edge.broker import EmbeddedBroker
from edge.config import MqttConfig
from edge.errors import ConfigError, ServiceUnavailableError, pip
from edge.labels import EMOTIONS

DEVICES, EVENTS_PER_S, SECONDS = 50, 5.0, 20.0
LOADS = 5  # of the page
WARM_UP_S = 5.0
PATIENCE_S = 300.0  # to start a browser and a UI library on a busy machine
OPTIONS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]

# Every change of the first device's card, and when: [ms since 1970, emotion].
WATCH_CARD = """() => {
  window.seen = [];
  const card = document.querySelector('button.camera');
  const look = () => {
    const shown = card.querySelector('.emotion').textContent;
    const last = window.seen[window.seen.length - 1];
    if (!last || last[1] !== shown) window.seen.push([Date.now(), shown]);
  };
  new MutationObserver(look).observe(card, {childList: true, subtree: true, characterData: true});
}"""
# Every row of the table that was not there before: its age in ms when it came, from the time of the event.
WATCH_TABLE = """() => {
  window.seen = [];
  const known = new Set();
  const look = () => {
    for (const row of document.querySelectorAll('tbody tr')) {
      const time = row.querySelector('td');
      if (!time || known.has(row.textContent)) continue;
      known.add(row.textContent);
      window.seen.push(Date.now() - Date.parse(new Date().toDateString() + ' ' + time.textContent));
    }
  };
  look();
  window.seen = [];
  new MutationObserver(look).observe(document.querySelector('.q-table__container'),
    {childList: true, subtree: true, characterData: true});
}"""
COUNT_FRAMES = """() => {
  window.frames_shown = 0;
  const count = () => { window.frames_shown += 1; requestAnimationFrame(count); };
  requestAnimationFrame(count);
}"""
CHANGED = "([place, before]) => ![null, undefined, before].includes(document.querySelector(place)?.textContent)"
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def run(seconds: float = SECONDS, devices: int = DEVICES, events_per_s: float = EVENTS_PER_S) -> dict[str, Any]:
    """Measure one device and many. Raises ConfigError where a part of the browser is missing."""
    playwright = _playwright()
    with ExitStack() as stack:
        camera = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "camera.y4m"
        visitor.write_camera(camera, visitor.in_view())
        broker = stack.enter_context(EmbeddedBroker(None)).settings(MqttConfig())
        url, server = stack.enter_context(_server(broker))
        fleet = stack.enter_context(_Fleet(broker, devices))
        browser = stack.enter_context(playwright.sync_playwright()).chromium.launch(
            executable_path=shutil.which("chromium"),
            args=[*OPTIONS, *visitor.camera_flags(camera)],
            timeout=PATIENCE_S * 1000,
        )
        stack.callback(browser.close)
        paints = [_first_paint(browser, url) for _ in range(LOADS)]
        rows = [
            _row("cameras", 1, browser, url, server, fleet, events_per_s, seconds),
            _row("cameras", devices, browser, url, server, fleet, events_per_s, seconds),
            _row("events", devices, browser, url + "events", server, fleet, events_per_s, seconds),
        ]
        try_it = visitor.measure(browser, url, seconds, PATIENCE_S)
    return {
        **stamp(),
        "first_paint_ms": float(np.median(paints)),
        "first_paint_max_ms": max(paints),
        "events_per_s_of_a_device": events_per_s,
        "rows": rows,
        "try_it": try_it,
    }


def _row(
    page_name: str,
    devices: int,
    browser: Any,
    url: str,
    server: int,
    fleet: "_Fleet",
    rate: float,
    seconds: float,
) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(url)
    place = ".emotion" if page_name == "cameras" else ".q-table__container"
    page.locator(place).first.wait_for()
    before = page.locator(place).first.text_content()
    with fleet.sending(devices, rate):
        # On a machine so busy that the server gave the page up before it was connected, it is loaded once more.
        page.wait_for_function(CHANGED, arg=[place, before])
        page.wait_for_timeout(WARM_UP_S * 1000)
        page.evaluate(WATCH_CARD if page_name == "cameras" else WATCH_TABLE)
        page.evaluate(COUNT_FRAMES)
        began, cpu_began, sent_began = time.monotonic(), processor_s(server), fleet.sent
        page.wait_for_timeout(seconds * 1000)
        frames, seen = page.evaluate("() => [window.frames_shown, window.seen]")
        took, cpu_s, sent = time.monotonic() - began, processor_s(server) - cpu_began, fleet.sent - sent_began
    page.close()
    if seen is None:
        raise ServiceUnavailableError("the page was loaded anew while it was measured: this machine is too busy")
    delays = delays_ms(fleet.probe, seen) if page_name == "cameras" else seen
    return {
        "page": page_name,
        "devices": devices,
        "events_per_s": sent / took,
        "update_ms": percentiles(delays) if delays else None,
        "updates_seen": len(delays),
        "browser_fps": frames / took,
        "server_cores": cpu_s / took,
        "load": round(os.getloadavg()[0], 2),
    }


def delays_ms(published: list[tuple[float, str]], seen: list[tuple[float, str]]) -> list[float]:
    """From each publishing to its showing, both (ms since 1970, emotion); what was replaced unseen has none."""
    delays, after = [], 0
    for number, (at, emotion) in enumerate(published):
        # The same emotion is published again only after all others were.
        until = published[number + len(EMOTIONS)][0] if number + len(EMOTIONS) < len(published) else float("inf")
        for place in range(after, len(seen)):
            if at <= seen[place][0] < until and seen[place][1] == emotion:
                delays.append(seen[place][0] - at)
                after = place + 1
                break
    return delays


def _first_paint(browser: Any, url: str) -> float:
    """Of a browser that knows nothing of the page, in ms from the request."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(url)
    page.locator("button.camera").first.wait_for()
    page.wait_for_function(FIRST_PAINT)
    painted = float(page.evaluate(FIRST_PAINT))
    context.close()
    return painted


@contextlib.contextmanager
def _server(broker: MqttConfig) -> Iterator[tuple[str, int]]:
    """`emotiond web` as a process: its URL, and its number."""
    settings = ["--set", f"mqtt.broker={broker.broker}", "--set", f"mqtt.port={broker.port}", "--set", "mqtt.tls=false"]
    settings += ["--set", f'mqtt.protocol="{broker.protocol}"', "--port", str(free_port())]
    command = [sys.executable, "-m", "edge", "web", "--config", str(ROOT / "config.yaml"), *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            assert child.stdout is not None
            url = child.stdout.readline().strip()
            if not url:
                raise ServiceUnavailableError("emotiond web did not start")
            yield url, child.pid
        finally:
            child.terminate()


class _Fleet:
    """Publishes as many devices do: each event with the dominant emotion and the faces that it belongs to."""

    def __init__(self, broker: MqttConfig, devices: int) -> None:
        self._names = [f"device-{number:02}" for number in range(devices)]
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_inflight_messages_set(10_000)
        self._client.connect(str(broker.broker), broker.port or 1883)
        self._number = 0
        self.sent = 0
        """Events."""
        self.probe: list[tuple[float, str]] = []
        """When the first device published which emotion, in ms since 1970."""

    def __enter__(self) -> "_Fleet":
        self._client.loop_start()
        for name in self._names:
            for topic in (f"{name}/status", f"{name}/front/status"):
                self._client.publish(f"emotiond/{topic}", "online", qos=1, retain=True).wait_for_publish(PATIENCE_S)
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @contextlib.contextmanager
    def sending(self, devices: int, rate: float) -> Iterator[None]:
        """Events of the first so many devices, evenly spread, from a thread."""
        stop = threading.Event()
        self.probe.clear()
        thread = threading.Thread(target=self._send, args=(self._names[:devices], rate, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _send(self, names: list[str], rate: float, stop: threading.Event) -> None:
        due_at = time.monotonic()
        turn = 0
        while not stop.is_set():
            for place, name in enumerate(names):
                due_at += 1 / rate / len(names)
                stop.wait(max(0.0, due_at - time.monotonic()))
                emotion = EMOTIONS[(turn + place) % len(EMOTIONS)]
                if place == 0:
                    self.probe.append((time.time() * 1000, emotion))
                self._publish(name, emotion)
            turn += 1

    def _publish(self, name: str, emotion: str) -> None:
        self._number += 1
        now = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        scores = {each: 0.91 if each == emotion else 0.015 for each in EMOTIONS}
        face = {"track": 1, "emotion": emotion, "confidence": 0.91, "scores": scores, "box": [212, 96, 118, 118]}
        common = {"v": 1, "device": name, "camera": "front", "at": at}
        event = {**common, **face, "id": f"{self._number:036}", "type": "update", "previous": None}
        event |= {"frame": [640, 480], "started_at": at, "latency_ms": 2.3, "model": "0" * 12}
        dominant = {**common, "emotion": emotion, "confidence": 0.91, "faces": 1}
        faces = {**common, "seq": self._number, "frame": [640, 480], "faces": [face]}
        where = f"emotiond/{name}/front"
        self._client.publish(f"{where}/emotion", json.dumps(dominant), qos=1, retain=True)
        self._client.publish(f"{where}/faces", json.dumps(faces), qos=0)
        self._client.publish(f"{where}/events", json.dumps(event), qos=1)
        self.sent += 1


def _playwright() -> Any:
    for package, extra in (("nicegui", "web"), ("playwright", "dev")):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed: {pip('install', f'.[{extra}]')}")
    if shutil.which("chromium") is None:
        raise ConfigError("chromium is not installed: sh tests/system_packages.sh")
    return importlib.import_module("playwright.sync_api")
