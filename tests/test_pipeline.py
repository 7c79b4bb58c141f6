"""From frames to events, with a scripted search."""

import numpy as np

from edge.config import EmotionConfig, TrackerConfig
from edge.pipeline import Pipeline
from edge.policy import EmotionPolicy
from edge.records import Box, Scores
from edge.tracker import Tracker
from fakes import ConstantClassifier, ScriptedSearch, frame, scores

LEFT, RIGHT = Box(20, 100, 120, 120), Box(400, 100, 90, 90)


def build(detector: ScriptedSearch, classifier: ConstantClassifier) -> Pipeline:
    policy = EmotionPolicy(EmotionConfig(dwell_s=0.2, smoothing_s=0.1))
    tracker = Tracker(TrackerConfig(confirm_frames=2, coast_s=0.3))
    return Pipeline(detector, tracker, classifier, policy, reads_per_s=10)


def test_two_faces_appear_get_an_emotion_and_leave() -> None:
    pipeline = build(ScriptedSearch(*[[LEFT, RIGHT]] * 6), ConstantClassifier(scores(happy=0.8)))
    told = [(e.type, e.reading.track.id) for step in range(12) for e in pipeline.step(frame(step / 10, step)).events]
    assert told == [("new", 1), ("new", 2), ("update", 1), ("update", 2), ("end", 1), ("end", 2)]


def test_only_faces_that_are_in_the_frame_are_read() -> None:
    classifier = ConstantClassifier(scores(happy=0.8))
    pipeline = build(ScriptedSearch([LEFT], [LEFT], [], [LEFT]), classifier)
    sights = [pipeline.step(frame(step / 10, step)) for step in range(4)]
    assert len(classifier.crops) == 2
    assert {crop.shape for crop in classifier.crops} == {(48, 48)}
    assert [len(sight.readings) for sight in sights] == [0, 1, 1, 1]


def test_a_change_of_resolution_ends_the_faces_of_the_old_one() -> None:
    pipeline = build(ScriptedSearch(*[[RIGHT]] * 3, [LEFT], [LEFT]), ConstantClassifier(scores(happy=0.8)))
    for step in range(3):
        pipeline.step(frame(step / 10, step))
    events = [e for step in (3, 4) for e in pipeline.step(frame(step / 10, step, size=(320, 240))).events]
    # Its box is told in pixels of the frame in which it was.
    assert [(e.type, e.reading.track.id, e.frame_size) for e in events] == [
        ("end", 1, (640, 480)),
        ("new", 2, (320, 240)),
    ]


def test_finish_ends_every_face() -> None:
    pipeline = build(ScriptedSearch([LEFT], [LEFT]), ConstantClassifier(scores(happy=0.8)))
    assert pipeline.finish() is None
    for step in range(2):
        pipeline.step(frame(step / 10, step))
    sight = pipeline.finish()
    assert [e.type for e in sight.events] == ["end"]
    assert sight.readings == []


class ChangingClassifier(ConstantClassifier):
    """Sees something else each time."""

    def classify(self, crops: list[np.ndarray]) -> list[Scores]:
        seen = scores(happy=0.8) if len(self.crops) % 2 else scores(happy=0.6)
        self.crops += crops
        return [seen] * len(crops)


def test_a_face_is_read_so_often_at_most_and_its_scores_hold_between() -> None:
    classifier = ChangingClassifier(scores(happy=0.8))
    pipeline = build(ScriptedSearch(*[[LEFT]] * 31), classifier)
    told = [e.type for step in range(31) for e in pipeline.step(frame(step / 30, step)).events]
    assert len(classifier.crops) == 10
    assert told == ["new", "update"]


def test_a_face_that_shows_the_same_again_is_read_a_third_as_often() -> None:
    classifier = ConstantClassifier(scores(happy=0.8))
    pipeline = build(ScriptedSearch(*[[LEFT]] * 32), classifier)
    told = [e.type for step in range(32) for e in pipeline.step(frame(step / 30, step)).events]
    assert len(classifier.crops) == 2 + 3  # in the second frame, three later, and in every ninth from then on
    assert told == ["new", "update"]


def test_where_nothing_moves_a_face_is_read_twice_a_second() -> None:
    classifier = ConstantClassifier(scores(happy=0.8))
    pipeline = build(ScriptedSearch(*[[LEFT]] * 61, moved=False), classifier)
    told = [e.type for step in range(61) for e in pipeline.step(frame(step / 30, step)).events]
    assert len(classifier.crops) == 4
    assert told == ["new", "update"]
