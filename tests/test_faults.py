"""Brokers that fail in ways that TCP does not tell, by way of a faulty proxy."""

import json
import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Broker, plain, wait_for
from edge.backoff import Backoff
from edge.config import MqttConfig, SpoolConfig
from edge.connection import IN_FLIGHT_MAX, Dialer
from edge.discovery import announcement
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.pipeline import Sight
from edge.records import Reading
from edge.spool import Spool
from fakes import frame, scores, track
from proxy import Proxy
from publisher import event
from strict_broker import StrictBroker

ORIGIN, TOPICS = Origin("pi", "camera", "0" * 12), Topics("emotiond", "pi")
SIGHT = Sight(frame(), [], [])
QUICK = {"retry_min_s": 0.1, "retry_max_s": 0.3, "ack_timeout_s": 1.0}


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    between = Proxy(broker.port)
    yield between
    between.close()


@pytest.fixture
def link_to() -> Iterator[Callable[..., MqttLink]]:
    with ExitStack() as stack:

        def connect(port: int, client_id: str = "emotiond-pi", **settings: object) -> MqttLink:
            config = MqttConfig(port=port, **{"broker": "127.0.0.1", **QUICK, **settings})
            spool = stack.enter_context(Spool(SpoolConfig()))
            link = MqttLink(config, Dialer(config, client_id), TOPICS, ["camera"], spool, lambda *_: None)
            return stack.enter_context(link)

        yield connect


def numbers(subscriber) -> list[int]:
    return [e["frame"][0] for e in subscriber.events()]


@pytest.mark.parametrize("fault", ["blackhole", "swallow_replies"])
def test_a_connection_that_is_dead_in_silence_is_given_up_and_nothing_is_lost(
    proxy: Proxy, broker: Broker, subscribe, link_to, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Half open: the network took the broker's end, or only its answers come no more."""
    subscriber = subscribe(broker.port)
    link = link_to(proxy.port)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: numbers(subscriber) == [1], "the first event")
    setattr(proxy, fault, True)
    link.publish(event(2), ORIGIN)

    def given_up() -> bool:
        link.show(SIGHT, ORIGIN)  # live messages are written, and prove nothing
        return "it acknowledged nothing for 1 s" in caplog.text

    wait_for(given_up, "the connection is given up")
    setattr(proxy, fault, False)
    proxy.cut()
    link.publish(event(3), ORIGIN)
    wait_for(lambda: link.queued == 0, "all is acknowledged")
    wait_for(lambda: 3 in numbers(subscriber), "the subscriber has read all")
    assert list(dict.fromkeys(numbers(subscriber))) == [1, 2, 3]
    wait_for(lambda: subscriber.texts(TOPICS.status)[-1] == "online", "online after the will of the dead connection")


def test_a_broker_that_accepts_and_hangs_is_told_and_waited_for(
    proxy: Proxy, broker: Broker, subscribe, link_to, caplog
) -> None:
    proxy.blackhole = True
    link = link_to(proxy.port)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: "connects, but does not answer in MQTT" in caplog.text, "it is told")
    wait_for(lambda: proxy.accepted > 3, "it is tried again")
    assert caplog.text.count("does not answer") == 1
    proxy.blackhole = False
    wait_for(lambda: link.queued == 0, "the event is acknowledged")


def test_a_slow_network_is_no_dead_one(proxy: Proxy, broker: Broker, subscribe, link_to, caplog) -> None:
    subscriber = subscribe(broker.port)
    proxy.delay_s = 0.2
    link = link_to(proxy.port)
    for number in range(1, 41):
        link.publish(event(number), ORIGIN)
    wait_for(lambda: link.queued == 0, "all is acknowledged")
    wait_for(lambda: 40 in numbers(subscriber), "the subscriber has read all")
    assert numbers(subscriber) == list(range(1, 41))
    assert "lost" not in caplog.text


