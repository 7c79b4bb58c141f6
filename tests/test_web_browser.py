"""The dashboard in a real browser, whose camera is a made clip with two faces."""

import csv
import importlib.resources
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.visitor import camera_flags, in_view, write_camera
from conftest import Broker, Daemon, Subscriber, free_port, no_subscriptions, plain, taking_turns, wait_for
from edge import clip
from edge.classifier import shipped_model
from edge.draw import COLOURS
from proxy import PathProxy, Proxy

pytest.importorskip("nicegui", reason="the extra `web` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")

CHROMIUM = shutil.which("chromium")
LONG_S = 300.0  # a browser and a UI library are much to start on a busy machine
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (tests/system_packages.sh does)")


class Browser:
    """Windows of a Chromium, each with cookies and a storage of its own, and what their pages complained about."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium
        self._pages: list[Any] = []
        self.complaints: list[str] = []

    def page(self, url: str, width: int = 1100) -> Any:
        page = self._chromium.new_page(viewport={"width": width, "height": 800}, accept_downloads=True)
        self._pages.append(page)
        page.set_default_timeout(LONG_S * 1000)
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(url)
        return page

    def close(self) -> None:
        for page in self._pages:
            page.close()


def launch(driver: Any, *flags: str) -> Any:
    options = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
    return driver.chromium.launch(executable_path=CHROMIUM, args=[*options, *flags], timeout=LONG_S * 1000)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def chromium(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    camera = tmp_path_factory.mktemp("camera") / "camera.y4m"
    write_camera(camera, in_view())
    # Chromium gives up what it is asking for (ERR_NETWORK_CHANGED) when an interface comes or goes.
    with taking_turns("interfaces"), launch(driver, *camera_flags(camera)) as running:
        yield running


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    browser = Browser(chromium)
    yield browser
    browser.close()


@pytest.fixture
def serve(start: Callable[..., Daemon], broker: Broker) -> Callable[..., tuple[str, Daemon]]:
    def start_web(port: int, *more: str) -> tuple[str, Daemon]:
        options = ["--set", "mqtt.broker=127.0.0.1", "--set", f"mqtt.port={broker.port}"]
        daemon = start("web", "--port", str(port), *options, *more)
        assert daemon.process.stdout is not None
        return daemon.process.stdout.readline().strip(), daemon

    return start_web


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one that hears of no device, for tests of which none leaves anything there."""
    broker, port = Broker(tmp_path_factory.mktemp("broker")), free_port()
    daemon = Daemon("web", "--port", str(port), "--set", "mqtt.broker=127.0.0.1", "--set", f"mqtt.port={broker.port}")
    daemon.process.stdout.readline()
    yield port
    daemon.stop()
    broker.kill()


