"""The counting behind `python -m benchmarks detection`, on boxes whose answer is known."""

import numpy as np
import pytest

from benchmarks.accuracy import summary
from benchmarks.detection import compare, jitter, link
from edge.records import Box

HERE, THERE = Box(100, 100, 80, 80), Box(400, 100, 80, 80)
FRAMES = 20


def counted(
    reported: list[dict[int, Box]], found: list[list[Box]] | None = None, seen: dict[int, list[Box]] | None = None
) -> dict:
    found = found or [[HERE]] * FRAMES
    return compare(reported, found, found, gap=5, seen=seen or {})


def test_a_face_that_is_always_reported_is_recalled_once_a_frame() -> None:
    result = counted([{1: HERE}] * FRAMES)
    assert (result["faces"], result["reference_boxes"], result["recalled"]) == (1, FRAMES, FRAMES)
    assert (result["false"], result["false_tracks"], result["id_switches"]) == (0, 0, 0)


def test_frames_before_the_first_report_count_against_recall_but_not_after_it() -> None:
    result = counted([{}] * 4 + [{1: HERE}] * (FRAMES - 4))
    assert result["recalled"] == FRAMES - 4
    assert result["frames_to_report"] == 4
    assert result["boxes_after_report"] == result["recalled_after_report"] == FRAMES - 4


def test_another_number_for_the_same_face_is_a_switch() -> None:
    result = counted([{1: HERE}] * 8 + [{2: HERE}] * 5 + [{}] + [{1: HERE}] * 6)
    assert result["id_switches"] == 2
    assert result["false_tracks"] == 0


def test_a_box_where_nobody_is_is_false_and_so_is_its_track() -> None:
    result = counted([{1: HERE, 2: THERE}] * FRAMES)
    assert (result["false"], result["false_tracks"]) == (FRAMES, 1)


def test_what_the_reference_finds_now_and_then_is_no_face() -> None:
    found = [[HERE, THERE] if number in (3, 11) else [HERE] for number in range(FRAMES)]
    result = counted([{1: HERE}] * FRAMES, found)
    assert (result["faces"], result["reference_false"]) == (1, 2)
    assert result["recalled"] == result["reference_boxes"] == FRAMES


def test_what_a_second_detector_never_sees_is_no_face_if_it_was_asked() -> None:
    found = [[HERE, THERE]] * FRAMES
    refuted = counted([{1: HERE}] * FRAMES, found, seen={3: [HERE], 13: [HERE]})
    assert (refuted["faces"], refuted["refuted"]) == (1, 1)
    assert (refuted["reference_boxes"], refuted["recalled"]) == (FRAMES, FRAMES)
    assert (refuted["all_reference_boxes"], refuted["all_recalled"]) == (2 * FRAMES, FRAMES)
    once = counted([{1: HERE}] * FRAMES, found, seen={3: [HERE], 13: [THERE]})
    not_asked = counted([{1: HERE}] * FRAMES, found)
    assert once["faces"] == not_asked["faces"] == 2
    assert once["recalled"] == not_asked["recalled"] == once["reference_boxes"] / 2
    taken_for_one = counted([{1: HERE, 2: THERE}] * FRAMES, found, seen={3: [HERE]})
    assert (taken_for_one["false_tracks"], taken_for_one["false"]) == (1, FRAMES)


def test_a_face_that_the_reference_misses_for_a_moment_stays_one() -> None:
    found = [[] if 8 <= number < 12 else [HERE] for number in range(FRAMES)]
    assert [len(chain.boxes) for chain in link(found, gap=5)] == [16]
    assert counted([{1: HERE}] * FRAMES, found)["false"] == 0
    assert [len(chain.boxes) for chain in link(found, gap=3)] == [8, 8]


def test_even_motion_is_steady_and_jumping_is_not() -> None:
    even = {number: Box(10 * number, 5 * number, 80, 80) for number in range(5)}
    assert jitter(even) == pytest.approx([0, 0, 0])
    jumping = {number: Box(8 * (number % 2), 0, 80, 80) for number in range(5)}
    assert jitter(jumping) == pytest.approx([0.1] * 3)


def test_the_loss_is_one_of_pairs() -> None:
    answers = [(True, True, True)] * 60 + [(True, False, True)] * 5 + [(False, True, True)] * 3 + [(False,) * 3] * 32
    result = summary(answers, 125)
    assert (result["direct"], result["deployed"], result["found"], result["told"]) == (0.65, 0.63, 0.8, 0.68)
    assert result["lost"] == pytest.approx(0.02)
    low, high = result["lost_ci95"]
    assert low < 0 < high
    assert high - low < 2 * np.ptp(result["direct_ci95"])