def test_live_messages_do_not_pile_up_before_a_slow_network(broker: Broker, subscribe, link_to) -> None:
    subscriber, proxy = subscribe(broker.port), Proxy(broker.port, room=4096)
    link = link_to(proxy.port, live_rate_hz=1000, ack_timeout_s=60.0)
    wait_for(lambda: subscriber.texts(TOPICS.status), "connected")
    proxy.full = True
    reading = Reading(track(), scores(happy=0.9), "happy")
    for number in range(400):
        link.show(Sight(frame(seq=number), [reading], []), ORIGIN)
        time.sleep(0.005)
    link.publish(event(1), ORIGIN)
    proxy.full = False
    wait_for(lambda: subscriber.events(), "the event")
    faces = TOPICS.of_camera("camera", "faces")
    wait_for(lambda: json.loads(subscriber.texts(faces)[-1])["seq"] == 399, "the newest faces")
    assert len(subscriber.texts(faces)) < 200
    proxy.close()


def test_live_messages_that_a_lost_connection_had_not_taken_hold_up_none_on_the_next(
    broker: Broker, subscribe, link_to
) -> None:
    subscriber, proxy = subscribe(broker.port), Proxy(broker.port, room=4096)
    faces = TOPICS.of_camera("camera", "faces")
    link = link_to(proxy.port, live_rate_hz=1000, ack_timeout_s=60.0)

    def shown(number: int) -> bool:
        link.show(Sight(frame(seq=number), [event(1).reading], []), ORIGIN)
        return any(json.loads(text)["seq"] == number for text in subscriber.texts(faces))

    for number in range(50):  # numbers of messages that the next connection does not soon come to
        wait_for(lambda: shown(number), "a face")  # noqa: B023 - called at once
    proxy.full = True
    for number in range(50, 450):
        link.show(Sight(frame(seq=number), [event(1).reading], []), ORIGIN)
        time.sleep(0.002)
    proxy.cut()
    proxy.full = False
    wait_for(lambda: shown(1000), "a face on the next connection", patience_s=20)
    proxy.close()


def test_a_message_cut_in_the_middle_is_sent_again_whole(proxy: Proxy, broker: Broker, subscribe, link_to) -> None:
    subscriber = subscribe(broker.port)
    link = link_to(proxy.port)
    wait_for(lambda: subscriber.texts(TOPICS.status), "connected")
    proxy.truncate(100)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: link.queued == 0, "it is acknowledged")
    wait_for(lambda: numbers(subscriber), "the subscriber has read it")
    assert numbers(subscriber) == [1]
    assert proxy.accepted == 2


def watch_delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the links wait before a next try, in seconds, as it comes."""
    delays: list[float] = []

    class Watched(Backoff):
        def next(self) -> float:
            delays.append(super().next())
            return delays[-1]

    monkeypatch.setattr("edge.mqtt.Backoff", Watched)
    return delays


def test_a_broker_that_goes_again_soon_after_its_return_is_sought_as_at_first(
    proxy: Proxy, link_to, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each outage counts for itself, so that one after a long one does not cost a minute."""
    delays = watch_delays(monkeypatch)
    monkeypatch.setattr("edge.mqtt.BRISK_FOR_S", 0.0)
    monkeypatch.setattr("edge.mqtt.STEADY_S", 0.2)
    proxy.refusing = True
    link = link_to(proxy.port, retry_max_s=60.0)
    wait_for(lambda: len(delays) >= 4, "it was away for long")
    proxy.refusing = False
    link.publish(event(1), ORIGIN)
    wait_for(lambda: link.queued == 0, "it is back")
    time.sleep(0.5)
    before = len(delays)
    proxy.cut()
    wait_for(lambda: len(delays) > before, "it is gone again")
    assert delays[before] <= QUICK["retry_min_s"] < delays[3]


