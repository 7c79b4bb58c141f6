"""systemd/mosquitto.acl: the daemon works with it, and nobody can do more than it says."""

import shutil
import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from conftest import PATIENCE_S, ROOT, Broker, plain, wait_for
from edge.config import MqttConfig, SpoolConfig
from edge.connection import NOT_AUTHORIZED, Dialer
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.spool import Spool
from publisher import event

USERS = ("pi", "door", "viewer", "onlooker", "operator")


@pytest.fixture
def guarded(broker_at, tmp_path: Path) -> Broker:
    """A mosquitto with the project's ACL; every user's password is its name."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = tmp_path / "passwords"
    for user in USERS:
        create = [] if passwords.exists() else ["-c"]
        subprocess.run(["mosquitto_passwd", *create, "-b", passwords, user, user], check=True, capture_output=True)
        (tmp_path / user).write_text(user)
    return broker_at(f"allow_anonymous false\npassword_file {passwords}\nacl_file {ROOT / 'systemd/mosquitto.acl'}")


def outcome(port: int, user: str, topic: str) -> int:
    """The reason code that the broker answers a publish of `user` with; 0 to 127 is success."""
    answers: list[int] = []
    connected = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda *_: connected.set()
    client.on_publish = lambda client, userdata, mid, reason, properties: answers.append(reason.value)
    client.username_pw_set(user, user)
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert connected.wait(PATIENCE_S)
    client.publish(topic, "x", qos=1)
    wait_for(lambda: answers, "an answer")
    client.disconnect()
    client.loop_stop()
    return answers[0]


def test_the_daemon_has_the_rights_that_it_needs(guarded: Broker, subscribe, start, tmp_path: Path) -> None:
    viewer = subscribe(guarded.port, username="viewer", password="viewer")
    operator = subscribe(guarded.port, username="operator", password="operator")
    extra = {"mqtt.username": "pi", "mqtt.password_file": str(tmp_path / "pi"), "mqtt.commands": True}
    daemon = start("run", *plain(guarded.port, **{**extra, "mqtt.stats_interval_s": 0.5}))
    for name in ("status", "stats", "camera/status", "camera/events", "camera/emotion", "camera/faces"):
        wait_for(lambda: viewer.texts(f"emotiond/pi/{name}"), f"something on {name}")  # noqa: B023 - called at once
    operator.publish("emotiond/pi/cmd/pause", "")
    wait_for(lambda: viewer.texts("emotiond/pi/camera/status")[-1] == "paused", "the operator is obeyed")
    code, _, err = daemon.stop()
    assert (code, "refuses" in err) == (0, False)
    login = {key: extra[key] for key in ("mqtt.username", "mqtt.password_file")}
    code, out, _ = start("forget", *plain(guarded.port, **{**login, "camera.name": "another"})).finish()
    assert (code, "emotiond/pi/camera/emotion" in out) == (0, True)


def test_nobody_can_do_more_than_the_acl_says(guarded: Broker, subscribe) -> None:
    allowed = {
        ("pi", "emotiond/pi/camera/events"),
        ("door", "emotiond/door/status"),
        ("operator", "emotiond/pi/cmd/pause"),
        ("pi", "homeassistant/device/emotiond_pi/config"),
        ("pi", "emotiond/pi/camera/snapshot"),
        ("onlooker", "emotiond/pi/camera/look"),
    }
    tried = allowed | {
        ("pi", "emotiond/door/camera/events"),
        ("pi", "emotiond/door/status"),
        ("pi", "emotiond/pi/cmd/pause"),
        ("pi", "emotiond/pi/camera/deeper/events"),
        ("pi", "elsewhere/pi/status"),
        ("pi", "homeassistant/device/emotiond_door/config"),
        ("pi", "homeassistant/status"),
        ("viewer", "emotiond/pi/cmd/pause"),
        ("viewer", "emotiond/pi/camera/events"),
        ("operator", "emotiond/pi/camera/events"),
        ("pi", "emotiond/door/camera/snapshot"),
        ("pi", "emotiond/pi/camera/look"),
        ("viewer", "emotiond/pi/camera/look"),
        ("operator", "emotiond/pi/camera/look"),
        ("onlooker", "emotiond/pi/cmd/pause"),
        ("onlooker", "emotiond/pi/camera/snapshot"),
    }
    codes = {each: outcome(guarded.port, *each) for each in tried}
    assert {each for each, code in codes.items() if code < 128} == allowed
    assert {code for each, code in codes.items() if each not in allowed} == {NOT_AUTHORIZED}


def test_pictures_go_to_the_onlooker_alone(guarded: Broker, subscribe, start, tmp_path: Path) -> None:
    watching = {user: subscribe(guarded.port, username=user, password=user) for user in ("viewer", "operator")}
    onlooker = subscribe(guarded.port, username="onlooker", password="onlooker")
    extra = {"mqtt.username": "pi", "mqtt.password_file": str(tmp_path / "pi"), "mqtt.snapshots": True}
    start("run", *plain(guarded.port, **extra))
    wait_for(lambda: onlooker.texts("emotiond/pi/camera/faces"), "frames")
    onlooker.publish("emotiond/pi/camera/look", "")
    wait_for(lambda: len(onlooker.texts("emotiond/pi/camera/snapshot")) > 1, "pictures")
    for subscriber in watching.values():
        later = onlooker.texts("emotiond/pi/camera/faces")[-1]
        wait_for(lambda: later in subscriber.texts("emotiond/pi/camera/faces"), "what came later")  # noqa: B023
        assert subscriber.texts("emotiond/pi/camera/snapshot") == []


def test_a_device_hears_no_other_device(guarded: Broker, subscribe) -> None:
    spy = subscribe(guarded.port, "#", username="pi", password="pi")
    viewer = subscribe(guarded.port, username="viewer", password="viewer")
    assert outcome(guarded.port, "door", "emotiond/door/camera/events") < 128
    assert outcome(guarded.port, "pi", "emotiond/pi/status") < 128
    wait_for(lambda: len(viewer.messages) == 2, "the viewer sees both")
    wait_for(lambda: spy.messages, "the device sees its own status")
    assert [topic for topic, _, _ in spy.messages] == ["emotiond/pi/status"]


def test_refused_events_are_counted_and_each_refused_topic_is_told_once(
    guarded: Broker, caplog, tmp_path: Path
) -> None:
    """A device that says it is another: its events are not kept for ever."""
    config = MqttConfig(broker="127.0.0.1", port=guarded.port, username="pi", password_file=tmp_path / "pi")
    topics, origin = Topics("emotiond", "door"), Origin("door", "camera", "0" * 12)
    spool = Spool(SpoolConfig())
    with MqttLink(config, Dialer(config, "x"), topics, ["camera"], spool, lambda *_: None) as link:
        for number in range(3):
            link.publish(event(number), origin)
        wait_for(lambda: link.queued == 0, "all are answered")
        assert link.drops["events_refused"] == 3
        refusal = "the broker refuses it: Not authorized (reason code 135); let the device's user publish there"
        for topic in ("status", "camera/status", "camera/events"):
            wait_for(lambda: f"emotiond/door/{topic}: {refusal}" in caplog.text, f"{topic} is told")  # noqa: B023
    assert caplog.text.count(refusal) == 3
