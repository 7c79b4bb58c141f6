"""The published JSON, field by field."""

import json
from datetime import datetime, timedelta, timezone

from edge.labels import EMOTIONS
from edge.messages import Origin, Topics, emotion_message, encode, event_message, faces_message, timestamp
from edge.pipeline import Sight
from edge.records import Box, Event, Reading
from fakes import EPOCH, frame, scores, track

ORIGIN = Origin("lab-pi", "front", "0123456789ab")
READING = Reading(track(17, Box(212, 96, 118, 118)), scores(happy=0.91), "happy")


def test_an_event_says_what_happened_to_one_face() -> None:
    event = Event("some-id", "update", READING, "neutral", (640, 480), EPOCH, EPOCH + timedelta(seconds=1.5), 7.42)
    message = json.loads(encode(event_message(event, ORIGIN)))
    assert list(message.pop("scores")) == list(EMOTIONS)
    assert message == {
        "v": 1,
        "id": "some-id",
        "type": "update",
        "device": "lab-pi",
        "camera": "front",
        "track": 17,
        "emotion": "happy",
        "previous": "neutral",
        "confidence": 0.91,
        "box": [212, 96, 118, 118],
        "frame": [640, 480],
        "started_at": "2026-01-01T00:00:00.000Z",
        "at": "2026-01-01T00:00:01.500Z",
        "latency_ms": 7.4,
        "model": "0123456789ab",
    }


def test_faces_lists_all_of_a_frame() -> None:
    uncertain = Reading(track(18), scores(sad=0.4), None)
    message = faces_message(Sight(frame(seq=9), [READING, uncertain], []), ORIGIN)
    assert (message["seq"], message["frame"]) == (9, [640, 480])
    assert [(face["track"], face["emotion"], face["confidence"]) for face in message["faces"]] == [
        (17, "happy", 0.91),
        (18, None, 0.4),
    ]


def test_the_dominant_emotion_is_that_of_the_largest_face_that_has_one() -> None:
    small = Reading(track(1, Box(0, 0, 50, 50)), scores(sad=0.8), "sad")
    uncertain = Reading(track(2, Box(0, 0, 300, 300)), scores(fear=0.3), None)
    message = emotion_message([small, READING, uncertain], EPOCH, ORIGIN)
    assert (message["emotion"], message["confidence"], message["faces"]) == ("happy", 0.91, 3)
    message = emotion_message([uncertain], EPOCH, ORIGIN)
    assert (message["emotion"], message["confidence"], message["faces"]) == (None, None, 1)
    assert emotion_message([], EPOCH, ORIGIN)["faces"] == 0


def test_times_are_utc_with_milliseconds() -> None:
    east = timezone(timedelta(hours=2))
    assert timestamp(datetime(2026, 7, 1, 1, 2, 3, 4567, east)) == "2026-06-30T23:02:03.004Z"


def test_topics_have_a_fixed_depth() -> None:
    topics = Topics("emotiond", "lab-pi")
    assert topics.status == "emotiond/lab-pi/status"
    assert topics.stats == "emotiond/lab-pi/stats"
    assert topics.of_camera("front", "events") == "emotiond/lab-pi/front/events"
    assert topics.command("+") == "emotiond/lab-pi/cmd/+"


def test_the_dominant_emotion_is_of_the_largest_face_that_has_one() -> None:
    near = Reading(track(1, Box(0, 0, 90, 90)), scores(sad=0.6), "sad")
    far = Reading(track(2, Box(300, 0, 60, 60)), scores(happy=0.99), "happy")
    nearest = Reading(track(3, Box(100, 0, 120, 120)), scores(fear=0.3), None)
    message = emotion_message([far, near, nearest], EPOCH, ORIGIN)
    assert (message["emotion"], message["confidence"], message["faces"]) == ("sad", 0.6, 3)
