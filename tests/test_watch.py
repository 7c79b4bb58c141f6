"""What people see of a broker's messages, and that the network cannot steer their terminal."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from conftest import Broker, free_port, no_subscriptions, wait_for
from edge.config import MqttConfig
from edge.watch import Subscriber, describe

AT = "2026-11-21T08:20:46.489Z"
EVENT = {"type": "update", "track": 3, "emotion": "sad", "previous": None, "confidence": 0.714, "at": AT}
HUGE = '{"type": "new", "track": 1, "emotion": "x", "confidence": 1e999, "at": ""}'
END = {**EVENT, "type": "end"}
EMOTION = {"emotion": "sad", "faces": 2, "at": AT}


@pytest.mark.parametrize(
    ("topic", "message", "expected"),
    [
        ("emotiond/pi/status", "online", "pi/status                online"),
        ("emotiond/pi/c/events", EVENT, "pi/c                 08:20:46.489  face 3 uncertain -> sad (71 %)"),
        ("emotiond/pi/c/events", {**EVENT, "type": "new"}, "pi/c                 08:20:46.489  face 3 appears"),
        (
            "emotiond/pi/c/events",
            {**EVENT, "type": "end"},
            "pi/c                 08:20:46.489  face 3 is gone, last sad",
        ),
        ("emotiond/pi/c/emotion", EMOTION, "pi/c                 08:20:46.489  now sad, faces: 2"),
        ("emotiond/pi/c/emotion", {**EMOTION, "faces": 0}, "pi/c                 08:20:46.489  now nobody, faces: 0"),
        (
            "emotiond/pi/c/faces",
            {"at": AT, "faces": [{"track": 3, "emotion": None, "confidence": 0.3}]},
            "pi/c                 08:20:46.489  faces 3: uncertain 0.30",
        ),
    ],
)
def test_a_message_is_a_line(topic: str, message: object, expected: str) -> None:
    assert describe(topic, message if isinstance(message, str) else json.dumps(message)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '{"type": "update"}', '{"type": []}', "[" * 5000, json.dumps({**END, "at": 1}), HUGE],
)
@pytest.mark.parametrize("kind", ["events", "emotion", "faces", "stats"])
def test_a_message_of_someone_else_is_shown_as_it_is(kind: str, text: str) -> None:
    assert describe(f"emotiond/x/y/{kind}", text) == f"{f'x/y/{kind}':<24} {text}"


def test_it_prints_what_a_broker_delivers_and_nothing_that_steers_a_terminal(broker: Broker, subscribe) -> None:
    lines: list[str] = []
    sender = subscribe(broker.port, "none")
    config = MqttConfig(broker="127.0.0.1", port=broker.port, retry_min_s=0.1)
    with Subscriber(config, lines.append):
        wait_for(lambda: sender.publish("emotiond/pi/status", "online") or "online" in str(lines), "a line")
        sender.publish("emotiond/pi/c/events", "\x1b[2J\x07boom\nsecond line")
        sender.publish("emotiond/pi/c/events", json.dumps(EVENT))
        wait_for(lambda: "uncertain -> sad" in str(lines), "the event")
        broker.kill()
        broker.start()
        wait_for(lambda: sender._client.is_connected(), "the sender is back")
        wait_for(lambda: sender.publish("emotiond/pi/status", "again") or "again" in str(lines), "it came back too")
    assert any(line.endswith(" �[2J�boom�second line") for line in lines)
    assert all(line.isprintable() for line in lines)


def test_a_broker_that_hangs_up_on_the_subscription_is_told_once_and_left_in_peace(
    broker_at, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "mosquitto.log"
    # The CONNECT is small enough for it, the SUBSCRIBE is not.
    broker = broker_at(f"allow_anonymous true\nmax_packet_size 100\nlog_dest file {log}\nlog_type all")
    config = MqttConfig(broker="127.0.0.1", port=broker.port, base_topic="b" * 64, retry_min_s=0.2)

    def dialled() -> int:
        return log.read_text().count("New client connected")

    with Subscriber(config, print):
        wait_for(lambda: dialled() > 1, "it is dialled again")
        time.sleep(0.5)
        assert dialled() < 10
    assert caplog.text.count("connection lost") == 1


def test_a_broker_that_refuses_the_subscription_is_told(
    broker_at, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = MqttConfig(broker="127.0.0.1", port=broker_at(no_subscriptions(tmp_path)).port)
    with Subscriber(config, print, everything=True) as subscriber:
        wait_for(lambda: subscriber.problem, "it is told")
    (record,) = caplog.records
    assert record.message.startswith("emotiond/#: the broker refuses the subscription: Not authorized; let its user")


def test_without_a_broker_there_is_nothing_to_watch(start) -> None:
    code, out, err = start("watch", "--set", "mqtt.broker=null").finish(timeout=30)
    assert (code, out, err) == (78, "", "emotiond: mqtt.broker: null: there is no broker to watch\n")


def test_where_it_watches_is_told_and_how_to_watch_an_embedded_broker_at_another_port(start) -> None:
    port = str(free_port())
    code, out, err = start("watch", "--set", f"mqtt.port={port}").finish()
    way_out = "start emotiond run first, or name a broker (mqtt.broker)"
    assert (code, out) == (69, "")
    assert err == f"emotiond: mqtt.broker: 127.0.0.1:{port}: cannot be reached: Connection refused; {way_out}\n"
    daemon = start("run", "--set", f"mqtt.port={port}")
    told = daemon.process.stderr.readline()
    setting = re.search(r"emotiond watch (--set mqtt.port=\d+) shows", told)
    assert setting, told
    watch = start("watch", *setting[1].split())
    assert watch.process.stderr.readline() == f"emotiond: watching 127.0.0.1:{port}, emotiond/...; Ctrl-C ends it\n"
    assert "online" in watch.process.stdout.readline()
    assert watch.stop(signal.SIGINT)[0] == 130
