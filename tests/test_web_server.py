"""`emotiond web` as a process: where it listens, whom it lets in, and its web socket."""

import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import ROOT, Broker, Daemon, Subscriber, free_port, wait_for
from edge import clip
from edge.classifier import shipped_model
from edge.web.guard import Guard

pytest.importorskip("nicegui", reason="the extra `web` is not installed")
websocket = pytest.importorskip("websockets.sync.client", reason="websockets comes with the extra `web`")

PASSWORD = ["--password-file", "password"]
LONG_S = 300.0  # the UI library alone takes seconds to load, and the machine may be busy


EVENT = {"v": 1, "id": "a", "at": "t", "type": "new", "track": 1, "emotion": "happy", "previous": None, "confidence": 1}
STATS = {"v": 1, "camera": "c", "temperature_c": 50.0, "queue": 0, "uptime_s": 1}
HALF = "\ud800"  # half of a character: JSON can say it, UTF-8 cannot
HOSTILE = [
    ("a/c/events", {**EVENT, "track": 10**30}),
    ("a/c/events", {**EVENT, "track": 1e30}),
    ("a/c/events", {**EVENT, "confidence": float("nan")}),
    *(("a/c/events", {**EVENT, key: HALF}) for key in ("id", "at", "type")),
    ("a/stats", {**STATS, "camera": HALF}),
    ("a/stats", {**STATS, "runtime": HALF, "model": "m"}),
    ("a/stats", {**STATS, "temperature_c": int("9" * 400)}),
    ("a/stats", {**STATS, "queue": json.loads("[" * 400 + "]" * 400)}),
]


class Web:
    """The dashboard's process."""

    def __init__(self, start: Callable[..., Daemon], broker_port: int, *options: str) -> None:
        self.port = free_port()
        mqtt = ["--set", "mqtt.broker=127.0.0.1", "--set", f"mqtt.port={broker_port}"]
        self.process = start("web", "--port", str(self.port), *mqtt, *options).process
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def get(self, path: str = "/", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG_S)
        connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        return answer.status, text


@pytest.fixture
def web(start: Callable[..., Daemon], broker: Broker) -> Iterator[Callable[..., Web]]:
    yield lambda *options: Web(start, broker.port, *options)


def test_on_loopback_anyone_here_may_look_and_other_sites_may_not(web: Callable[..., Web]) -> None:
    page = web()
    assert page.url == f"http://127.0.0.1:{page.port}/"
    status, text = page.get()
    assert (status, "emotiond: cameras" in text) == (200, True)
    assert page.get(Host="evil.example")[0] == 403
    assert page.get(Origin="http://evil.example")[0] == 403
    assert page.get(Origin=f"http://127.0.0.1:{page.port}")[0] == 200
    # Nothing comes from elsewhere.
    assert "http://" not in text.replace(page.url, "").replace("http://www.w3.org", "")

    # The web socket: faces of real pictures; no entry for other sites; no harm by what is no picture.
    address = f"ws://127.0.0.1:{page.port}/try/frames"
    frames = [image for at_s, image in clip.frames() if 3 < at_s < 5]
    with websocket.connect(address, open_timeout=LONG_S, ping_interval=None) as socket:
        for image in frames:
            socket.send(cv2.imencode(".jpg", np.hstack([image[:, 100:420], image[:, 100:420]]))[1].tobytes())
            answer = json.loads(socket.recv(timeout=LONG_S))
        assert len(answer["faces"]) in (1, 2)
        assert len(answer["faces"][0]["scores"]) == 7
        socket.send(b"this is no picture")
        with pytest.raises(Exception, match="1003|not a picture"):
            socket.recv(timeout=LONG_S)
    for content in ("a text", b"", cv2.imencode(".png", frames[0])[1].tobytes()):
        with websocket.connect(address, open_timeout=LONG_S, ping_interval=None) as socket:
            socket.send(content)
            with pytest.raises(Exception, match="1003|not a picture"):
                socket.recv(timeout=LONG_S)
    with pytest.raises(Exception, match="403|1008"):
        websocket.connect(address, origin="http://evil.example", open_timeout=LONG_S)
    assert page.get()[0] == 200
    page.process.terminate()
    assert "Traceback" not in page.process.communicate(timeout=LONG_S)[1]


