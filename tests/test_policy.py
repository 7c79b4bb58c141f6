"""When an emotion becomes a face's stable one, and which events that makes."""

import uuid

from edge.config import EmotionConfig
from edge.policy import EmotionPolicy, uuid7
from edge.records import Event, Scores
from fakes import frame, scores, track

SETTINGS = EmotionConfig(smoothing_s=0.0, min_confidence=0.6, dwell_s=0.5)
HAPPY, SAD, UNSURE = scores(happy=0.9), scores(sad=0.9), scores(happy=0.4)


def play(policy: EmotionPolicy, *seen: Scores | None, since: float = 0.0) -> list[Event]:
    """One face, ten frames a second."""
    events = []
    for step, score in enumerate(seen):
        events += policy.update([track()], [score], frame(since + step / 10))[1]
    return events


def test_a_new_face_is_uncertain_until_an_emotion_has_led_for_the_dwell_time() -> None:
    events = play(EmotionPolicy(SETTINGS), *[HAPPY] * 7)
    assert [(e.type, e.reading.emotion, e.previous) for e in events] == [("new", None, None), ("update", "happy", None)]


def test_the_dwell_time_is_measured_from_when_the_emotion_began_to_lead() -> None:
    policy = EmotionPolicy(SETTINGS)
    assert [e.type for e in play(policy, *[HAPPY] * 6)] == ["new"]
    assert [e.type for e in play(policy, HAPPY, since=0.65)] == ["update"]


def test_a_short_flash_of_another_emotion_changes_nothing() -> None:
    policy = EmotionPolicy(SETTINGS)
    play(policy, *[HAPPY] * 8)
    assert play(policy, SAD, SAD, HAPPY, SAD, SAD, SAD, HAPPY, since=1.0) == []


def test_what_never_reaches_the_confidence_stays_uncertain() -> None:
    (event,) = play(EmotionPolicy(SETTINGS), *[UNSURE] * 50)
    assert event.reading.emotion is None


def test_a_stable_emotion_stays_while_nothing_else_is_sure() -> None:
    policy = EmotionPolicy(SETTINGS)
    play(policy, *[HAPPY] * 8)
    assert play(policy, *[scores(sad=0.5)] * 20, since=1.0) == []
    (event,) = play(policy, *[SAD] * 8, since=4.0)
    assert (event.type, event.previous, event.reading.emotion) == ("update", "happy", "sad")


def test_scores_are_smoothed_by_time_not_by_frames() -> None:
    def after_one_second(frames: int) -> float:
        policy = EmotionPolicy(EmotionConfig(smoothing_s=0.5))
        policy.update([track()], [SAD], frame(0.0))
        for step in range(1, frames + 1):
            readings, _ = policy.update([track()], [HAPPY], frame(step / frames))
        return readings[0].scores.as_dict()["happy"]

    assert abs(after_one_second(5) - after_one_second(50)) < 0.002
    assert abs(after_one_second(10) - (0.9 - (0.9 - 0.1 / 6) * 2.718281828**-2)) < 0.002


def test_what_was_read_holds_until_the_next_reading_which_counts_for_all_of_the_time_since() -> None:
    def read(held: int) -> float:
        policy = EmotionPolicy(EmotionConfig(smoothing_s=0.5))
        policy.update([track()], [SAD], frame(0.0))
        for step in range(1, held + 1):
            readings, _ = policy.update([track()], [None], frame(step / 10))
            assert readings[0].scores.as_dict() == SAD.as_dict()
        readings, _ = policy.update([track()], [HAPPY], frame((held + 1) / 10))
        return readings[0].scores.as_dict()["happy"]

    assert read(0) < read(1) < read(5)


def test_the_dwell_time_ends_between_readings_too_but_not_while_a_face_is_missed() -> None:
    for missed, told in ((0, ["update"]), (1, [])):
        policy = EmotionPolicy(SETTINGS)
        play(policy, HAPPY, None, None, None, None, None)
        _, events = policy.update([track(missed=missed)], [None], frame(0.65))
        assert [event.type for event in events] == told


def test_a_coasting_face_is_not_read_and_one_that_is_gone_ends() -> None:
    policy = EmotionPolicy(SETTINGS)
    play(policy, *[HAPPY] * 8)
    readings, events = policy.update([track(missed=1)], [None], frame(0.9))
    assert (readings[0].emotion, events) == ("happy", [])
    readings, (end,) = policy.update([], [], frame(1.0))
    assert (readings, end.type, end.reading.emotion) == ([], "end", "happy")


def test_faces_are_told_apart() -> None:
    policy = EmotionPolicy(SETTINGS)
    for step in range(8):
        readings, _ = policy.update([track(1), track(2)], [HAPPY, SAD], frame(step / 10))
    assert [reading.emotion for reading in readings] == ["happy", "sad"]


def test_event_ids_are_version_7_uuids_in_order_of_time() -> None:
    ids = [uuid7() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {(7, uuid.RFC_4122)}
    assert ids[0][:8] <= ids[-1][:8]
    assert [text[:13] for text in ids] == sorted(text[:13] for text in ids)