def test_a_broker_that_hangs_up_soon_after_each_connection_is_asked_ever_more_rarely(
    proxy: Proxy, link_to, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    delays = watch_delays(monkeypatch)
    monkeypatch.setattr("edge.mqtt.STEADY_S", 3600.0)
    link_to(proxy.port, retry_max_s=60.0)
    for lost in range(1, 5):
        wait_for(lambda: caplog.text.count("connected to the broker") == lost, "connected")  # noqa: B023
        proxy.cut()
        wait_for(lambda: len(delays) == lost, "it is gone")  # noqa: B023 - called at once
    assert delays[0] <= QUICK["retry_min_s"] < delays[3]


@pytest.fixture
def strict() -> Iterator[StrictBroker]:
    server = StrictBroker(receive_maximum=3)
    yield server
    server.close()


def test_no_more_is_under_way_than_the_broker_takes(strict: StrictBroker, link_to) -> None:
    """It may hang up on who sends more than its Receive Maximum: MQTT 5.0, 4.9."""
    link = link_to(strict.port, ack_timeout_s=60)
    for number in range(1, 51):
        link.publish(event(number), ORIGIN)
    link.camera_status("camera", "online")
    wait_for(lambda: len(strict.arrived) == 3, "as many as it takes")
    time.sleep(0.5)
    strict.acknowledge()
    wait_for(lambda: link.queued == 0, "all is acknowledged")
    wait_for(lambda: b"emotiond/pi/camera/status" in b"".join(strict.arrived), "the states come through as well")
    assert strict.most == 3
    sent = [each for each in strict.arrived if b"/events" in each]
    assert len(sent) == 50
    states = [index for index, each in enumerate(strict.arrived) if b"/status" in each]
    assert max(states) < 50, "they do not wait until all events are gone"


def test_stopped_is_the_last_word_also_after_a_backlog(strict: StrictBroker) -> None:
    config = MqttConfig(broker="127.0.0.1", port=strict.port, **{**QUICK, "ack_timeout_s": 60})
    with Spool(SpoolConfig()) as spool:
        with MqttLink(config, Dialer(config, "emotiond-pi"), TOPICS, ["camera"], spool, lambda *_: None) as link:
            wait_for(lambda: len(strict.arrived) == 2, "the states")
            for number in range(8):
                link.publish(event(number), ORIGIN)
            wait_for(lambda: len(strict.arrived) == 3, "as many as it takes")
            strict.acknowledge()
    assert strict.arrived[-1].startswith(b"emotiond/pi/status ") and strict.arrived[-1].endswith(b"stopped")
    assert len([each for each in strict.arrived if b"/events" in each]) == 8


def test_stopped_is_the_last_word_also_where_not_all_can_be_sent(proxy: Proxy, broker: Broker, subscribe) -> None:
    subscriber = subscribe(broker.port)
    config = MqttConfig(broker="127.0.0.1", port=proxy.port, **QUICK)
    with Spool(SpoolConfig()) as spool:
        with MqttLink(config, Dialer(config, "emotiond-pi"), TOPICS, ["camera"], spool, lambda *_: None) as link:
            wait_for(lambda: subscriber.texts(TOPICS.status) == ["online"], "online")
            proxy.delay_s = 0.05  # of some dozen windows a second at most
            for number in range(2000):
                link.publish(event(number), ORIGIN)
        assert 0 < link.queued < 2000
    wait_for(lambda: subscriber.texts(TOPICS.status)[-1] == "stopped", "its last word")
    assert subscriber.messages[-1][:2] == (TOPICS.status, "stopped")


def test_stopped_is_heard_also_where_nothing_is_acknowledged(proxy: Proxy, broker: Broker, subscribe) -> None:
    subscriber = subscribe(broker.port)
    config = MqttConfig(broker="127.0.0.1", port=proxy.port, **{**QUICK, "ack_timeout_s": 60})
    with Spool(SpoolConfig()) as spool:
        with MqttLink(config, Dialer(config, "emotiond-pi"), TOPICS, ["camera"], spool, lambda *_: None) as link:
            wait_for(lambda: subscriber.texts(TOPICS.status) == ["online"], "online")
            proxy.swallow_replies = True
            for number in range(IN_FLIGHT_MAX * 2):
                link.publish(event(number), ORIGIN)
            wait_for(lambda: len(subscriber.events()) >= IN_FLIGHT_MAX - 2, "as many as may be under way")
    wait_for(lambda: subscriber.texts(TOPICS.status)[-1] == "stopped", "its last word", patience_s=10)


def test_what_is_larger_than_the_brokers_packets_is_left_out_and_all_else_arrives(
    broker_at, subscribe, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker hangs up on who sends more, and would again on each connection."""
    narrow = broker_at("allow_anonymous true\nmax_packet_size 4096")
    subscriber = subscribe(narrow.port, "#")
    told = announcement("homeassistant", TOPICS, ["camera"], False, 30.0)
    config = MqttConfig(broker="127.0.0.1", port=narrow.port, snapshots=True, **{**QUICK, "ack_timeout_s": 60})
    crowd = Sight(frame(), [event(1).reading] * 50, [])
    large = replace(event(1), id="x" * 4096)
    with Spool(SpoolConfig()) as spool, ExitStack() as stack:
        dialer = Dialer(config, "emotiond-pi")
        link = stack.enter_context(MqttLink(config, dialer, TOPICS, ["camera"], spool, lambda *_: None, told))

        def asks_for_a_picture() -> bool:
            subscriber.publish(TOPICS.of_camera("camera", "look"), "")
            link.show(Sight(noisy, [], []), ORIGIN)
            return "emotiond/pi/camera/snapshot: left out" in caplog.text

        for each in (large, event(2)):
            link.publish(each, ORIGIN)
        wait_for(lambda: link.queued == 0, "the events are gone")
        wait_for(lambda: subscriber.texts(TOPICS.status) == ["online"], "the status")
        link.show(crowd, ORIGIN)
        wait_for(lambda: link.drops["live_dropped"] == 1, "the live message is counted")
        noisy = replace(frame(), image=np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8))
        wait_for(asks_for_a_picture, "the picture is told")
        narrow.kill()
        narrow.start()
        again = subscribe(narrow.port, "#")
        for number in range(3, 40):
            link.publish(replace(large, id=f"{number}{large.id}") if number % 2 else event(number), ORIGIN)
        wait_for(lambda: link.queued == 0, "the later events are gone")
        assert link.drops["events_refused"] == 20
        wait_for(lambda: 38 in numbers(again), "the last event")
    assert [topic for topic, _, _ in subscriber.messages if topic.startswith("homeassistant")] == []
    for topic in (told.topic, *(TOPICS.of_camera("camera", name) for name in ("events", "faces", "snapshot"))):
        assert caplog.text.count(f"{topic}: left out: ") == 1
    assert caplog.text.count("takes packets of 4096; raise its limit (mosquitto: max_packet_size)") == 4
    assert caplog.text.count("connection lost") == 1


def test_an_event_that_is_too_large_for_the_broker_does_not_hold_up_the_others(
    broker_at, subscribe, link_to, caplog: pytest.LogCaptureFixture
) -> None:
    """mosquitto's acknowledgement of it is none that MQTT knows."""
    narrow = broker_at("allow_anonymous true\nmessage_size_limit 2000")
    subscriber = subscribe(narrow.port)
    link = link_to(narrow.port, ack_timeout_s=60)
    for each in (event(1), replace(event(2), id="x" * 2000), event(3)):
        link.publish(each, ORIGIN)
    wait_for(lambda: link.queued == 0, "all are answered")
    wait_for(lambda: numbers(subscriber) == [1, 3], "the others")
    assert link.drops["events_refused"] == 1
    assert "camera/events: the broker refuses it: Packet too large (reason code 149); raise its limit" in caplog.text
    assert "connection lost" not in caplog.text


def test_what_a_broker_has_no_room_for_is_sent_again(strict: StrictBroker, link_to, caplog) -> None:
    """Brokers that limit rates say so when many events come at once after an outage."""
    strict.refusal = 151
    strict.acknowledge()
    link = link_to(strict.port)
    for number in range(1, 41):
        link.publish(event(number), ORIGIN)
    wait_for(lambda: "events: the broker refuses it: Quota exceeded" in caplog.text, "it is told")
    assert (link.queued, link.drops["events_refused"]) == (40, 0)
    strict.refusal = 0
    wait_for(lambda: link.queued == 0, "all is acknowledged")
    events = [each.partition(b" ")[2].lstrip(b"\0") for each in strict.accepted if b"/events " in each]
    assert [json.loads(each)["frame"][0] for each in events] == list(range(1, 41))
    assert any(each.startswith(b"emotiond/pi/status ") and each.endswith(b"online") for each in strict.accepted)
    assert (strict.connections, link.drops["events_refused"]) == (1, 0)


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broker had no room for is not tried again within a test."""
    for limit in ("PAUSE_MIN_S", "PAUSE_MAX_S"):
        monkeypatch.setattr("edge.delivery." + limit, 3600.0)


def test_a_state_that_is_over_its_quota_holds_up_no_event(strict: StrictBroker, link_to, long_pauses) -> None:
    """As brokers have one that keep a message of a topic once a second."""
    strict.refusal, strict.refused = 151, b"/status"
    strict.acknowledge()
    link = link_to(strict.port)
    wait_for(lambda: strict.arrived, "it is refused")
    for number in range(1, 41):
        link.publish(event(number), ORIGIN)
    wait_for(lambda: link.queued == 0, "all is acknowledged")


def test_events_that_are_over_their_quota_hold_up_no_state(strict: StrictBroker, link_to, caplog, long_pauses) -> None:
    strict.refusal, strict.refused = 151, b"/events"
    strict.acknowledge()
    link = link_to(strict.port)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: "Quota exceeded" in caplog.text, "it is refused")
    link.camera_status("camera", "paused")
    wait_for(lambda: strict.accepted[-1].endswith(b"paused"), "the camera's state")


def test_a_topic_that_is_no_text_disturbs_nothing(strict: StrictBroker, link_to) -> None:
    strict.acknowledge()
    link = link_to(strict.port, commands=True)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: link.queued == 0, "the first event")
    strict.publish(b"emotiond/pi/cmd/\xff", b"")
    link.publish(event(2), ORIGIN)
    wait_for(lambda: link.queued == 0, "the second event")
    assert strict.connections == 1


def test_a_flow_that_stalls_while_pings_are_answered_is_begun_anew(strict: StrictBroker, link_to, caplog) -> None:
    link = link_to(strict.port)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: "it acknowledged nothing for 1 s" in caplog.text, "the connection is given up")
    wait_for(lambda: strict.connections > 1, "another one")
    strict.acknowledge()
    wait_for(lambda: link.queued == 0, "the event is acknowledged")


def test_a_client_of_the_same_id_is_told_once_and_not_fought(broker: Broker, subscribe, link_to, caplog) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        link_to(broker.port, retry_max_s=0.8)
    wait_for(lambda: caplog.text.count("another emotiond speaks as emotiond/pi") == 2, "each of them says so")
    time.sleep(6)
    # At the shortest interval they would throw each other out dozens of times.
    assert caplog.text.count("connected to the broker") <= 14
    assert caplog.text.count("another emotiond speaks") == 2


def test_a_device_of_the_same_name_and_another_id_is_told(broker: Broker, link_to, caplog) -> None:
    for client_id in ("first", "second"):
        link_to(broker.port, client_id)
    wait_for(lambda: "another emotiond speaks as emotiond/pi" in caplog.text, "it is told")
    assert "connection lost" not in caplog.text


def test_a_device_that_is_restarted_is_no_other(broker: Broker, subscribe, link_to, proxy: Proxy, caplog) -> None:
    subscriber = subscribe(broker.port)
    first = link_to(proxy.port, "one")
    wait_for(lambda: subscriber.texts(TOPICS.status) == ["online"], "the first is there")
    first.__exit__()
    link_to(proxy.port, "two")
    wait_for(lambda: subscriber.texts(TOPICS.status) == ["online", "stopped", "online"], "the second is there")
    for _ in range(3):
        connections = proxy.accepted
        proxy.cut()
        wait_for(lambda: proxy.accepted > connections, "it comes back")  # noqa: B023 - called at once
        time.sleep(0.3)
    assert "another emotiond" not in caplog.text


def certify(folder: Path, *dates: str) -> str:
    """The lines of a broker whose certificate, of ca.crt, holds between these dates, or today and tomorrow."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    script = """
    set -e
    printf 'subjectAltName=IP:127.0.0.1' >ext
    key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    [ -e ca.crt ] || openssl req -x509 $key -keyout ca.key -out ca.crt -subj /CN=ca -days 2
    openssl req $key -keyout b.key -out b.csr -subj /CN=broker
    rm -rf d; mkdir d; touch d/index; echo 01 >d/serial
    printf '[ca]\\ndefault_ca=x\\n[x]\\ndatabase=d/index\\nserial=d/serial\\nnew_certs_dir=d\\ndefault_md=sha256\\n' >c
    printf 'policy=p\\n[p]\\ncommonName=supplied\\n' >>c
    openssl ca -batch -config c -cert ca.crt -keyfile ca.key -in b.csr -out b.crt -extfile ext "$@"
    """
    limits = ["-startdate", dates[0], "-enddate", dates[1]] if dates else ["-days", "2"]
    subprocess.run(["sh", "-c", script, "sh", *limits], cwd=folder, check=True, capture_output=True)
    return f"allow_anonymous true\ncafile {folder}/ca.crt\ncertfile {folder}/b.crt\nkeyfile {folder}/b.key"


def test_a_link_that_is_left_while_it_connects_says_nothing_any_more(proxy: Proxy, broker: Broker, subscribe) -> None:
    """As in a reload: another link with the same spool speaks for the device by then."""
    subscriber = subscribe(broker.port)
    slow = MqttConfig(broker="127.0.0.1", port=proxy.port, **{**QUICK, "ack_timeout_s": 600})
    config = slow.model_copy(update={"port": broker.port})
    others = threading.enumerate()
    proxy.holding = True
    with Spool(SpoolConfig()) as spool:
        with MqttLink(slow, Dialer(slow, "one"), TOPICS, ["camera"], spool, lambda *_: None):
            sending = next(each for each in threading.enumerate() if each.name == "mqtt-send" and each not in others)
            wait_for(lambda: proxy.accepted, "the first one connects")
        with MqttLink(config, Dialer(config, "two"), TOPICS, ["camera"], spool, lambda *_: None) as link:
            wait_for(lambda: subscriber.texts(TOPICS.status) == ["online"], "the second is there")
            assert sending.is_alive()
            proxy.holding = False
            wait_for(lambda: not sending.is_alive(), "the first has gone")
            link.publish(event(1), ORIGIN)
            wait_for(lambda: numbers(subscriber) == [1], "an event")
            assert subscriber.texts(TOPICS.status) == ["online"]
            assert subscriber.texts(TOPICS.of_camera("camera", "status")) == ["offline"]


@pytest.fixture
def insist_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long a link waits before it contradicts again: shorter than in earnest."""
    monkeypatch.setattr("edge.mqtt.INSIST_S", 1.0)
    monkeypatch.setattr("edge.mqtt.CHECK_S", 0.05)  # what it waits for anyhow, unless there is something to send
    return 1.0


def test_a_status_that_is_not_true_is_set_right(broker: Broker, subscribe, link_to, insist_s: float) -> None:
    """A late will of an earlier connection, or another of the same name that stopped."""
    subscriber = subscribe(broker.port)
    first, second = link_to(broker.port, "first"), link_to(broker.port, "second")
    wait_for(lambda: subscriber.texts(TOPICS.status) == ["online", "online"], "both are there")
    second.camera_status("camera", "online")
    wait_for(lambda: "online" in subscriber.texts(TOPICS.of_camera("camera", "status")), "the camera is there")
    first.__exit__()

    def is_online() -> bool:
        late = subscribe(broker.port, f"{TOPICS.base}/{TOPICS.device}/#")
        wait_for(lambda: len(late.messages) >= 2, "what is retained")
        return {text for _, text, _ in late.messages[:2]} == {"online"}

    wait_for(lambda: "stopped" in subscriber.texts(TOPICS.status), "the first has gone")
    wait_for(is_online, "the second says that it is there, and its camera")
    subscriber.publish(TOPICS.status, "offline", retain=True)
    wait_for(is_online, "it says so again")


def test_two_who_contradict_each_other_do_not_fill_the_network(
    broker: Broker, subscribe, link_to, insist_s: float
) -> None:
    subscriber = subscribe(broker.port)
    link_to(broker.port)
    wait_for(lambda: subscriber.texts(TOPICS.status) == ["online"], "it is there")
    began_at = time.monotonic()

    def quarrels() -> bool:
        said = subscriber.texts(TOPICS.status)
        if said[-1] == "online":
            subscriber.publish(TOPICS.status, "stopped", retain=True)
        return said.count("online") == 3

    wait_for(quarrels, "it says so twice more")
    assert time.monotonic() - began_at >= insist_s


def test_a_broker_whose_certificate_expired_is_told(tmp_path: Path, broker_at, link_to, caplog) -> None:
    expired = broker_at(certify(tmp_path, "20200101000000Z", "20200201000000Z"))
    link_to(expired.port, ca_file=tmp_path / "ca.crt")
    expected = "its TLS certificate does not hold: certificate has expired; renew it; or is this machine's clock ahead?"
    wait_for(lambda: expected in caplog.text, "it is told")


def test_a_board_that_learns_the_time_late_is_not_kept_waiting(tmp_path: Path, broker_at, link_to, caplog) -> None:
    """Until then every certificate is one of the future; then it holds, as one that is signed again does."""
    secured = broker_at(certify(tmp_path, "20900101000000Z", "20910101000000Z"))
    proxy = Proxy(secured.port)
    link = link_to(proxy.port, ca_file=tmp_path / "ca.crt", retry_max_s=3600.0)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: "certificate is not yet valid; is this machine's clock right?" in caplog.text, "it is told")
    wait_for(lambda: proxy.accepted > 2, "it is tried again")
    secured.kill()
    certify(tmp_path)
    secured.start()
    wait_for(lambda: link.queued == 0, "the event is acknowledged")
    proxy.close()


def test_a_tls_broker_that_is_restarted_behind_a_proxy_is_soon_found_again(
    tmp_path: Path, broker_at, link_to, caplog
) -> None:
    """The proxy takes the connection and hangs up."""
    proxy = Proxy(broker_at(certify(tmp_path)).port)
    link = link_to(proxy.port, ca_file=tmp_path / "ca.crt", retry_max_s=3600.0)
    link.publish(event(1), ORIGIN)
    wait_for(lambda: link.queued == 0, "the first event")
    proxy.hanging_up = True
    proxy.cut()
    wait_for(lambda: "hangs up during the TLS handshake" in caplog.text, "it is told")
    proxy.hanging_up = False
    link.publish(event(2), ORIGIN)
    wait_for(lambda: link.queued == 0, "the second event")
    proxy.close()


def test_a_fleet_that_was_refused_does_not_come_back_at_one_moment(
    broker_at, link_to, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays = watch_delays(monkeypatch)
    link_to(broker_at("allow_anonymous false").port)
    wait_for(lambda: len(delays) >= 5, "it is tried again")
    assert len(set(delays)) > 1
    assert all(QUICK["retry_max_s"] / 2 <= delay <= QUICK["retry_max_s"] for delay in delays)


def test_a_killed_process_leaves_no_camera_online_for_the_next(broker: Broker, subscribe, link_to) -> None:
    """Its camera's retained status stays; the next process takes it back at once, before any frame came."""
    before = subscribe(broker.port)
    before.publish(TOPICS.of_camera("camera", "status"), "online")
    link_to(broker.port)
    wait_for(
        lambda: before.texts(TOPICS.of_camera("camera", "status"))[-1] == "offline", "offline until there is a frame"
    )


def test_a_camera_that_was_renamed_after_a_kill_is_offline_under_its_old_name(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    for name in ("old", "new"):
        daemon = start("run", *plain(broker.port, **{"camera.name": name}))
        wait_for(lambda: "online" in subscriber.texts(TOPICS.of_camera(name, "status")), "online")  # noqa: B023 - at once
        if name == "old":
            daemon.process.kill()
    wait_for(lambda: subscriber.texts(TOPICS.of_camera("old", "status"))[-1] == "offline", "offline")


def test_the_camera_of_another_of_our_name_that_lives_stays_online(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port)
    for name in ("first", "second"):
        start("run", *plain(broker.port, **{"camera.name": name, "mqtt.client_id": name}))
        wait_for(lambda: "online" in subscriber.texts(TOPICS.of_camera(name, "status")), "online")  # noqa: B023 - at once
    time.sleep(0.5)
    assert subscriber.texts(TOPICS.of_camera("first", "status"))[-1] == "online"
