"""The link to a real broker: nothing that was published is lost, and the loop never waits."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import PATIENCE_S, Broker, Subscriber, free_port, is_open, mosquitto, wait_for
from edge.broker import EmbeddedBroker
from edge.config import MqttConfig, SpoolConfig
from edge.connection import Dialer
from edge.errors import ConfigError, ServiceUnavailableError
from edge.messages import Topics
from edge.mqtt import MqttLink
from edge.pipeline import Sight
from edge.records import Event, Reading
from edge.spool import Spool
from fakes import EPOCH, ORIGIN, frame, scores, track

TOPICS = Topics("emotiond", "pi")
READING = Reading(track(1), scores(happy=0.9), "happy")


def event(number: int) -> Event:
    return Event(str(number), "new", READING, None, (640, 480), EPOCH, EPOCH, 1.0)


def settings(port: int, **extra: object) -> MqttConfig:
    return MqttConfig(broker="127.0.0.1", port=port, **{"retry_min_s": 0.1, "retry_max_s": 0.5, **extra})


@pytest.fixture
def link_to() -> Iterator[Callable[..., MqttLink]]:
    """Enters a link with these settings; it is left at the end of the test."""
    with ExitStack() as stack:

        def connect(
            config: MqttConfig, on_command: Callable[[str, str | None], None] = lambda *_: None, max_events: int = 1000
        ) -> MqttLink:
            spool = stack.enter_context(Spool(SpoolConfig(max_events=max_events)))
            dialer = Dialer(config, "emotiond-pi")
            return stack.enter_context(MqttLink(config, dialer, TOPICS, ["camera"], spool, on_command))

        yield connect


def dial(config: MqttConfig) -> str:
    """Connect and hang up; returns the protocol that was spoken."""
    connection = Dialer(config, "tester").dial()
    connection.close()
    return connection.protocol


def test_events_arrive_in_order_and_states_are_retained(broker: Broker, subscribe, link_to) -> None:
    subscriber = subscribe(broker.port)
    link = link_to(settings(broker.port))
    link.camera_status("camera", "online")
    for number in range(200):
        link.publish(event(number), ORIGIN)
    wait_for(lambda: len(subscriber.events()) == 200, "200 events")
    assert [e["id"] for e in subscriber.events()] == [str(n) for n in range(200)]
    wait_for(lambda: link.queued == 0, "all events are acknowledged")
    late = subscribe(broker.port)
    wait_for(lambda: len(late.messages) >= 2, "retained states")
    assert sorted(late.messages) == [
        ("emotiond/pi/camera/status", "online", True),
        ("emotiond/pi/status", "online", True),
    ]


def test_the_dominant_emotion_is_retained_and_sent_only_when_it_changes(broker: Broker, subscribe, link_to) -> None:
    subscriber = subscribe(broker.port)
    link = link_to(settings(broker.port, live_rate_hz=0))
    for step in range(20):
        link.show(Sight(frame(step / 10), [READING] if step < 10 else [], []), ORIGIN)
        time.sleep(0.01)
    topic = TOPICS.of_camera("camera", "emotion")
    wait_for(lambda: len(subscriber.texts(topic)) == 2, "two changes")
    assert [json.loads(text)["emotion"] for text in subscriber.texts(topic)] == ["happy", None]
    late = subscribe(broker.port, topic)
    wait_for(lambda: late.messages, "the retained emotion")
    assert json.loads(late.messages[0][1])["faces"] == 0
    assert subscriber.texts(TOPICS.of_camera("camera", "faces")) == []


def test_live_faces_are_limited_to_their_rate(broker: Broker, subscribe, link_to) -> None:
    subscriber = subscribe(broker.port)
    link = link_to(settings(broker.port, live_rate_hz=20))
    wait_for(lambda: subscriber.texts(TOPICS.status), "connected")
    began_at = time.monotonic()
    while time.monotonic() < began_at + 0.5:
        link.show(Sight(frame(), [READING], []), ORIGIN)
        time.sleep(0.002)
    shown_for_s = time.monotonic() - began_at
    topic = TOPICS.of_camera("camera", "faces")
    wait_for(lambda: len(subscriber.texts(topic)) >= 3, "some of them")
    time.sleep(0.1)
    assert len(subscriber.texts(topic)) <= 20 * shown_for_s + 2


def test_that_nobody_is_left_is_said_at_once(broker: Broker, subscribe, link_to) -> None:
    """A camera that pauses gives no frame that could say so later."""
    subscriber = subscribe(broker.port)
    link = link_to(settings(broker.port, live_rate_hz=0.01))
    wait_for(lambda: subscriber.texts(TOPICS.status), "connected")
    topic = TOPICS.of_camera("camera", "faces")
    link.show(Sight(frame(), [READING], []), ORIGIN)
    wait_for(lambda: subscriber.texts(topic), "a face")
    for _ in range(2):
        link.show(Sight(frame(), [], []), ORIGIN)
    wait_for(lambda: len(subscriber.texts(topic)) > 1, "nobody")
    assert [len(json.loads(text)["faces"]) for text in subscriber.texts(topic)] == [1, 0]


def test_events_outlive_a_killed_broker_in_order(broker: Broker, subscribe, link_to) -> None:
    link = link_to(settings(broker.port))
    before = subscribe(broker.port)
    link.publish(event(0), ORIGIN)
    wait_for(lambda: before.events(), "the first event")
    broker.kill()
    for number in range(1, 60):
        link.publish(event(number), ORIGIN)
    assert link.queued >= 59
    broker.start()
    after = subscribe(broker.port)
    wait_for(lambda: link.queued == 0, "all events are acknowledged")
    wait_for(lambda: after.texts(TOPICS.status) == ["online"], "the status is there again")
    # The subscriber may come after the first of them; those that it saw are in order and end with the last.
    wait_for(lambda: not after.events() or after.events()[-1]["id"] == "59", "the last event")
    seen = [int(e["id"]) for e in after.events()]
    assert seen == sorted(set(seen))


def test_a_broker_that_comes_late_gets_everything(broker_at, subscribe, link_to) -> None:
    broker = broker_at()
    broker.kill()
    link = link_to(settings(broker.port, live_rate_hz=1000))
    began_at = time.monotonic()
    for number in range(30):
        link.publish(event(number), ORIGIN)
        link.show(Sight(frame(), [READING], []), ORIGIN)
    assert time.monotonic() - began_at < PATIENCE_S / 3, "publishing waits for the broker"
    broker.start()
    wait_for(lambda: link.queued == 0, "all events are acknowledged")
    assert link.drops["live_dropped"] > 0


def test_a_full_queue_drops_the_oldest_events(link_to) -> None:
    link = link_to(settings(free_port()), max_events=5)
    for number in range(8):
        link.publish(event(number), ORIGIN)
    assert (link.queued, link.drops["events_overflowed"]) == (5, 3)


def test_commands_are_obeyed_only_when_they_are_enabled(broker: Broker, subscribe, link_to) -> None:
    heard: list[tuple[str, str | None]] = []
    subscriber = subscribe(broker.port)
    dialer, spool = Dialer(settings(broker.port), "deaf"), Spool(SpoolConfig())
    with MqttLink(settings(broker.port), dialer, TOPICS, ["camera"], spool, lambda *command: heard.append(command)):
        wait_for(lambda: subscriber.texts(TOPICS.status), "connected")
        subscriber.publish(TOPICS.command("pause"), "")
        time.sleep(0.3)
    assert heard == []
    subscriber.messages.clear()
    link_to(settings(broker.port, commands=True), lambda *command: heard.append(command))
    wait_for(lambda: "online" in subscriber.texts(TOPICS.status), "connected")
    for name in ("pause", "explode", "resume"):
        subscriber.publish(TOPICS.command(name), "x")
    wait_for(lambda: heard == [("pause", None), ("resume", None)], "both commands")


def test_a_password_is_used_and_a_wrong_one_is_told(tmp_path: Path, broker_at, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "edge", "s3cret"], check=True, capture_output=True)
    broker = broker_at(f"allow_anonymous false\npassword_file {passwords}")
    monkeypatch.setenv("GOOD", "s3cret")
    monkeypatch.setenv("BAD", "guess")
    assert dial(settings(broker.port, username="edge", password_env="GOOD")) == "5"
    for protocol in ("5", "3.1.1"):
        with pytest.raises(ServiceUnavailableError, match=r"refuses: Not authorized \(reason code 135\)") as caught:
            dial(settings(broker.port, username="edge", password_env="BAD", protocol=protocol))
        assert "guess" not in str(caught.value)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """ca.crt signs good.crt (127.0.0.1); other.crt is signed by nobody; old.crt is for another host."""
    script = """
    set -e
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2
    make() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj /CN=$1
             printf "subjectAltName=$2" >$1.ext
             openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.crt
    }
    make good IP:127.0.0.1; make elsewhere DNS:elsewhere.example; make client DNS:client
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.crt \\
      -subj /CN=other -days 2
    """
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_tls_is_verified(certificates: Path, broker_at) -> None:
    def listen(name: str, extra: str = "") -> int:
        files = f"cafile {certificates}/ca.crt\ncertfile {certificates}/{name}.crt\nkeyfile {certificates}/{name}.key"
        return broker_at(f"allow_anonymous true\n{files}\n{extra}").port

    good, elsewhere, mutual = listen("good"), listen("elsewhere"), listen("good", "require_certificate true")
    ca = certificates / "ca.crt"
    client = {"cert_file": certificates / "client.crt", "key_file": certificates / "client.key"}
    assert dial(settings(good, ca_file=ca)) == "5"
    assert dial(settings(mutual, ca_file=ca, **client)) == "5"
    with pytest.raises(ServiceUnavailableError, match="certificate does not hold: .*; see mqtt.ca_file"):
        dial(settings(good, ca_file=certificates / "other.crt"))
    with pytest.raises(ServiceUnavailableError, match=r"certificate does not hold: .*127\.0\.0\.1.*; see mqtt.broker"):
        dial(settings(elsewhere, ca_file=ca))
    with pytest.raises(ServiceUnavailableError):
        dial(settings(mutual, ca_file=ca))
    with pytest.raises(ServiceUnavailableError, match="mqtt.broker: "):
        dial(settings(good))  # plain, where TLS is spoken
    with pytest.raises(ConfigError, match="mqtt.ca_file: .*no.crt: No such file"):
        dial(settings(good, ca_file=certificates / "no.crt"))
    with pytest.raises(ConfigError, match="mqtt.cert_file: "):
        dial(settings(good, ca_file=ca, cert_file=ca, key_file=ca))


def test_tls_asked_of_a_plain_broker_is_told(broker: Broker) -> None:
    with pytest.raises(ServiceUnavailableError, match=r"no TLS there|does not answer|cannot be reached"):
        dial(settings(broker.port, tls=True))


def test_nobody_and_a_host_that_does_not_exist_are_told() -> None:
    with pytest.raises(ServiceUnavailableError, match=r"127.0.0.1:\d+: cannot be reached: Connection refused"):
        dial(settings(free_port()))
    with pytest.raises(ServiceUnavailableError, match=r"no-such-host.invalid:1883: cannot be reached"):
        dial(MqttConfig(broker="no-such-host.invalid", tls=False))


def test_a_listener_that_never_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.connection.CONNACK_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(ServiceUnavailableError, match="connects, but does not answer"):
            dial(settings(listener.getsockname()[1]))


def answer_each_connect_with(listener: socket.socket, answers: list[bytes], seen: list[int]) -> None:
    for answer in answers:
        peer, _ = listener.accept()
        with peer:
            packet = peer.recv(1000)
            seen.append(packet[packet.index(b"MQTT") + 4])
            peer.sendall(answer)
            if answer[3:4] == b"\0":
                peer.recv(1000)


@pytest.mark.parametrize("refusal", [b"\x20\x02\x00\x01", b""], ids=["says so", "hangs up"])
def test_a_broker_that_only_knows_3_1_1_is_spoken_to_in_3_1_1(refusal: bytes) -> None:
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers = [refusal, b"\x20\x02\x00\x00"]
        thread = threading.Thread(target=answer_each_connect_with, args=(listener, answers, seen))
        thread.start()
        assert dial(settings(listener.getsockname()[1])) == "3.1.1"
        thread.join()
    assert seen == [5, 4]


OK_5, OK_3_1_1 = b"\x20\x03\0\0\0", b"\x20\x02\0\0"
REFUSES_5 = b"\x20\x02\0\x01"


@pytest.mark.parametrize(
    ("answers", "asked", "spoken"),
    [
        ([OK_5, b"", OK_5], [5, 5, 5], ["5", None, "5"]),
        ([OK_5, b"", b"", OK_3_1_1, OK_5], [5, 5, 5, 4, 5], ["5", None, "3.1.1", "5"]),
        ([b"", OK_3_1_1, OK_5], [5, 4, 5], ["3.1.1", "5"]),
        ([OK_5, REFUSES_5, OK_3_1_1, OK_3_1_1], [5, 5, 4, 4], ["5", "3.1.1", "3.1.1"]),
    ],
    ids=["once", "twice", "at the start", "its own word"],
)
def test_only_a_brokers_own_word_makes_it_one_of_3_1_1(
    answers: list[bytes], asked: list[int], spoken: list[str | None]
) -> None:
    """What hangs up may be a load balancer whose broker is being restarted."""
    seen: list[int] = []
    heard: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_each_connect_with, args=(listener, answers, seen), daemon=True)
        thread.start()
        dialer = Dialer(settings(listener.getsockname()[1]), "tester")
        for _ in spoken:
            try:
                connection = dialer.dial()
            except ServiceUnavailableError:
                heard.append(None)
            else:
                heard.append(connection.protocol)
                connection.close()
        thread.join(PATIENCE_S)
    assert (seen, heard) == (asked, spoken)


def test_a_broker_that_was_silent_for_a_while_is_asked_in_5_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been frozen when it was asked in 5, and well again when it was asked in 3.1.1."""
    monkeypatch.setattr("edge.connection.CONNACK_TIMEOUT_S", 0.3)
    seen: list[int] = []

    def serve(listener: socket.socket) -> None:
        for answer in (b"", b"\x20\x02\0\0", b"\x20\x03\0\0\0"):
            peer, _ = listener.accept()
            with peer:
                packet = peer.recv(1000)
                seen.append(packet[packet.index(b"MQTT") + 4])
                peer.sendall(answer)
                peer.recv(1000)  # until the other end says something, or goes

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        dialer = Dialer(settings(listener.getsockname()[1]), "tester")
        for protocol in ("3.1.1", "5"):
            connection = dialer.dial()
            assert connection.protocol == protocol
            connection.close()
        thread.join()
    assert seen == [5, 4, 5]