def faults(page: Any) -> list[str]:
    """What axe-core finds serious or worse."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (extra `dev`)")
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(importlib.resources.files(package).joinpath("axe.min.js").read_text())
    found = page.evaluate("() => axe.run()")["violations"]
    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def test_a_device_is_seen_from_its_first_face_to_its_death(
    browser: Browser, serve: Callable[..., Any], start: Callable[..., Daemon], broker: Broker, tmp_path: Path
) -> None:
    url, _ = serve(free_port())
    page = browser.page(url)
    page.get_by_text("No device has been heard of yet").wait_for()
    device = start("run", *plain(broker.port, **{"mqtt.stats_interval_s": 2}))
    page.locator("button.camera", has_text="pi / camera").wait_for()
    page.locator("[data-status=online]").wait_for()
    page.get_by_label("happy of face").first.wait_for()
    page.locator("caption", has_text="happy").wait_for()
    wait_for(lambda: float(page.get_by_label("happy of face").first.get_attribute("value") or 0) > 0.5, "bars", LONG_S)
    page.locator("dd", has_text=" ms").wait_for()  # health
    page.get_by_text("This device sends no pictures: mqtt.snapshots is off").wait_for()
    assert page.get_by_role("switch", name="Live picture").is_disabled()

    def yellow() -> int:
        picture = cv2.imdecode(np.frombuffer(page.locator(".chart svg").screenshot(), np.uint8), cv2.IMREAD_COLOR)
        # Below the legend, which has every colour from the start.
        return int((np.abs(picture[60:].astype(int) - COLOURS["happy"]).max(axis=2) < 30).sum())

    wait_for(lambda: yellow() > 20, "the history fills", LONG_S)
    page.get_by_label("Emotions shown").click()
    page.get_by_role("option", name="happy").click()
    page.keyboard.press("Escape")
    wait_for(lambda: yellow() == 0, "happy is shown no more", LONG_S)
    page.get_by_role("listbox").wait_for(state="detached")  # while it fades it is empty, and a fault
    assert faults(page) == []

    page.get_by_role("button", name="Dark / light").click()
    page.locator("body.body--dark").wait_for()
    assert faults(page) == []
    for width in (360, 320):
        page.set_viewport_size({"width": width, "height": 740})
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
        button = page.get_by_role("button", name="Dark / light").bounding_box()
        assert button["x"] + button["width"] <= width
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") in ("A", "BUTTON")

    events = browser.page(f"{url}events")
    events.get_by_role("cell", name="new").first.wait_for()
    with events.expect_download() as waiting:
        events.get_by_role("button", name="Export as CSV").click()
    waiting.value.save_as(tmp_path / "events.csv")
    rows = list(csv.DictReader((tmp_path / "events.csv").read_text().splitlines()))
    assert {row["device"] for row in rows} == {"pi"}
    assert "new" in {row["type"] for row in rows}
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", events.locator("tbody td").first.inner_text())  # of today
    assert faults(events) == []
    events.get_by_label("Device or camera").fill("garden")
    events.get_by_text("No data available").wait_for()

    device.process.kill()
    page.locator("[data-status=offline]").wait_for()
    page.get_by_text("No live faces").wait_for()
    assert browser.complaints == []


def test_the_time_of_the_history_goes_on_while_nobody_is_seen(
    browser: Browser, serve: Callable[..., Any], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    url, _ = serve(free_port())
    subscribe(broker.port).publish("emotiond/pi/camera/status", "online")
    page = browser.page(url)
    page.locator(".chart svg").wait_for()
    end = "() => getElement(document.querySelector('.chart .chart').id.slice(1)).chart.getOption().xAxis[0].max"
    first = page.evaluate(end)
    wait_for(lambda: page.evaluate(end) > first, "the chart's right end moves", LONG_S)


def test_the_live_picture_is_shown_while_it_is_wished_for(
    browser: Browser, serve: Callable[..., Any], start: Callable[..., Daemon], broker: Broker
) -> None:
    url, _ = serve(free_port())
    page = browser.page(url)
    start("run", *plain(broker.port, **{"mqtt.snapshots": True, "mqtt.snapshot_width": 320}))
    page.get_by_label("happy of face").first.wait_for()
    assert page.locator("img.picture").is_hidden()
    page.get_by_role("switch", name="Live picture").focus()
    page.keyboard.press("Space")
    page.get_by_text("Sent while you look, and stored nowhere.").wait_for()
    page.locator(".box", has_text="happy").wait_for()
    width = "() => document.querySelector('img.picture').naturalWidth"
    wait_for(lambda: page.evaluate(width) == 320, "the picture is loaded", LONG_S)
    first = page.locator("img.picture").get_attribute("src")
    wait_for(lambda: page.locator("img.picture").get_attribute("src") != first, "the next", LONG_S)
    content = page.request.get(url + page.locator("img.picture").get_attribute("src")).body()
    seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    clips = [cv2.cvtColor(cv2.resize(image, (320, 240)), cv2.COLOR_BGR2GRAY) for _, image in clip.frames()]
    assert min(np.abs(seen.astype(int) - image).mean() for image in clips) < 4
    assert faults(page) == []
    page.get_by_role("button", name="Dark / light").click()
    assert faults(page) == []
    page.get_by_role("switch", name="Live picture").click()
    page.locator("img.picture").wait_for(state="hidden")
    assert page.request.get(f"{url}picture?device=pi&camera=other").status == 404
    assert [text for text in browser.complaints if "404" not in text] == []


def test_a_camera_that_was_not_chosen_is_not_looked_at(
    browser: Browser, serve: Callable[..., Any], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    url, _ = serve(free_port())
    viewer = subscribe(broker.port)
    for device in ("attic", "pi"):
        viewer.publish(f"emotiond/{device}/status", "online")
        viewer.publish(f"emotiond/{device}/camera/status", "online")
    page = browser.page(url)
    page.get_by_role("heading", name="attic / camera").wait_for()
    switch = page.get_by_role("switch", name="Live picture")
    switch.click()
    wait_for(lambda: viewer.texts("emotiond/attic/camera/look"), "a picture is asked for", LONG_S)
    viewer.publish("emotiond/attic/status", "")
    page.get_by_role("heading", name="pi / camera").wait_for()
    wait_for(lambda: switch.get_attribute("aria-checked") == "false", "the switch is off", LONG_S)
    assert viewer.texts("emotiond/pi/camera/look") == []


def test_the_chosen_camera_outlives_its_page(
    browser: Browser, serve: Callable[..., Any], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    url, _ = serve(free_port())
    viewer, odd = subscribe(broker.port), "küche & <b>?=é"
    page = browser.page(url)
    for device in ("attic", odd):
        viewer.publish(f"emotiond/{device}/camera/status", "online")
    page.get_by_role("heading", name="attic / camera").wait_for()
    assert page.url == url
    page.locator("button.camera", has_text=odd).click()
    page.get_by_role("heading", name=f"{odd} / camera").wait_for()
    page.wait_for_function("location.search")
    page.reload()
    page.locator("button.camera[aria-pressed=true]", has_text=odd).wait_for()
    page.get_by_role("link", name="Events").click()
    page.get_by_role("heading", name="Events").wait_for()
    page.go_back()
    page.locator("button.camera[aria-pressed=true]", has_text=odd).wait_for()

    other = browser.page(f"{url}?device=zoo&camera=camera")  # kept, or handed on
    other.get_by_role("heading", name=f"{odd} / camera").or_(other.get_by_role("heading", name="attic")).wait_for()
    viewer.publish("emotiond/zoo/camera/status", "online")
    other.get_by_role("heading", name="zoo / camera").wait_for()
    assert browser.complaints == []


def test_the_table_of_events_can_be_used_by_keyboard_alone(
    browser: Browser, serve: Callable[..., Any], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    url, _ = serve(free_port())
    page = browser.page(f"{url}events", width=360)
    viewer = subscribe(broker.port)
    face = {"v": 1, "at": "t", "type": "new", "track": 1, "emotion": "happy", "previous": None, "confidence": 1}
    for device in ("b", "a", "c"):
        viewer.publish(f"emotiond/{device}/camera/events", json.dumps({**face, "id": device}))
    shown = page.locator("tbody td:nth-child(4)")
    wait_for(lambda: shown.all_inner_texts() == ["c", "a", "b"], "the newest first", LONG_S)
    assert faults(page) == []
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").startswith("Device"):
            break
    page.keyboard.press("Enter")
    wait_for(lambda: shown.all_inner_texts() == ["a", "b", "c"], "sorted", LONG_S)
    viewer.publish("emotiond/d/camera/events", json.dumps({**face, "id": "d"}))  # which takes nobody's place away
    wait_for(lambda: shown.all_inner_texts() == ["a", "b", "c", "d"], "one more", LONG_S)
    page.keyboard.press("Space")
    wait_for(lambda: shown.all_inner_texts() == ["d", "c", "b", "a"], "sorted the other way", LONG_S)
    assert browser.complaints == []


LEFT_OF = """(place, word) => {
  const texts = document.createTreeWalker(place, NodeFilter.SHOW_TEXT), span = new Range();
  while (!texts.nextNode().data.includes(word));
  const at = texts.currentNode.data.indexOf(word);
  span.setStart(texts.currentNode, at);
  span.setEnd(texts.currentNode, at + word.length);
  return span.getBoundingClientRect().left;
}"""


def test_names_that_are_written_from_right_to_left_change_no_places(
    browser: Browser, serve: Callable[..., Any], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    url, _ = serve(free_port())
    page = browser.page(url)
    subscribe(broker.port).publish("emotiond/מטבח/דלת/status", "online")
    for place in ("button.camera b", "h2"):
        device, camera = (page.locator(place).first.evaluate(LEFT_OF, word) for word in ("מטבח", "דלת"))
        assert device < camera


def test_a_reverse_proxy_may_put_the_pages_below_a_path(
    browser: Browser, serve: Callable[..., Any], start: Callable[..., Daemon], broker: Broker
) -> None:
    port = free_port()
    serve(port, "--trusted-header", "X-Forwarded-User")
    proxy = PathProxy(port, "/house/faces")
    start("run", *plain(broker.port, **{"mqtt.snapshots": True}))
    page = browser.page(f"http://127.0.0.1:{proxy.port}/house/faces/")
    page.get_by_label("happy of face").first.wait_for()
    page.get_by_role("switch", name="Live picture").click()
    page.wait_for_function("document.querySelector('img.picture')?.naturalWidth > 0")
    page.get_by_role("link", name="Events").click()
    page.get_by_role("cell", name="new").first.wait_for()
    page.get_by_role("link", name="Try it").click()
    page.get_by_role("button", name="Start my camera").click()
    page.locator("#try-faces caption").nth(1).wait_for()
    page.get_by_role("link", name="Cameras").click()
    page.get_by_role("heading", name="pi / camera").wait_for()
    assert browser.complaints == []
    proxy.close()


def test_a_broker_that_goes_away_is_told_and_the_theme_is_kept(
    browser: Browser, serve: Callable[..., Any], start: Callable[..., Daemon], broker: Broker
) -> None:
    url, _ = serve(free_port())
    page = browser.page(url)
    start("run", *plain(broker.port))
    page.locator("[data-status=online]").wait_for()
    for theme in ("dark", "light"):
        page.get_by_role("button", name="Dark / light").click()
        page.locator(f"body.body--{theme}").wait_for()
        page.get_by_role("link", name="Events").click()
        page.locator(f"body.body--{theme}").wait_for()
        page.get_by_role("link", name="Cameras").click()
    start("run", *plain(broker.port, device="attic"))
    page.locator("button.camera", has_text="attic").wait_for()
    assert "attic" in page.locator("button.camera").first.inner_text()  # in the order of their names
    page.get_by_text("2 online").wait_for()
    broker.kill()
    page.get_by_text("There is no connection to the broker 127.0.0.1.").wait_for()
    page.get_by_text("2 unknown").wait_for()
    assert faults(page) == []
    broker.start()
    page.get_by_text("2 online").wait_for()
    page.get_by_text("There is no connection").wait_for(state="hidden")
    assert browser.complaints == []


def test_why_nothing_comes_is_told_on_the_page(
    browser: Browser, start: Callable[..., Daemon], broker_at: Callable[..., Broker], tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("wrong")
    (tmp_path / "users").touch()
    secret = ["--set", "mqtt.username=anna", "--set", f"mqtt.password_file={tmp_path / 'wrong'}"]
    for brokers, options, said in [
        (f"password_file {tmp_path / 'users'}", secret, "no connection to the broker 127.0.0.1. .*Not authorized"),
        (no_subscriptions(tmp_path), [], "emotiond/#: the broker refuses the subscription: Not authorized"),
    ]:
        port = free_port()
        mqtt = ["--set", "mqtt.broker=127.0.0.1", "--set", f"mqtt.port={broker_at(brokers).port}"]
        start("web", "--port", str(port), *mqtt, *options).process.stdout.readline()
        browser.page(f"http://127.0.0.1:{port}/").get_by_text(re.compile(said)).wait_for()


def test_visitors_try_it_on_their_own_camera(browser: Browser, serve: Callable[..., Any]) -> None:
    port = free_port()
    url, server = serve(port)
    page = browser.page(f"{url}try")
    assert "no picture is stored" in page.locator("body").inner_text()
    page.get_by_role("button", name="Start my camera").click()
    page.get_by_text("Reading faces.").wait_for()
    page.locator("#try-faces caption").nth(1).wait_for()  # two people
    wait_for(lambda: page.locator("#try-rate").get_attribute("data-p95"), "figures", LONG_S)
    print("try it:", page.locator("#try-rate").inner_text())
    assert faults(page) == []
    assert browser.complaints == []

    server.process.kill()
    server.process.wait()
    page.get_by_text("The connection to the server is lost. Trying again").wait_for()
    assert page.locator("#try-faces caption").count() == 0  # what is shown is what is seen
    serve(port)
    page.get_by_text("Reading faces.").wait_for()
    page.locator("#try-faces caption").nth(1).wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("The camera is off.").wait_for()


def test_a_server_that_cannot_read_faces_says_so_and_is_not_asked_again(
    browser: Browser, serve: Callable[..., Any], tmp_path: Path
) -> None:
    network = tmp_path / "int8.tflite"
    shutil.copy(shipped_model(), network)
    url, _ = serve(free_port(), "--set", f"model.path={network}")
    network.unlink()
    page = browser.page(f"{url}try")
    page.get_by_role("button", name="Start my camera").click()
    page.get_by_text("This server cannot read faces now; its log says why.").wait_for()
    assert page.get_by_role("button", name="Start my camera").is_enabled()
    assert page.locator("#try-canvas").is_hidden()


def test_a_network_that_cuts_or_swallows_is_told_and_taken_up_again(browser: Browser, dashboard: int) -> None:
    proxy = Proxy(dashboard)
    page = browser.page(f"http://127.0.0.1:{proxy.port}/try")
    page.get_by_role("button", name="Start my camera").click()
    for fault in ("refusing", "blackhole"):
        page.locator("#try-faces caption").nth(1).wait_for()
        setattr(proxy, fault, True)
        if fault == "refusing":
            proxy.cut()
        page.get_by_text("The connection to the server is lost. Trying again").wait_for()
        assert page.locator("#try-faces caption").count() == 0
        setattr(proxy, fault, False)
        proxy.cut()
    page.get_by_text("Reading faces.").wait_for()
    page.locator("#try-faces caption").nth(1).wait_for()
    proxy.close()


# What browsers do to a page behind another: no frame is drawn. Headless ones have no such page.
HIDE = """() => {
  window.drawn = window.requestAnimationFrame;
  window.due = [];
  window.requestAnimationFrame = (draw) => window.due.push(draw);
  Object.defineProperty(document, "hidden", { value: true, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
  window.said = [];
  const status = document.getElementById("try-status");
  new MutationObserver(() => window.said.push(status.textContent)).observe(status, { childList: true });
}"""
SHOW = """() => {
  window.requestAnimationFrame = window.drawn;
  window.due.forEach(window.drawn);
  delete document.hidden;
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_page_in_the_background_pauses_and_goes_on(browser: Browser, dashboard: int) -> None:
    page = browser.page(f"http://127.0.0.1:{dashboard}/try")
    page.get_by_role("button", name="Start my camera").click()
    page.locator("#try-faces caption").nth(1).wait_for()
    page.evaluate(HIDE)
    page.get_by_text("Paused while this page is in the background.").wait_for()
    assert page.evaluate("window.said") == ["Paused while this page is in the background."]
    page.evaluate(SHOW)
    page.get_by_text("Reading faces.").wait_for()
    page.locator("#try-faces caption").nth(1).wait_for()
    assert browser.complaints == []


def test_a_camera_that_is_taken_away_is_told(browser: Browser, dashboard: int) -> None:
    page = browser.page(f"http://127.0.0.1:{dashboard}/try")
    page.evaluate("""() => {
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wish) => (window.camera = await ask(wish));
    }""")
    page.get_by_role("button", name="Start my camera").click()
    page.locator("#try-faces caption").first.wait_for()
    page.evaluate("window.camera.getVideoTracks()[0].dispatchEvent(new Event('ended'))")  # as when it is unplugged
    page.get_by_text("The camera was taken away.").wait_for()
    page.get_by_role("button", name="Start my camera").wait_for()
    assert page.locator("#try-canvas").is_hidden()


def test_a_camera_that_is_refused_is_explained(driver: Any, dashboard: int) -> None:
    with launch(driver, "--use-fake-device-for-media-stream", "--deny-permission-prompts") as refusing:
        browser = Browser(refusing)
        page = browser.page(f"http://127.0.0.1:{dashboard}/try")
        page.get_by_role("button", name="Start my camera").click()
        page.get_by_text("The camera was refused. Allow it for this page").wait_for()
        assert browser.complaints == []