def test_a_network_that_is_taken_away_is_told_to_who_tries_it_and_in_the_log(
    web: Callable[..., Web], tmp_path: Path
) -> None:
    network = tmp_path / "int8.tflite"
    network.write_bytes(shipped_model().read_bytes())
    page = web("--set", f"model.path={network}")
    network.unlink()
    with websocket.connect(f"ws://127.0.0.1:{page.port}/try/frames", open_timeout=LONG_S) as socket:
        with pytest.raises(Exception, match="4500"):
            socket.recv(timeout=LONG_S)
    page.process.terminate()
    log = page.process.communicate(timeout=LONG_S)[1]
    assert f"emotiond: Try it: model.path: {network}: cannot be read: No such file or directory\n" in log
    assert "Traceback" not in log


def test_who_sends_no_picture_gives_the_place_to_others(web: Callable[..., Web]) -> None:
    address = f"ws://127.0.0.1:{web().port}/try/frames"
    with contextlib.ExitStack() as stack:

        def five() -> list:
            return [stack.enter_context(websocket.connect(address, open_timeout=LONG_S)) for _ in range(5)]

        *idle, late = five()
        with pytest.raises(Exception, match="1013"):  # all places are taken
            late.recv(timeout=LONG_S)
        for socket in idle:
            with pytest.raises(Exception, match="4408"):
                socket.recv(timeout=LONG_S)
        *others, late = five()
        with pytest.raises(Exception, match="1013"):
            late.recv(timeout=LONG_S)
        for socket in others:
            socket.send(cv2.imencode(".jpg", np.zeros((48, 48), np.uint8))[1].tobytes())
            assert json.loads(socket.recv(timeout=LONG_S))["faces"] == []


def test_connections_without_a_request_shut_nobody_out(web: Callable[..., Web]) -> None:
    heads = ["", "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n."]
    page = web()
    # Room for the 200 that may wait, and not for 200 more of any kind that nobody counts.
    resource.prlimit(page.process.pid, resource.RLIMIT_NOFILE, (320, 320))
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", page.port))) for _ in range(600)]
        for connection, head in zip(idle, itertools.cycle(heads)):
            with contextlib.suppress(OSError):  # there were too many already
                connection.sendall(head.encode())
        assert page.get()[0] == 200
        for connection in idle:
            connection.settimeout(LONG_S)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
    assert page.get()[0] == 200


def test_browsers_keep_no_script_over_an_upgrade(web: Callable[..., Web]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", web().port, timeout=LONG_S)
    connection.request("GET", "/static/try.js")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "public, max-age=0")
    assert answer.headers["ETag"]
    connection.close()