def test_an_embedded_broker_that_dies_is_started_again(link_to, subscribe) -> None:
    mosquitto()
    with EmbeddedBroker(free_port()) as broker:
        link = link_to(broker.settings(MqttConfig(retry_min_s=0.1)))
        link.publish(event(1), ORIGIN)
        wait_for(lambda: link.queued == 0, "the first event is acknowledged")
        kill_embedded_mosquitto()
        link.publish(event(2), ORIGIN)
        wait_for(lambda: link.queued == 0, "the second event reaches the broker that follows")


def kill_embedded_mosquitto() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    names = {child: Path(f"/proc/{child}/comm").read_text().strip() for child in children}
    os.kill(next(int(child) for child, name in names.items() if name == "mosquitto"), signal.SIGKILL)


def test_an_embedded_broker_whose_port_was_taken_when_it_died_says_so(caplog: pytest.LogCaptureFixture) -> None:
    if shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") is None:
        pytest.skip("mosquitto is not installed")
    with EmbeddedBroker(free_port()) as broker:
        kill_embedded_mosquitto()
        wait_for(lambda: not is_open(broker.port), "it is dead")
        with socket.create_server(("127.0.0.1", broker.port)):
            wait_for(lambda: "cannot be started again yet: its port is taken" in caplog.text, "it is told")


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_the_embedded_broker_serves_and_goes(
    kind: str, subscribe: Callable[..., Subscriber], link_to, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "amqtt":
        monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    else:
        mosquitto()
    port = free_port()
    with EmbeddedBroker(port) as broker:
        assert broker.kind == kind
        config = broker.settings(MqttConfig())
        with MqttLink(config, Dialer(config, "x"), TOPICS, ["camera"], Spool(SpoolConfig()), lambda *_: None) as link:
            for number in range(50):
                link.publish(event(number), ORIGIN)
            wait_for(lambda: link.queued == 0, "all events are acknowledged")
        with (
            pytest.raises(ServiceUnavailableError, match=f"mqtt.port: 127.0.0.1:{port} is taken"),
            EmbeddedBroker(port),
        ):
            pass
    with pytest.raises(ServiceUnavailableError, match="Connection refused"):
        dial(config)
