"""What the dashboard makes of messages: also of repeated, foreign and malicious ones, and of too many."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("nicegui", reason="the extra `web` is not installed")

from nicegui.json import dumps as as_browsers_get_it

from edge.labels import EMOTIONS
from edge.web.fleet import CAMERAS_MAX, EVENTS_MAX, STALE_S, Fleet, History
from edge.web.render import as_csv, boxes, card, count, face_tables, health, summary

NOW = 1_800_000_000.0
SCORES = {emotion: 0.91 if emotion == "happy" else 0.015 for emotion in EMOTIONS}


def faces(*tracks: int) -> str:
    face = {"emotion": "happy", "confidence": 0.91, "scores": SCORES, "box": [64, 48, 128, 128]}
    shown = [{**face, "track": track} for track in tracks]
    return json.dumps({"v": 1, "frame": [640, 480], "faces": shown})


def event(number: int, **changes: object) -> str:
    message = {"v": 1, "id": f"id{number}", "type": "update", "track": number, "emotion": "happy", "previous": None}
    return json.dumps({**message, "confidence": 0.91, "at": "2026-11-21T08:20:48.371Z", **changes})


def online() -> Fleet:
    fleet = Fleet()
    fleet.take("emotiond/pi/status", "online", NOW)
    fleet.take("emotiond/pi/front/status", "online", NOW)
    return fleet


@pytest.fixture
def fleet() -> Fleet:
    return online()


def test_a_camera_shows_what_its_messages_say(fleet: Fleet) -> None:
    fleet.take("emotiond/pi/front/faces", faces(1, 2), NOW)
    emotion = {"v": 1, "emotion": "happy", "confidence": 0.91, "faces": 2}
    fleet.take("emotiond/pi/front/emotion", json.dumps(emotion), NOW)
    fleet.take("emotiond/pi/stats", json.dumps({"v": 1, "camera": "front", "fps_out": 30.0}), NOW)
    (view,) = fleet.cameras()
    assert (view.device, view.name, view.status, view.emotion, view.faces_count) == (
        "pi",
        "front",
        "online",
        "happy",
        2,
    )
    assert [face["track"] for face in view.live_faces(NOW + 1)] == [1, 2]
    assert "left:10.00%;top:10.00%;width:20.00%;height:26.67%" in boxes(view.faces)
    assert view.live_faces(NOW + STALE_S + 0.1) == []
    assert view.stats["fps_out"] == 30.0


@pytest.mark.parametrize("status", ["offline", "stopped"])
def test_a_device_that_dies_takes_its_cameras_along(fleet: Fleet, status: str) -> None:
    fleet.take("emotiond/pi/front/faces", faces(1), NOW)
    fleet.take("emotiond/pi/status", status, NOW)
    (view,) = fleet.cameras()
    assert (view.status, view.live_faces(NOW)) == (status, [])
    fleet.take("emotiond/pi/status", "online", NOW)
    fleet.take("emotiond/pi/front/status", "paused", NOW)
    assert fleet.cameras()[0].status == "paused"


def test_without_a_broker_no_state_is_known_until_it_says_so_anew(fleet: Fleet) -> None:
    fleet.take("emotiond/pi/front/faces", faces(1), NOW)
    fleet.lose_sight()
    (view,) = fleet.cameras()
    assert (view.status, view.live_faces(NOW)) == ("unknown", [])
    fleet.take("emotiond/pi/garden/status", "online", NOW)
    assert [view.status for view in fleet.cameras()] == ["unknown", "unknown"]
    fleet.take("emotiond/pi/status", "online", NOW)
    assert [view.status for view in fleet.cameras()] == ["online", "online"]


def test_what_was_forgotten_at_the_broker_is_forgotten_here(fleet: Fleet) -> None:
    fleet.take("emotiond/pi/garden/status", "online", NOW)
    fleet.take("emotiond/pi/front/status", "", NOW)
    assert [view.name for view in fleet.cameras()] == ["garden"]
    fleet.take("emotiond/pi/status", "", NOW)
    assert fleet.cameras() == []


def test_events_come_once_newest_first_and_are_bounded(fleet: Fleet) -> None:
    for number in [*range(EVENTS_MAX + 5), 7000, 7000]:
        fleet.take("emotiond/pi/front/events", event(number), NOW)
    events = fleet.events()
    assert len(events) == EVENTS_MAX
    assert (events[0]["face"], events[-1]["face"]) == (EVENTS_MAX + 4, 5)


def test_history_has_means_per_bin_and_gaps_where_nobody_was() -> None:
    history = History()
    sad = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    happy = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    for at, scores in ((NOW, sad), (NOW + 1, happy), (NOW + 12, happy), (NOW + 95, sad)):
        history.add(at, scores)
    series = history.series(NOW + 100, 900)
    assert [(at - NOW, means and (means[3], means[4])) for at, means in series] == [
        (0, (0.5, 0.5)),
        (10, (1.0, 0.0)),
        (20, None),
        (90, (0.0, 1.0)),
    ]
    assert history.series(NOW + 2000, 900) == []
    assert len(history.series(NOW + 100, 86_400)) == 1  # one coarse bin


def test_a_clock_that_was_ahead_takes_nothing_from_what_is_seen_once_it_is_right(fleet: Fleet) -> None:
    fleet.take("emotiond/pi/front/faces", faces(1), NOW + 86_400)
    (view,) = fleet.cameras()
    assert view.live_faces(NOW) == []
    for seconds in (0, 2, 40):
        fleet.take("emotiond/pi/front/faces", faces(1), NOW + seconds)
    for span_s, starts in ((900, [0, 10, 40]), (604_800, [0])):
        assert [at - NOW for at, _ in view.history.series(NOW + 40, span_s)] == starts
    assert [at - NOW for at, means in view.history.series(NOW + 86_400, 900) if means] == [86_400]

    history = History()
    for number in (*range(100_000, 110_000), *range(10_000)):
        history.add(NOW + 300 * number, [0.5] * 7)
    assert len([means for _, means in history.series(NOW + 300 * 9_999, 604_800) if means]) == 604_800 // 300


def test_history_is_bounded() -> None:
    history = History()
    for minute in range(10 * 24 * 60):
        history.add(NOW + 60 * minute, [0.0] * 7)
    assert len(history.series(NOW + 10 * 86_400, 604_800)) <= 2017


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("emotiond/pi/front/faces", "no JSON"),
        ("emotiond/pi/front/faces", "[" * 100_000),
        ("emotiond/pi/front/faces", json.dumps({"v": 2, "faces": []})),
        ("emotiond/pi/front/faces", json.dumps({"v": 1, "faces": [{"track": 1}]})),
        ("emotiond/pi/front/faces", faces(1).replace("[640, 480]", "[0, 0]")),
        ("emotiond/pi/front/faces", faces(1).replace("[64, 48, 128, 128]", '"<b>"')),
        ("emotiond/pi/front/faces", json.dumps({"v": 1, "faces": 7})),
        ("emotiond/pi/front/events", event(1, track="x")),
        ("emotiond/pi/front/emotion", "{}"),
        ("emotiond/pi/front/emotion", json.dumps({"v": 1, "emotion": {}, "confidence": None, "faces": "x"})),
        ("emotiond/pi/stats", json.dumps({"v": 1})),
        ("emotiond/pi/front/unknown", "x"),
        ("emotiond/pi/cmd/pause/now", "x"),
        ("emotiond//front/status", "online"),
        ("emotiond/pi", "x"),
        ("emotiond/pi/new/events", "no JSON"),
        ("emotiond/pi/new/faces", json.dumps({"v": 1, "frame": [640, 480], "faces": 7})),
        ("emotiond/pi/front/faces", faces(1).replace("[640, 480]", "[640]")),
        ("emotiond/pi/front/faces", faces(1) + " " * 2**19),
        ("emotiond/pi/stats", json.dumps({"v": 1, "camera": ""})),
        ("emotiond/pi/stats", json.dumps({"v": 1, "camera": "a/b"})),
        ("emotiond/pi/stats", json.dumps({"v": 1, "camera": "#"})),
        ("emotiond/pi/stats", json.dumps({"v": 1, "camera": "x" * 65})),
        ("emotiond/pi/a\0b/status", "online"),
        (f"emotiond/{'x' * 1000}/front/status", "online"),
    ],
)
def test_what_is_not_emotionds_changes_nothing(fleet: Fleet, topic: str, text: str) -> None:
    fleet.take(topic, text, NOW)
    (view,) = fleet.cameras()
    assert (view.name, view.faces, view.emotion) == ("front", [], None)
    assert fleet.events() == []


# What JSON can say and browsers, UTF-8 or arithmetic cannot take, and what is of another kind.
TEXTS = [r"\ud800", r"\udfff\ud800", "1e999", "nan", "9" * 20, "<script>", ""]
NUMBERS = ["1e30", "1e400", "-1e400", "NaN", "Infinity", "-1", "0", "5e-324", *("9" * n for n in (16, 20, 400, 5000))]
OTHERS = ["null", "true", "[]", "{}", r'[{"a": "\ud800"}]', "[" * 300 + "]" * 300, "[" * 100_000]
WRONG = [*(f'"{text}"' for text in TEXTS), *NUMBERS, *OTHERS]
GOOD: dict[str, dict[str, Any]] = {
    "emotiond/pi/front/faces": json.loads(faces(1)),
    "emotiond/pi/front/events": json.loads(event(1)),
    "emotiond/pi/front/emotion": {"v": 1, "emotion": "happy", "confidence": 0.9, "faces": 1},
    "emotiond/pi/stats": {
        "v": 1,
        "camera": "front",
        "fps_in": 30.0,
        "fps_out": 29.9,
        "latency_ms": {"p95": 21.5},
        "drops": {"superseded": 1, "too_hot": 2},
        "queue": 3,
        "temperature_c": 51.26,
        "uptime_s": 7320,
        "model": "m",
        "runtime": "r",
        "snapshots": True,
    },
}


def damaged(value: Any) -> Iterator[Any]:
    """The value with each of its parts, and all of it, replaced by `@`."""
    yield "@"
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for part in damaged(value[key]):
            copy = value.copy()
            copy[key] = part
            yield copy


def pages(fleet: Fleet) -> list[object]:
    """What the pages send to browsers."""
    views = fleet.cameras()
    shown = [
        (card(view), summary(view), health(view.stats, 1), face_tables(view.faces), boxes(view.faces)) for view in views
    ]
    series = [view.history.series(NOW, 900) for view in views]
    return [fleet.events(), as_csv(fleet.events()), count(views), shown, series]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong[:20])
def test_whatever_stands_in_a_message_pages_can_be_made_of_it(wrong: str) -> None:
    messages = [
        *((topic, json.dumps(broken)) for topic, message in GOOD.items() for broken in damaged(message)),
        *((topic, '"@"') for topic in ("emotiond/pi/status", "emotiond/pi/front/status")),
    ]
    for topic, text in messages:
        fleet = online()
        fleet.take(topic, text.replace('"@"', wrong), NOW)
        sent = as_browsers_get_it(pages(fleet))
        assert re.search("(nan|inf) ?(%|ms|°)", sent) is None


def test_a_devices_health_is_shown_without_what_is_missing(fleet: Fleet) -> None:
    stats = GOOD["emotiond/pi/stats"]
    fleet.take("emotiond/pi/stats", json.dumps(stats), NOW)
    (view,) = fleet.cameras()
    shown = health(view.stats, 1)
    for text in ("<dd>29.9<", "<dd>30.0<", "<dd>21.5 ms<", "<dd>3<", "<dd>51 °C<", "<dd>2 h 2 min<", "<dd>m on r<"):
        assert text in shown
    fleet.take("emotiond/pi/stats", json.dumps({**stats, "latency_ms": None, "temperature_c": None}), NOW)
    assert health(view.stats, 1).count("<dd>-<") == 2
    assert (view.allows_pictures, view.stats["dropped"]) == (True, 3)


def test_cameras_and_faces_are_bounded(fleet: Fleet) -> None:
    for number in range(CAMERAS_MAX + 50):
        fleet.take(f"emotiond/d{number}/c/status", "online", NOW)
    assert len(fleet.cameras()) == CAMERAS_MAX
    fleet.take("emotiond/pi/front/faces", faces(*range(1000)), NOW)
    front = next(view for view in fleet.cameras() if view.name == "front")
    assert len(front.faces) <= 32


@pytest.mark.parametrize("name", ["=1*1", "-1", "@SUM(A1)", "\uff1d1*1"])
def test_the_export_is_a_table_and_runs_nothing_in_a_spreadsheet(fleet: Fleet, name: str) -> None:
    fleet.take(f"emotiond/{name}/front/events", event(1), NOW)
    header, row = csv.reader(io.StringIO(as_csv(fleet.events())))
    exported = dict(zip(header, row, strict=True))
    assert exported["device"] == f"'{name}"
    assert (exported["emotion"], exported["previous"], exported["confidence"]) == ("happy", "", "0.91")