def test_a_password_is_asked_for(web: Callable[..., Web], tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("sésame\n")
    page = web("--host", "0.0.0.0", "--password-file", str(secret))

    def basic(password: str) -> str:
        return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()

    assert page.get()[0] == 401
    assert page.get(Authorization=basic("wrong"))[0] == 401
    assert page.get(Authorization="Basic %%%")[0] == 401
    assert page.get(Authorization=basic("sésame"))[0] == 200
    with pytest.raises(Exception, match="403|1008"):
        websocket.connect(f"ws://127.0.0.1:{page.port}/try/frames", open_timeout=LONG_S)


def test_a_proxys_header_is_trusted_where_that_was_asked_for(web: Callable[..., Web]) -> None:
    page = web("--host", "0.0.0.0", "--trusted-header", "X-Forwarded-User")
    assert page.get()[0] == 403
    assert page.get(X_Forwarded_User="")[0] == 403
    assert page.get(X_Forwarded_User="anna", Host="emotiond.example")[0] == 200


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "--host 0.0.0.0: others could look in; give --password-file"),
        (["--password-file", "missing"], 78, "--password-file: cannot read missing: No such file or directory"),
        (["--set", "mqtt.broker=null"], 78, "mqtt.broker: null: the dashboard shows what a broker hands on"),
        (["--port", "0"], 2, "usage"),
        (["--port", "70000"], 2, "--port 70000: there is no such port; it takes 1 to 65535"),
        (["--host", "0.0.0.0", "--trusted-header", ""], 2, "--trusted-header '': not the name of a header; give one"),
        (["--trusted-header", " "], 2, "--trusted-header ' ': not the name of a header"),
        (["--trusted-header", "X-User:"], 2, "--trusted-header 'X-User:': not the name of a header"),
        (
            ["--host", "0.0.0.0", "--password-file", "F", "--trusted-header", "X-User"],
            2,
            "--password-file and --trusted-header: give one of them; behind a reverse proxy",
        ),
        (["--host", "no.such.host.invalid", *PASSWORD], 69, "--host no.such.host.invalid: "),
        (["--host", "a..b", *PASSWORD], 69, "--host a..b: no host can have this name; it takes an address of this"),
        (["--host", "192.0.2.1", *PASSWORD], 69, "192.0.2.1:8080: Cannot assign requested address; --host takes an"),
        (["--set", "model.path=missing"], 78, "model.path: missing: cannot be read: No such file or directory"),
        (["--set", "detector.kind=mtcnn"], 78, "detector.kind: mtcnn: mtcnn is not installed"),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    (tmp_path / "password").write_text("sésame")
    (tmp_path / "mtcnn.py").write_text("raise ModuleNotFoundError(name='mtcnn')")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "edge", "web", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=LONG_S)
    assert done.returncode == code
    assert done.stderr.removeprefix("emotiond: ").startswith(said)
    assert said == "usage" or done.stderr.count("\n") == 1


def test_a_taken_port_is_told(web: Callable[..., Web], broker: Broker, start: Callable[..., Daemon]) -> None:
    code, _, err = start("web", "--port", str(broker.port)).finish(LONG_S)
    assert code == 69
    assert err.startswith(f"emotiond: 127.0.0.1:{broker.port}: Address already in use; --port takes another")


def test_it_ends_when_asked_to(web: Callable[..., Web]) -> None:
    page = web()
    page.process.terminate()
    wait_for(lambda: page.process.poll() is not None, "the dashboard ended", LONG_S)
    assert page.process.returncode == 0


def test_an_empty_trusted_header_lets_nobody_in() -> None:
    answers: list[dict] = []

    async def look() -> None:
        async def send(message: dict) -> None:
            answers.append(message)

        await Guard(None, None, "")({"type": "http", "headers": [(b"host", b"localhost")]}, None, send)

    asyncio.run(look())
    assert answers[0]["status"] == 403


def test_no_message_takes_the_pages_away(
    web: Callable[..., Web], broker: Broker, subscribe: Callable[..., Subscriber]
) -> None:
    page, viewer = web(), subscribe(broker.port)
    viewer.publish("emotiond/a/status", "online")
    viewer.publish("emotiond/a/`${x}' \"<\\/status", "online")
    for number, (topic, message) in enumerate(HOSTILE):
        viewer.publish(f"emotiond/{topic}", json.dumps(message))
        viewer.publish("emotiond/z/c/events", json.dumps({**EVENT, "id": f"seen{number}"}))
        shown = ""
        while f"seen{number}" not in shown:
            status, shown = page.get("/events")
            assert status == 200, message
        assert page.get()[0] == 200, message


@pytest.mark.parametrize("leaves", [True, False])
def test_who_leaves_before_the_page_is_ready_is_no_error(leaves: bool) -> None:
    async def page(scope: object, receive: Callable, send: object) -> None:
        await receive()
        raise RuntimeError("No response returned.")  # Starlette's words where a browser has left

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect" if leaves else "http.request"}

    async def look() -> None:
        await Guard(page, None, None)({"type": "http", "headers": [(b"host", b"127.0.0.1:80")]}, receive, None)

    if leaves:
        asyncio.run(look())
    else:
        with pytest.raises(RuntimeError, match="No response"):
            asyncio.run(look())
