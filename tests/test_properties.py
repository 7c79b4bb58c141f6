"""Hypothesis looks for settings, events, commands and faces that break what must hold of all of them."""

import json
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.commands import COMMANDS, PAYLOAD_MAX, NotACommandError, parse
from edge.config import Config, TrackerConfig
from edge.configfile import load
from edge.errors import ConfigError
from edge.labels import EMOTIONS
from edge.messages import Origin, encode, event_message
from edge.records import Box, Event, Face, Reading, Scores, Track
from edge.tracker import Tracker

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
SECTIONS = {
    name: list(value) if isinstance(value, dict) else [] for name, value in Config(device="x").model_dump().items()
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def refused_or_loaded(path: Path) -> Config | None:
    try:
        return load(path)
    except ConfigError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(path))
        return None


@PATIENT
@given(text=st.text(max_size=300))
def test_any_text_is_a_configuration_or_a_mistake_of_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    refused_or_loaded(path)


@PATIENT
@given(data=st.data())
def test_any_value_of_any_key_is_taken_or_a_mistake_of_one_line(tmp_path: Path, data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(sorted(SECTIONS)))
    tree: object = data.draw(VALUES)
    if SECTIONS[section]:
        tree = {data.draw(st.sampled_from(SECTIONS[section])): tree}
    path = tmp_path / "c.yaml"
    try:
        path.write_text(yaml.safe_dump({section: tree}))
    except (yaml.YAMLError, UnicodeEncodeError):
        return  # YAML has no way to write it
    config = refused_or_loaded(path)
    if config is not None:
        for level in (config.device, config.camera.name, config.mqtt.base_topic):
            assert not set("+#/\0") & set(level)


@given(name=st.text(), payload=st.binary(max_size=PAYLOAD_MAX * 2), retained=st.booleans())
def test_a_command_is_one_of_three_and_short_and_not_retained(name: str, payload: bytes, retained: bool) -> None:
    try:
        command = parse(name, payload, retained)
    except NotACommandError as error:
        assert str(error).isprintable()
    else:
        assert command in COMMANDS
        assert name in COMMANDS
        assert len(payload) <= PAYLOAD_MAX
        assert not retained


LEVELS = st.text(min_size=1, max_size=64)
WHOLE = st.integers(-(2**31), 2**31)
TIMES = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 1, 1), timezones=st.just(timezone.utc))


@given(
    who=st.builds(Origin, LEVELS, LEVELS, LEVELS),
    box=st.builds(Box, WHOLE, WHOLE, WHOLE, WHOLE),
    values=st.lists(st.floats(0, 1, width=32), min_size=len(EMOTIONS), max_size=len(EMOTIONS)),
    emotion=st.none() | st.sampled_from(EMOTIONS),
    at=TIMES,
    latency=st.floats(0, 1e9),
)
def test_an_event_is_one_line_of_json_that_says_the_same(who, box, values, emotion, at, latency) -> None:
    reading = Reading(Track(1, box, 5, 0), Scores(np.array(values, np.float32)), emotion)
    event = Event("id", "update", reading, None, (640, 480), at, at, latency)
    text = encode(event_message(event, who))
    assert "\n" not in text
    message = json.loads(text, parse_constant=pytest.fail)
    assert (message["device"], message["camera"], message["model"]) == (who.device, who.camera, who.model)
    assert message["box"] == [box.x, box.y, box.w, box.h]
    assert message["emotion"] == emotion
    assert set(message["scores"]) == set(EMOTIONS)
    assert 0 <= message["confidence"] <= 1


BOXES = st.builds(Box, st.integers(0, 600), st.integers(0, 400), st.integers(1, 300), st.integers(1, 300))


@PATIENT
@given(
    frames=st.lists(st.tuples(st.floats(0.001, 5), st.lists(BOXES, max_size=4)), max_size=20),
    confirm_frames=st.integers(1, 4),
    coast_s=st.floats(0, 3),
)
def test_a_track_has_one_id_for_its_life_and_none_comes_back(frames, confirm_frames: int, coast_s: float) -> None:
    tracker = Tracker(TrackerConfig(confirm_frames=confirm_frames, coast_s=coast_s))
    at, alive, gone = 0.0, set(), set()
    for elapsed_s, boxes in frames:
        at += elapsed_s
        tracks = tracker.update([Face(box, 5.0) for box in boxes], at)
        ids = [track.id for track in tracks]
        assert len(set(ids)) == len(ids)
        assert not set(ids) & gone
        assert sum(track.missed == 0 for track in tracks) <= len(boxes)
        gone |= alive - set(ids)
        alive = set(ids)
