"""Tracks keep their ids, whatever the detector misses or invents."""

from edge.config import TrackerConfig
from edge.records import Box, Face
from edge.tracker import Tracker, blend

SETTINGS = TrackerConfig(confirm_frames=2, coast_s=0.5, box_smoothing=0.0)


def at(x: int, y: int = 0, size: int = 100) -> Face:
    return Face(Box(x, y, size, size), 5.0)


def ids(tracker: Tracker, faces: list[Face], when: float) -> list[int]:
    return [track.id for track in tracker.update(faces, when)]


def test_a_face_is_reported_once_it_was_found_often_enough() -> None:
    tracker = Tracker(SETTINGS)
    assert ids(tracker, [at(0)], 0.0) == []
    assert ids(tracker, [at(5)], 0.1) == [1]


def test_a_face_that_becomes_clear_is_reported_at_once() -> None:
    tracker = Tracker(SETTINGS.model_copy(update={"confirm_frames": 9, "sure_confidence": 20.0}))
    assert ids(tracker, [at(0)], 0.0) == []
    assert ids(tracker, [Face(at(0).box, 25.0)], 0.1) == [1]


def test_a_face_that_flickers_is_never_reported() -> None:
    tracker = Tracker(SETTINGS)
    for step in range(10):
        assert ids(tracker, [at(0)] if step % 2 else [], step / 10) == []


def test_ids_follow_two_faces_that_move_and_change_order() -> None:
    tracker = Tracker(SETTINGS)
    for step in range(20):
        left, right = at(step * 5), at(400 - step * 5)
        tracks = tracker.update([left, right] if step % 2 else [right, left], step / 10)
    assert [(track.id, track.box.x) for track in tracks] == [(1, 305), (2, 95)]


def test_a_missed_face_coasts_then_ends_and_its_id_is_not_used_again() -> None:
    tracker = Tracker(SETTINGS)
    for step in range(3):
        tracker.update([at(0)], step / 10)
    (coasting,) = tracker.update([], 0.6)
    assert (coasting.id, coasting.missed, coasting.age) == (1, 1, 3)
    assert ids(tracker, [], 0.71) == []
    tracker.update([at(0)], 0.8)
    assert ids(tracker, [at(0)], 0.9) == [2]


def test_a_face_found_again_while_it_coasts_keeps_its_id() -> None:
    tracker = Tracker(SETTINGS)
    for step in range(3):
        tracker.update([at(0)], step / 10)
    tracker.update([], 0.4)
    (track,) = tracker.update([at(10)], 0.5)
    assert (track.id, track.missed) == (1, 0)


def test_the_best_overlap_wins() -> None:
    tracker = Tracker(SETTINGS)
    tracker.update([at(0), at(60)], 0.0)
    tracks = tracker.update([at(50), at(10)], 0.1)
    assert [track.box.x for track in tracks] == [10, 50]


def test_clear_forgets_faces_but_not_used_ids() -> None:
    tracker = Tracker(SETTINGS)
    for step in range(2):
        tracker.update([at(0)], step / 10)
    tracker.clear()
    tracker.update([at(0)], 0.3)
    assert ids(tracker, [at(0)], 0.4) == [2]


def test_overlap_is_intersection_over_union() -> None:
    assert Box(0, 0, 10, 10).overlap(Box(0, 0, 10, 10)) == 1.0
    assert Box(0, 0, 10, 10).overlap(Box(5, 0, 10, 10)) == 50 / 150
    assert Box(0, 0, 10, 10).overlap(Box(10, 0, 10, 10)) == 0.0


def test_blend_keeps_a_share_of_the_old_box() -> None:
    assert blend(Box(0, 0, 100, 100), Box(40, 80, 200, 100), 0.25) == Box(30, 60, 175, 100)


def test_a_face_that_moved_on_while_it_was_missed_keeps_its_id() -> None:
    tracker = Tracker(SETTINGS)
    for step in range(3):
        tracker.update([at(0)], step / 10)
    tracker.update([], 0.3)
    (track,) = tracker.update([at(85)], 0.4)
    assert (track.id, track.missed) == (1, 0)


def test_a_face_of_another_size_beside_it_is_another() -> None:
    tracker = Tracker(SETTINGS)
    for step in range(3):
        tracker.update([at(0)], step / 10)
    tracker.update([], 0.3)
    for step in range(2):
        tracks = tracker.update([at(85, size=60)], 0.4 + step / 10)
    assert [track.id for track in tracks] == [1, 2]


def test_a_sure_face_is_reported_at_once() -> None:
    tracker = Tracker(SETTINGS)
    assert ids(tracker, [Face(Box(0, 0, 100, 100), SETTINGS.sure_confidence)], 0.0) == [1]
