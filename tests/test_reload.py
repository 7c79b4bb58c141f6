"""New settings and networks for a daemon that runs: taken whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import ROOT, Broker, as_ordinary_user, free_port, mosquitto, plain, wait_for
from edge.config import Config
from edge.daemon import Daemon
from edge.loop import Wishes
from edge.watch import Subscriber

SHIPPED = ROOT / "edge/models"
TOO_LONG = "/" + "x" * 300  # the system refuses to say whether it is there, as in a folder that may not be looked into


def models(subscriber) -> set[str]:
    """The networks that the newest figures name."""
    return {json.loads(text)["model"] for text in subscriber.texts("emotiond/pi/stats")[-1:]}


def test_a_new_camera_name_and_pace_are_taken_without_a_restart(service, broker: Broker, subscribe) -> None:
    subscriber = subscribe(broker.port)
    running = service()
    wait_for(lambda: subscriber.events(), "a face")
    heard = running.reload(camera={"name": "door"})
    assert any(message.startswith("RELOADING=1\nMONOTONIC_USEC=") for message in heard)
    wait_for(lambda: subscriber.texts("emotiond/pi/door/events"), "a face at the door")
    assert json.loads(subscriber.texts("emotiond/pi/door/events")[0])["camera"] == "door"
    old = [json.loads(text)["type"] for text in subscriber.texts("emotiond/pi/camera/events")]
    assert old.count("new") == old.count("end")
    assert subscriber.texts("emotiond/pi/camera/status")[-1] == "offline"
    assert subscriber.texts("emotiond/pi/door/status")[-1] == "online"
    assert subscriber.texts("emotiond/pi/status")[-1] == "online"
    running.reload(camera={"name": "door"}, log={"level": "error"})  # of which nothing is said any more
    assert running.stop().count("the settings were read again") == 1


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({"camera": {"sorce": 1}}, "camera.sorce: unknown key, did you mean source?"),
        ({"model": {"path": "/nowhere.tflite"}}, "model.path: /nowhere.tflite: cannot be read"),
        ({"detector": {"cascade": "/nowhere.xml"}}, "detector.cascade: /nowhere.xml"),
        ({"detector": {"cascade": TOO_LONG}}, f"detector.cascade: {TOO_LONG}: File name too long"),
        ({"model": {"folder": TOO_LONG}}, f"model.folder: {TOO_LONG}/current: File name too long"),
        ({"camera": {"source": "/nowhere.mkv"}}, "camera.source: /nowhere.mkv: no such file"),
        ({"mqtt": {"username": "u", "password_env": "NOT_SET"}}, "mqtt.password_env: the environment variable NOT_SET"),
        ({"spool": {"max_events": 5}}, "spool: a change of it needs a restart"),
    ],
)
def test_settings_that_cannot_work_leave_the_old_ones_running(
    service, broker: Broker, subscribe, bad: dict, expected: str
) -> None:
    subscriber = subscribe(broker.port)
    running = service()
    wait_for(lambda: subscriber.texts("emotiond/pi/status") == ["online"], "connected")
    # What is good in them is not used either.
    running.reload(**{"emotion": {"dwell_s": 99.0}, "camera": {"name": "door"}, **bad})
    subscriber.messages.clear()
    wait_for(lambda: subscriber.texts("emotiond/pi/camera/faces"), "the old camera is looked at")
    err = running.stop()
    assert subscriber.texts("emotiond/pi/status") == ["stopped"]
    assert subscriber.texts("emotiond/pi/door/status") == []
    assert err.count("reload refused, the old settings stay") == 1
    assert expected in err


def test_settings_that_may_not_be_read_any_more_leave_the_old_ones_running(broker: Broker, subscribe, tmp_path) -> None:
    subscriber, home = subscribe(broker.port), tmp_path / "home"
    home.mkdir()
    command = [*as_ordinary_user(), sys.executable, "-m", "edge", "run", *plain(broker.port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=home, env=env, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            wait_for(lambda: subscriber.texts("emotiond/pi/camera/status")[-1:] == ["online"], "online")
            home.chmod(0)  # nobody can say now whether there is a config.yaml in it
            daemon.send_signal(signal.SIGHUP)
            said = next(line for line in iter(daemon.stderr.readline, "") if "config.yaml" in line)
            assert daemon.poll() is None, "it goes on"
        finally:
            home.chmod(0o700)
            daemon.kill()
    assert "reload refused, the old settings stay: config.yaml: Permission denied" in said


def test_a_password_that_changed_in_its_file_is_taken(service, broker_at, subscribe, tmp_path: Path) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed")
    accounts, password = tmp_path / "accounts", tmp_path / "password"
    subprocess.run(["mosquitto_passwd", "-c", "-b", accounts, "edge", "s3cret"], check=True, capture_output=True)
    guarded = broker_at(f"allow_anonymous false\npassword_file {accounts}")
    subscriber = subscribe(guarded.port, username="edge", password="s3cret")
    password.write_text("guess")
    running = service(mqtt={"port": guarded.port, "username": "edge", "password_file": str(password)})
    password.write_text("s3cret\n")
    running.reload(mqtt={"port": guarded.port, "username": "edge", "password_file": str(password)})
    wait_for(lambda: subscriber.texts("emotiond/pi/status") == ["online"], "connected")
    password.unlink()
    running.reload(mqtt={"port": guarded.port, "username": "edge", "password_file": str(password)})
    assert f"reload refused, the old settings stay: mqtt.password_file: cannot read {password}" in running.stop()


def test_figures_begin_anew_with_another_source(service, broker: Broker, subscribe) -> None:
    subscriber = subscribe(broker.port)

    def figures() -> list[dict]:
        return [json.loads(text) for text in subscriber.texts("emotiond/pi/stats")]

    running = service(camera={"max_fps": 2})
    wait_for(lambda: figures() and figures()[-1]["drops"]["over_max_fps"] > 30, "frames are dropped")
    running.reload(camera={"max_fps": 3})
    wait_for(lambda: figures()[-1]["drops"]["over_max_fps"] <= 30, "the new source's figures")
    running.stop()
    assert min(message["fps_in"] for message in figures()) >= 0


def test_a_command_reloads_and_a_strange_one_does_not(service, broker: Broker, subscribe) -> None:
    subscriber = subscribe(broker.port)
    running = service()
    running.write(camera={"name": "door"})
    wait_for(lambda: subscriber.texts("emotiond/pi/status") == ["online"], "connected")
    for name, payload in (("explode", ""), ("reload", "x" * 65), ("Reload", "")):
        subscriber.publish(f"emotiond/pi/cmd/{name}", payload)
    subscriber.publish("emotiond/pi/cmd/reload", "")
    wait_for(lambda: "online" in subscriber.texts("emotiond/pi/door/status"), "the new settings are in force")
    err = running.stop()
    assert err.count("not obeyed") == 1
    assert "'explode' is none of pause, resume, reload" in err
    assert err.count("the settings were read again") == 1


def test_a_network_is_swapped_once_it_is_proved_and_faces_stay(service, broker: Broker, subscribe, tmp_path) -> None:
    subscriber = subscribe(broker.port)
    mine = tmp_path / "net.tflite"
    shutil.copy(SHIPPED / "int8.tflite", mine)
    shutil.copy(SHIPPED / "golden.npz", tmp_path)
    running = service(model={"path": str(mine)})
    wait_for(lambda: models(subscriber), "figures")
    before = models(subscriber)

    whole = (SHIPPED / "float32.tflite").read_bytes()
    mine.write_bytes(whole[: len(whole) // 2])
    running.reload(model={"path": str(mine)})
    mine.write_bytes(whole[:-40] + bytes(40))
    running.reload(model={"path": str(mine)})
    (tmp_path / "golden.npz").rename(tmp_path / "elsewhere.npz")
    mine.write_bytes(whole)
    running.reload(model={"path": str(mine)})
    subscriber.messages.clear()
    wait_for(lambda: models(subscriber) == before, "the old network serves on")

    (tmp_path / "elsewhere.npz").rename(tmp_path / "golden.npz")
    running.reload(model={"path": str(mine)})
    wait_for(lambda: models(subscriber) and models(subscriber) != before, "the new network serves")
    err = running.stop()
    assert err.count("reload refused") == 3
    assert "needs its golden.npz beside it" in err


def test_a_network_with_a_damaged_golden_set_is_refused_and_the_old_one_goes_on(
    service, broker: Broker, subscribe, tmp_path: Path
) -> None:
    subscriber = subscribe(broker.port)
    running = service()
    wait_for(lambda: models(subscriber), "figures")
    before = models(subscriber)
    folder = shutil.copytree(SHIPPED, tmp_path / "mine")
    golden = (folder / "golden.npz").read_bytes()
    # A file that a power cut left empty; one bit of what is packed in it, and of how.
    packed, method = bytearray(golden), bytearray(golden)
    packed[107] ^= 1
    method[golden.rindex(b"PK\x01\x02") + 10] ^= 1
    for content in (b"", packed, method):
        (folder / "golden.npz").write_bytes(content)
        running.reload(model={"path": str(folder / "int8.tflite")})
    subscriber.messages.clear()
    wait_for(lambda: models(subscriber), "figures again")
    assert models(subscriber) == before
    assert running.stop().count(f"reload refused, the old settings stay: model.path: {folder}/golden.npz: ") == 3


def test_another_source_and_broker_are_taken_and_nothing_waiting_is_lost(
    service, broker: Broker, broker_at, subscribe, video: Path
) -> None:
    other = broker_at()
    subscriber = subscribe(other.port)
    running = service(mqtt={"port": free_port()})
    camera = {"source": str(video), "loop": True, "realtime": True}
    running.reload(camera=camera, mqtt={"port": other.port})
    wait_for(lambda: len([e for e in subscriber.events() if e["type"] == "new"]) >= 1, "a face of the video")
    wait_for(lambda: subscriber.texts("emotiond/pi/camera/status")[-1:] == ["online"], "online")
    running.stop()


def test_a_camera_that_is_not_there_after_a_reload_is_waited_for(service, broker: Broker, subscribe) -> None:
    subscriber = subscribe(broker.port)
    running = service()
    wait_for(lambda: subscriber.texts("emotiond/pi/camera/status")[-1:] == ["online"], "online")
    running.reload(camera={"source": 97})
    wait_for(lambda: subscriber.texts("emotiond/pi/camera/status")[-1] == "offline", "offline")
    running.reload()
    wait_for(lambda: subscriber.texts("emotiond/pi/camera/status")[-1] == "online", "the old one is back")
    running.stop()


@pytest.mark.parametrize(("kind", "protocol"), [("mosquitto", "5"), ("amqtt", "3.1.1")])
def test_the_embedded_broker_goes_on_over_a_reload_and_is_spoken_to_as_before(
    kind: str, protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked in MQTT 5, amqtt may say nothing at all, for which the link would wait."""
    caplog.set_level("INFO")  # as the daemon does, and set back at the end
    if kind == "amqtt":
        monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    else:
        mosquitto()
    config = Config.model_validate({"device": "pi", "mqtt": {"port": free_port()}})
    lines: list[str] = []
    with ExitStack() as stack:
        daemon = Daemon(stack, Wishes(), None, print_events=False, watch=False)
        first = daemon.prepare(config)
        daemon.use(first)
        plan = daemon.prepare(config.model_copy(update={"device": "other"}))
        assert plan.broker is first.broker and plan.mqtt.protocol == protocol
        daemon.use(plan)
        stack.enter_context(Subscriber(plan.mqtt, lines.append, raw=True))
        wait_for(lambda: "emotiond/other/status online" in lines, "the device has its new name")
        older = config.mqtt.model_copy(update={"protocol": "3.1.1"})
        assert daemon.prepare(config.model_copy(update={"mqtt": older})).mqtt.protocol == "3.1.1"
