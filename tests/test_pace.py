"""The pace falls in steps, sweeps before frames, and comes back when it is calm."""

import time

import pytest

from edge.camera import Thinning
from edge.pace import CALM_CHECKS, Pace


def test_heat_slows_the_sweeps_before_the_frames() -> None:
    pace = Pace(hot_c=80.0, temperature=lambda: 85.0)
    steps = []
    for _ in range(5):
        pace.judge(85.0, 0.0)
        steps.append((pace.slowdown, pace.every))
    assert steps == [(2, 1), (4, 1), (4, 2), (4, 4), (4, 4)]
    assert pace.figures == {"sweeps_rarer": 4, "one_frame_of": 4, "because": "hot"}


def test_a_slow_device_sweeps_more_rarely_and_keeps_its_frames() -> None:
    pace = Pace(hot_c=None, temperature=lambda: 120.0)
    for _ in range(10):
        pace.judge(120.0, 0.5)
    assert (pace.slowdown, pace.every, pace.because) == (4, 1, "slow")


def test_the_pace_comes_back_step_by_step_once_it_is_calm() -> None:
    pace = Pace(hot_c=80.0, temperature=lambda: None)
    for _ in range(2):
        pace.judge(81.0, 0.0)
    assert not any(pace.judge(78.0, 0.0) for _ in range(3 * CALM_CHECKS)), "only just cooler: it would swing"
    changes = [pace.judge(60.0, 0.0) for _ in range(2 * CALM_CHECKS)]
    assert changes.index(True) == CALM_CHECKS - 1
    assert (pace.slowdown, pace.because) == (1, None)


def test_an_unknown_temperature_is_not_hot() -> None:
    pace = Pace(hot_c=80.0, temperature=lambda: None)
    assert not pace.judge(None, 0.0)


def test_checks_are_rare_and_look_at_the_frames_between(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(hot_c=None, temperature=lambda: None)
    monkeypatch.setattr("edge.pace.CHECK_EVERY_S", 0.0)
    assert not pace.check(done=0, superseded=0)
    monkeypatch.undo()
    assert pace.check(done=50, superseded=50)
    assert not pace.check(done=51, superseded=5000)
    assert (pace.slowdown, pace.because) == (2, "slow")


def test_frames_superseded_before_the_first_or_during_a_pause_are_no_sign_of_slowness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.pace.CHECK_EVERY_S", 0.0)
    pace = Pace(hot_c=None, temperature=lambda: None)
    assert not pace.check(done=0, superseded=9)
    assert not pace.check(done=60, superseded=9)
    pace.interrupt()
    assert not pace.check(done=60, superseded=900)
    assert not pace.check(done=120, superseded=900)
    assert pace.because is None


def test_frames_over_the_limit_are_dropped_and_counted() -> None:
    for camera_fps, max_fps, expected in ((30, 10, 10), (30, 20, 20), (30, 30, 30), (15, 30, 15), (30, None, 30)):
        thinning = Thinning(max_fps)
        taken = sum(thinning.takes(frame / camera_fps) for frame in range(10 * camera_fps))
        assert abs(taken / 10 - expected) <= 0.3, (camera_fps, max_fps)
        assert taken + thinning.dropped["over_max_fps"] == 10 * camera_fps


def test_a_hot_device_takes_one_frame_of_some() -> None:
    thinning = Thinning(None)
    thinning.every = 4
    started = time.monotonic()
    assert sum(thinning.takes(started + frame / 30) for frame in range(40)) == 10
    assert thinning.dropped == {"over_max_fps": 0, "too_hot": 30}
