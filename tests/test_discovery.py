"""Home Assistant: the device shows up there by itself, its entities read real messages, and it goes when told to."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from conftest import ROOT, Broker, Subscriber, plain, wait_for
from edge.discovery import announcement
from edge.labels import EMOTIONS
from edge.messages import Topics

TOPIC = "homeassistant/device/emotiond_pi/config"
ON = {"homeassistant.prefix": "homeassistant", "mqtt.stats_interval_s": 1.0}
CAMERA_STATUS = "emotiond/pi/camera/status"
VISIT = {"source": "builtin", "loop": False, "realtime": True}  # a face comes and goes


def payload(commands: bool = True) -> dict[str, Any]:
    return json.loads(announcement("homeassistant", Topics("emotiond", "pi"), ["camera"], commands, 30).payload)


@pytest.fixture
def tell(broker: Broker, subscribe, start, tmp_path: Path) -> Callable[..., tuple[str, list[tuple[str, str]]]]:
    """Runs a device with these cameras; gives its description and everything that it published."""

    def run(**cameras: object) -> tuple[str, list[tuple[str, str]]]:
        subscriber = subscribe(broker.port, "#")
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(cameras))  # one beside it would have a camera too
        options = plain(broker.port, **ON, **{"mqtt.commands": True})
        code, _, err = start("run", "--config", str(path), *options).finish(timeout=120)
        assert code == 0, err
        wait_for(lambda: "stopped" in subscriber.texts("emotiond/pi/status"), "the end")
        return subscriber.texts(TOPIC)[0], [(topic, text) for topic, text, _ in subscriber.messages]

    return run


def render(template: str, text: str) -> str:
    environment = jinja2.Environment()
    environment.filters["to_json"] = lambda value: json.dumps(value, separators=(",", ":"))  # as Home Assistant does
    try:
        value_json = json.loads(text)
    except ValueError:
        value_json = None
    return environment.from_string(template).render(value=text, value_json=value_json)


def test_every_entity_makes_a_state_of_every_message_of_a_real_run(tell) -> None:
    text, messages = tell(camera=VISIT)
    states: dict[str, list[str]] = {}
    for key, component in json.loads(text)["components"].items():
        if component.keys() == {"platform"}:
            continue  # taken away
        template = component.get("value_template", "{{ value }}")
        states[key] = [render(template, text) for topic, text in messages if topic == component["state_topic"]]
        assert states[key], f"{key} hears nothing"
        for state in states[key]:
            assert state in component["options"] if "options" in component else True
        for condition in component["availability"]:
            words = [
                render(condition["value_template"], text) for topic, text in messages if topic == condition["topic"]
            ]
            assert (words[-1], set(words)) == ("offline", {"online", "offline"}), key
    emotions = states["emotiond_pi_camera_emotion"]
    assert {"uncertain", "nobody"} < set(emotions) and set(emotions) & set(EMOTIONS)
    assert {"0", "1"} <= set(states["emotiond_pi_camera_faces"])
    changes = [json.loads(state) for state in states["emotiond_pi_camera_change"] if state]
    updates = [json.loads(text) for topic, text in messages if topic.endswith("/events") and '"update"' in text]
    assert [change["event_type"] for change in changes] == [update["emotion"] for update in updates] != []
    assert {change["event_type"] for change in changes} <= set(
        payload()["components"]["emotiond_pi_camera_change"]["event_types"]
    )
    assert float(states["emotiond_pi_fps"][-1]) > 0
    assert float(states["emotiond_pi_latency"][-1]) > 0
    assert float(states["emotiond_pi_drops"][-1]) >= 0


@pytest.mark.parametrize(
    "cameras",
    [{"camera": VISIT}, {"cameras": [{"name": name, **VISIT} for name in ("front", "back-door")]}],
    ids=["one camera", "two cameras"],
)
def test_home_assistant_itself_takes_it(cameras: dict, tell, tmp_path: Path) -> None:
    python = os.environ.get("EMOTIOND_HOME_ASSISTANT")
    if python is None:
        pytest.skip(
            "EMOTIOND_HOME_ASSISTANT names no Python (3.13 or newer) with the packages homeassistant and paho-mqtt"
        )
    text, messages = tell(**cameras)
    (tmp_path / "payload.json").write_text(text)
    (tmp_path / "messages.json").write_text(json.dumps(messages))
    command = [*python.split(), ROOT / "tests/home_assistant.py", tmp_path / "payload.json", tmp_path / "messages.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "payload.json").write_text(text.replace('"event_types"', '"event_typos"'))
    assert subprocess.run(command, capture_output=True).returncode != 0, "it takes everything"
    judged = json.loads(done.stdout.splitlines()[-1])
    components = json.loads(text)["components"]
    assert judged.keys() == components.keys()
    for key, component in components.items():
        template = component.get("value_template", "{{ value }}")
        ours = [render(template, text) for topic, text in messages if topic == component.get("state_topic")]
        # One with nothing but its platform is taken away: of several cameras each has its own in its place.
        assert bool(ours) == (component.keys() != {"platform"}), key
        assert [str(state) for state in judged[key]["states"]] == [state.strip() for state in ours], key


def test_it_is_off_unless_asked_for(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port, "#")
    start("run", "--max-frames", "5", *plain(broker.port)).finish()
    wait_for(lambda: "stopped" in subscriber.texts("emotiond/pi/status"), "the end")
    assert not [topic for topic, _, _ in subscriber.messages if topic.startswith("homeassistant")]


def test_home_assistant_starts_anew_and_pauses_with_its_switch(broker: Broker, subscribe, start) -> None:
    subscriber = subscribe(broker.port, "#")
    start("run", *plain(broker.port, **ON, **{"mqtt.commands": True}))
    wait_for(lambda: "online" in subscriber.texts(CAMERA_STATUS), "the camera is online")
    before = len(subscriber.texts(TOPIC))
    subscriber.publish("homeassistant/status", "offline")
    subscriber.publish("homeassistant/status", "online")
    wait_for(lambda: len(subscriber.texts(TOPIC)) == before + 1, "the description again")
    switch = json.loads(subscriber.texts(TOPIC)[-1])["components"]["emotiond_pi_camera_paused"]
    subscriber.publish(switch["command_topic"], switch["payload_on"])
    wait_for(lambda: subscriber.texts(switch["state_topic"])[-1] == "paused", "paused")
    assert render(switch["value_template"], "paused") == switch["state_on"]
    subscriber.publish(switch["command_topic"], switch["payload_off"])
    wait_for(lambda: subscriber.texts(switch["state_topic"])[-1] == "online", "resumed")
    assert render(switch["value_template"], "online") == switch["state_off"]


def retained(subscribe, port: int) -> dict[str, str]:
    late: Subscriber = subscribe(port, "#")
    late.publish("mark", "seen")
    wait_for(lambda: late.texts("mark"), "what is retained came before")
    return {topic: text for topic, text, kept in late.messages if kept}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"device": "attic"}, ["homeassistant/device/emotiond_attic/config"]),
        ({"homeassistant": {"prefix": "ha"}}, ["ha/device/emotiond_pi/config"]),
        ({"homeassistant": {"prefix": None}}, []),
        ({"mqtt": {"keepalive_s": 20}}, [TOPIC]),
    ],
    ids=["another name", "another prefix", "no prefix", "another connection"],
)
def test_a_reload_leaves_no_description_where_none_is_kept_up(
    service, broker, subscribe, change: dict, left: list
) -> None:
    settings = {"homeassistant": {"prefix": "homeassistant"}}
    running = service(**settings)
    wait_for(lambda: TOPIC in retained(subscribe, broker.port), "it is described")
    running.reload(**{**settings, **change})
    device = change.get("device", "pi")
    watcher = subscribe(broker.port)
    wait_for(lambda: watcher.texts(f"emotiond/{device}/status")[-1:] == ["online"], "the new link is there")
    running.stop()
    kept = retained(subscribe, broker.port)
    assert [topic for topic in kept if topic.endswith("/config")] == left


def test_forget_leaves_nothing_behind(broker: Broker, subscribe, start) -> None:
    start("run", "--max-frames", "5", *plain(broker.port, **ON)).finish()
    start("run", "--max-frames", "5", *plain(broker.port, **{"camera.name": "earlier"})).finish()
    start("run", "--max-frames", "5", *plain(broker.port, device="other")).finish()
    assert TOPIC in retained(subscribe, broker.port)
    # Switched off by now: it is forgotten all the same.
    code, out, err = start("forget", *plain(broker.port)).finish()
    assert (code, err, TOPIC in out) == (0, "", True)
    left = retained(subscribe, broker.port)
    assert left and all(topic.startswith("emotiond/other/") for topic in left), left


def test_forget_needs_a_broker_that_keeps_something(start) -> None:
    code, _, err = start("forget", "--set", "mqtt.broker=embedded").finish()
    assert (code, err.count("\n")) == (78, 1) and "mqtt.broker" in err


def test_a_device_that_does_not_obey_has_no_switch() -> None:
    # A component of nothing but its platform is how Home Assistant is told to take one away.
    assert payload(commands=False)["components"]["emotiond_pi_camera_paused"] == {"platform": "switch"}


def test_names_that_home_assistant_does_not_take_stay_apart() -> None:
    topics = [
        announcement("homeassistant", Topics("emotiond", name), ["camera"], True, 30).topic
        for name in ("lab pi", "lab_pi", "lab.pi", "lab-pi", "Küche")
    ]
    assert len(set(topics)) == 5
    assert all(re.fullmatch("homeassistant/device/[a-zA-Z0-9_-]+/config", topic) for topic in topics)


def test_several_cameras_have_entities_of_their_own_and_one_that_went_is_taken_away() -> None:
    names = ["front", 'the "big" door']
    told = announcement("homeassistant", Topics("emotiond", "pi"), names, True, 30, gone=["hall"])
    components = json.loads(told.payload)["components"]
    ids = [component["unique_id"] for component in components.values() if "unique_id" in component]
    assert len(set(ids)) == len(ids)
    pauses = {key: one["command_topic"] for key, one in components.items() if "command_topic" in one}
    assert list(pauses.values()) == [f"emotiond/pi/{name}/pause" for name in names]
    for name in names:
        message = json.dumps({"camera": name, "fps_out": 12.5, "uptime_s": 3})
        values = [
            render(component["value_template"], message)
            for key, component in components.items()
            if key.endswith("_fps") and len(component) > 1
        ]
        assert sorted(values) == ["", "12.5"], "of each message one camera's"
        assert render(components["emotiond_pi_uptime"]["value_template"], message) == "3"
    gone = {key: one for key, one in components.items() if "hall" in key}
    assert gone["emotiond_pi_hall_emotion"] == {"platform": "sensor"}
    assert gone["emotiond_pi_hall_change"] == {"platform": "event"}
    assert all(len(one) == 1 for one in gone.values()) and len(gone) == 8


def test_a_camera_that_is_the_only_one_left_has_the_figures_of_the_device() -> None:
    def told(cameras: list[str], gone: list[str]) -> dict[str, Any]:
        topics = Topics("emotiond", "pi")
        return json.loads(announcement("homeassistant", topics, cameras, True, 30, gone).payload)["components"]

    before, after = told(["front", "back door"], []), told(["front"], ["back door"])
    assert len(before["emotiond_pi_front_fps"]) > 1
    for key, one in before.items():
        assert key in after, f"{key} would stay in Home Assistant"
        assert len(one) == 1 or len(after[key]) > 1 or after[key] == {"platform": one["platform"]}
    figures = {f"emotiond_pi_front_{key}" for key in ("fps", "latency", "drops")}
    assert {key for key, one in after.items() if "_front_" in key and len(one) == 1} == figures
    assert all(len(after[f"emotiond_pi_{key}"]) > 1 for key in ("fps", "latency", "drops"))
