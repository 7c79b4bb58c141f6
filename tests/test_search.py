"""Sweep and follow, with the real cascade on the built-in clip, and with a detector that counts what it is asked."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge import clip
from edge.app import build_pipeline, build_search, build_source
from edge.classifier import TfliteClassifier
from edge.config import Config
from edge.errors import EndOfStream
from edge.records import Box, Face, Frame, distinct
from edge.search import MOVES_ON, FaceSearch
from fakes import EPOCH

FACE = Box(200, 100, 100, 100)
SMALL_PLACES = [Box(x, y, 8, 8) for x in range(0, 640, 40) for y in range(0, 480, 40)]
SHOWN = slice(round(clip.ENTER_S * clip.FPS), round(clip.LEAVE_S * clip.FPS))


def as_frames(images: list[np.ndarray], fps: float = clip.FPS) -> list[Frame]:
    return [Frame(image, seq, 0.0, EPOCH, media_time=seq / fps) for seq, image in enumerate(images)]


class Recorder:
    """Finds one face wherever it looks, and remembers where that was."""

    def __init__(self, face: Box | None) -> None:
        self.windows: list[Box | None] = []
        self.followed = 0
        self._found = [Face(face, 5.0)] if face else []

    def detect(self, frame: Frame, window: Box | None = None, known: Sequence[Box] = ()) -> list[Face]:
        self.windows.append(window)
        return [face for face in self._found if window is None or window.common(face.box)]

    def near(self, frame: Frame, box: Box, reach: float) -> Face | None:
        self.followed += 1
        return self._found[0] if self._found else None


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(Box(200, 100, 100, 100))


def search_with(recorder: Recorder, live: bool = False, **settings: object) -> FaceSearch:
    return FaceSearch(recorder, recorder, Config(search=settings).search, smallest=48, live=live)


def noise(count: int, size: tuple[int, int] = (480, 640)) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [cv2.resize(random.integers(0, 256, (12, 16), np.uint8), size[::-1]) for _ in range(count)]


def runs(config: Config, frames: list[Frame]) -> Iterator[tuple[list[tuple[int, Box]], dict[str, int]]]:
    with build_search(config) as search:
        pipeline = build_pipeline(config, search, TfliteClassifier())
        for frame in frames:
            readings = pipeline.step(frame).readings
            yield [(reading.track.id, reading.track.box) for reading in readings], search.figures


def test_a_person_is_followed_in_every_frame_with_few_sweeps(clip_frames: list[np.ndarray]) -> None:
    seen = list(runs(Config(), as_frames(clip_frames)))
    assert {number for faces, _ in seen for number, _ in faces} == {1}
    assert all(len(faces) == 1 for faces, _ in seen[SHOWN])
    for (before, _), (after, _) in itertools.pairwise(seen[SHOWN]):
        assert before[0][1].overlap(after[0][1]) > 0.6
    assert seen[SHOWN.stop][1]["sweeps"] - seen[SHOWN.start][1]["sweeps"] <= 2.5 * (clip.LEAVE_S - clip.ENTER_S)
    assert seen[-1][0] == []


def test_the_same_file_gives_the_same_boxes(clip_frames: list[np.ndarray]) -> None:
    first, again = (list(runs(Config(), as_frames(clip_frames[20:120]))) for _ in range(2))
    assert first == again


def test_a_still_picture_is_searched_once(clip_frames: list[np.ndarray]) -> None:
    seen = list(runs(Config(), as_frames([clip_frames[60]] * 150)))
    assert seen[-1][1]["sweeps"] <= 2
    assert seen[-1][1]["still_frames"] >= 140
    assert all(faces for faces, _ in seen[5:])


def changed_in(scene: np.ndarray, places: list[Box]) -> np.ndarray:
    image = scene.copy()
    for place in places:
        place.cut(image)[:] = 255 - place.cut(scene)
    return image


@pytest.mark.parametrize(
    "places", [[Box(560, 400, 60, 60)], [Box(560, 400, 60, 60), Box(20, 60, 60, 60)]], ids=["one place", "two places"]
)
def test_only_what_changed_is_searched(recorder: Recorder, places: list[Box]) -> None:
    scene = noise(1)[0]
    changed = changed_in(scene, places)
    with search_with(recorder, empty_interval_s=0) as search:
        for frame in as_frames([scene, changed, changed]):
            search.find(frame, [])
    assert recorder.windows[0] == Box(0, 0, 640, 480)
    for place in places:
        assert any(window.common(place.grown(10)) == place.grown(10) for window in recorder.windows[1:])
    assert len(recorder.windows) == 1 + len(places)
    assert sum(window.w * window.h for window in recorder.windows[1:]) < len(places) * 640 * 480 / 6


def test_places_beside_one_another_are_searched_together(recorder: Recorder) -> None:
    scene = noise(1)[0]
    changed = changed_in(scene, [Box(300, 200, 60, 60), Box(420, 260, 60, 60)])
    with search_with(recorder, empty_interval_s=0) as search:
        for frame in as_frames([scene, changed]):
            search.find(frame, [])
    assert len(recorder.windows) == 2
    assert recorder.windows[1].common(Box(300, 200, 180, 120)) == Box(300, 200, 180, 120)


def test_no_place_is_searched_twice_for_one_that_lies_within_the_bend_of_another(recorder: Recorder) -> None:
    scene = noise(1)[0]
    changed = changed_in(scene, [Box(0, 0, 600, 40), Box(0, 40, 40, 400), Box(400, 330, 60, 60)])
    with search_with(recorder, empty_interval_s=0) as search:
        for frame in as_frames([scene, changed]):
            search.find(frame, [])
    assert len(recorder.windows) == 2


def test_whole_pictures_come_at_their_interval_and_sooner_while_nobody_is_known(recorder: Recorder) -> None:
    frames = as_frames(noise(60), fps=30)
    with search_with(recorder, interval_s=0.5, steady_interval_s=1.0, empty_interval_s=0.1) as search:
        for frame in frames:
            search.find(frame, [Box(200, 100, 100, 100)])
        assert search.figures["sweeps"] == 2  # the first found nobody new, so the next can wait for a second
        search.slowdown = 2
        for frame in frames:
            search.find(Frame(frame.image, 0, 0.0, EPOCH, frame.media_time + 2), [])
        assert search.figures["sweeps"] == pytest.approx(4 + 2 / 0.2, abs=2)


def test_a_face_that_came_or_was_lost_brings_the_next_search_sooner(recorder: Recorder) -> None:
    face, other = Face(Box(200, 100, 100, 100), 9.0), Face(Box(400, 100, 100, 100), 9.0)
    frames = as_frames(noise(60), fps=30)

    def sweeps(found: list[Face], known: list[Box]) -> int:
        recorder.detect = lambda frame, window=None, known=(): found  # type: ignore[method-assign]
        with search_with(recorder, interval_s=0.5, steady_interval_s=2.0, join_after_s=0) as search:
            for frame in frames:
                search.find(frame, known)
            return search.figures["sweeps"]

    assert sweeps([face], [face.box]) == 1
    assert sweeps([face, other], [face.box]) == 4
    recorder.near = lambda frame, box, reach: None if frame.seq % 10 in (4, 5) else face  # type: ignore[method-assign]
    assert sweeps([face], [face.box]) == 1  # two frames of thirty a second may miss it
    recorder.near = lambda frame, box, reach: None  # type: ignore[method-assign]
    assert sweeps([], [face.box]) > 4


@pytest.mark.parametrize(
    ("places", "searched_at"),
    [
        pytest.param([Box(500, 60, 80, 80)], [0, 1, 3], id="elsewhere"),
        pytest.param([Box(500, 60, 80, 80), Box(210, 300, 80, 80)], [0, 1, 3], id="elsewhere and below the face"),
        pytest.param([Box(210, 300, 80, 80)], [0, 3], id="below the face"),
        pytest.param([Box(110, 120, 80, 80)], [0, 3], id="beside it"),
        pytest.param(SMALL_PLACES, [0, 3], id="in small places"),
    ],
)
def test_while_nobody_comes_it_is_searched_where_a_face_can_have_come(
    recorder: Recorder, places: list[Box], searched_at: list[float]
) -> None:
    scene = noise(1)[0]
    frames = as_frames([scene] * 15 + [changed_in(scene, places)] * 90, fps=30)
    searched = []
    with search_with(recorder, interval_s=0.5, steady_interval_s=1.0, join_after_s=0) as search:
        for frame in frames:
            before = len(recorder.windows)
            search.find(frame, [FACE])
            searched += [frame.media_time] * (len(recorder.windows) - before)
    assert searched == searched_at
    assert recorder.windows[-1] == Box(0, 0, 640, 480)


def test_where_only_a_body_moves_it_is_looked_for_others_at_the_interval_and_not_in_every_frame(
    recorder: Recorder,
) -> None:
    scene, body, other = noise(1)[0], Box(210, 300, 80, 80), Box(500, 60, 80, 80)
    places = [[body] * (number % 2) + [other] * (number >= 45) for number in range(75)]
    searched = []
    with search_with(recorder, interval_s=0.5, steady_interval_s=1.0, join_after_s=0) as search:
        for frame in as_frames([changed_in(scene, changed) for changed in places], fps=30):
            before = len(recorder.windows)
            search.find(frame, [FACE])
            searched += [frame.media_time] * (len(recorder.windows) - before)
    assert searched == [0.0, 2.0]


@pytest.mark.parametrize(
    ("swept", "known_later"),
    [
        pytest.param([FACE, Box(400, 100, 100, 100)], [FACE], id="the last search found somebody"),
        pytest.param([FACE], [], id="nobody is known any more"),
    ],
)
def test_changes_in_small_places_are_searched_while_somebody_may_be_missed(
    recorder: Recorder, swept: list[Box], known_later: list[Box]
) -> None:
    scene = noise(1)[0]
    recorder.detect = lambda frame, window=None, known=(): [Face(box, 9.0) for box in swept]  # type: ignore[method-assign]
    with search_with(recorder, interval_s=0.5, steady_interval_s=1.0, join_after_s=0) as search:
        for frame in as_frames([scene] * 5, fps=30):
            search.find(frame, [FACE])
        for frame in as_frames([changed_in(scene, SMALL_PLACES)] * 20, fps=30)[5:]:
            search.find(frame, known_later)
        assert search.figures["sweeps"] == 2


def with_a_face(scenes: list[np.ndarray], looks: list[np.ndarray]) -> list[Frame]:
    """Scenes in which all changes but what is in the face's box."""
    pictures = [scene.copy() for scene in scenes]
    for picture, look in zip(pictures, itertools.cycle(looks)):
        picture[FACE.y : FACE.y + FACE.h, FACE.x : FACE.x + FACE.w] = look
    return as_frames(pictures, fps=30)


def follows(recorder: Recorder, frames: list[Frame], found: Sequence[bool] = (True,), **settings: object) -> list[int]:
    """How often the face was searched for near its place, frame by frame. found: whether it is there, in turn."""
    counts = []
    there = recorder._found
    with search_with(recorder, interval_s=100, steady_interval_s=100, **settings) as search:
        search.find(frames[0], [FACE])  # with the only sweep
        for frame, is_there in zip(frames[1:], itertools.cycle(found)):
            recorder.followed, recorder._found = 0, there if is_there else []
            search.find(frame, [FACE])
            counts.append(recorder.followed)
    return counts


def test_a_face_that_looks_as_it_did_is_searched_for_now_and_then_only(recorder: Recorder) -> None:
    look = noise(1, (100, 100))[0]
    counts = follows(recorder, with_a_face(noise(120), [look]))
    assert counts[:4] == [1, 1, 1, 1]  # not before it was found often enough
    assert 0 < sum(counts[8:]) <= len(counts[8:]) / 10
    assert max(len(list(held)) for asked, held in itertools.groupby(counts) if not asked) <= 30 * 0.5


def test_a_face_that_looks_otherwise_is_searched_for_at_once(recorder: Recorder) -> None:
    steady, other = noise(2, (100, 100))
    frames = with_a_face(noise(40), [steady] * 20 + [other] * 20)
    recorder.detect = lambda frame, window=None, known=(): []  # type: ignore[method-assign]
    with search_with(recorder, interval_s=100) as search:
        seen = []
        for number, frame in enumerate(frames):
            if number == 20:
                recorder._found = []
            seen.append(len(search.find(frame, [FACE])))
    assert seen == [1] * 20 + [0] * 20


def test_a_face_that_moves_a_little_is_followed_by_its_look(recorder: Recorder) -> None:
    person, at = cv2.GaussianBlur(noise(1, (100, 110))[0], (0, 0), 6), [0] * 12 + [1, 2, 3, 4]
    frames = with_a_face(noise(len(at)), [person[:, 10 - right : 110 - right] for right in at])
    found, searched = [], []
    with search_with(recorder, interval_s=100, steady_interval_s=100) as search:
        for frame in frames:
            found.append(search.find(frame, [FACE])[0].box.x - FACE.x)
            searched.append(recorder.followed)
    assert found[-2:] == [3, 4]
    assert searched[-1] == searched[-5]


@pytest.mark.parametrize("fps, late", [(30, {0, 1}), (15, {0})])
def test_at_one_that_rests_it_looks_every_second_frame_of_thirty_a_second(fps: float, late: set[int]) -> None:
    steady, other = noise(2, (100, 100))
    gone_late = set()
    for count in (8, 9):
        recorder = Recorder(FACE)
        frames = [
            dataclasses.replace(frame, media_time=frame.seq / fps)
            for frame in with_a_face(noise(count + 3), [steady] * count + [other] * 3)
        ]
        with search_with(recorder, interval_s=100, steady_interval_s=100, join_after_s=0) as search:
            for frame in frames[:count]:
                search.find(frame, [FACE])
            recorder._found = []
            gone_late.add([len(search.find(frame, [FACE])) for frame in frames[count:]].index(0))
    assert gone_late == late


def test_a_face_that_flickers_is_searched_for_in_every_frame(recorder: Recorder) -> None:
    frames = with_a_face(noise(60), [noise(1, (100, 100))[0]])
    assert set(follows(recorder, frames, found=(True, True, True, False))) == {1}


def test_a_face_that_moves_is_searched_for_in_every_frame(recorder: Recorder) -> None:
    looks = [np.roll(noise(1, (100, 100))[0], 10 * step, axis=1) for step in range(10)]
    assert set(follows(recorder, with_a_face(noise(60), looks))) == {1}


def test_where_still_pictures_are_searched_so_are_faces_that_look_the_same(recorder: Recorder) -> None:
    frames = with_a_face(noise(60), [noise(1, (100, 100))[0]])
    recorder.detect = lambda frame, window=None, known=(): []  # type: ignore[method-assign]
    assert set(follows(recorder, frames, skip_still=False)) == {1}


def test_it_says_whether_the_picture_moved(recorder: Recorder) -> None:
    scene, other = noise(2)
    with search_with(recorder) as search:
        moved = []
        for frame in as_frames([scene] * 3 + [other] * (MOVES_ON + 3) + [scene]):
            search.find(frame, [Box(200, 100, 100, 100)])
            moved.append(search.moved)
    assert moved == [True, False, False, True] + [True] * MOVES_ON + [True, False, True]


def test_a_picture_that_returns_is_searched_again_before_it_counts_as_still(recorder: Recorder) -> None:
    before, scene, other = noise(3)
    followed_in: list[np.ndarray] = []
    recorder.near = lambda frame, box, reach: followed_in.append(frame.image)  # type: ignore[method-assign, func-returns-value]
    with search_with(recorder, interval_s=100) as search:
        for frame in as_frames([before, scene, *[other] * MOVES_ON, scene, scene]):
            search.find(frame, [FACE])
    assert not search.moved
    assert np.array_equal(followed_in[-1], scene)


def test_a_sweep_of_a_file_joins_after_its_time(recorder: Recorder) -> None:
    known = Box(500, 300, 60, 60)
    recorder.near = lambda frame, box, reach: Face(box if reach > 0.5 else known, 5.0)  # type: ignore[method-assign]
    with search_with(recorder, join_after_s=0.2) as search:
        counts = [len(search.find(frame, [known])) for frame in as_frames(noise(10), fps=20)]
    assert counts[:6] == [1, 1, 1, 1, 2, 1]


def test_a_sweep_of_a_file_may_take_longer_where_the_last_one_found_nobody_new(recorder: Recorder) -> None:
    known, other = Box(200, 100, 100, 100), Box(500, 300, 60, 60)
    recorder.near = lambda frame, box, reach: Face(box, 5.0)  # type: ignore[method-assign]
    first, later = [Face(known, 5.0)], [Face(known, 5.0), Face(other, 5.0)]
    recorder.detect = lambda frame, window, known: later if frame.seq else first  # type: ignore[method-assign]
    with search_with(recorder, interval_s=0.5, steady_interval_s=0.5, join_after_s=0.1) as search:
        counts = [len(search.find(frame, [known])) for frame in as_frames(noise(20), fps=20)]
    assert counts == [1] * 16 + [2] + [1] * 3  # begun at 0.5 s, joined at 0.8 s


def test_a_sweep_beside_a_live_source_never_waits(recorder: Recorder) -> None:
    with search_with(recorder, live=True) as search:
        found = [len(search.find(frame, [])) for frame in as_frames(noise(400), fps=30)]
    assert found[0] in (0, 1)
    assert sum(found) >= 1


def test_what_begins_anew_at_an_earlier_time_is_searched(recorder: Recorder) -> None:
    with search_with(recorder) as search:
        for frame in as_frames(noise(60), fps=1):
            search.find(frame, [])
        search.clear()
        recorder.windows.clear()
        assert search.find(as_frames(noise(1))[0], []) != []
        assert len(recorder.windows) == 1


def test_nothing_is_found_outside_the_region(recorder: Recorder) -> None:
    with search_with(recorder, region=[0.5, 0, 1, 1]) as search:
        assert [search.find(frame, [Box(200, 100, 100, 100)]) for frame in as_frames(noise(20))] == [[]] * 20
    assert {window for window in recorder.windows if window} <= {Box(320, 0, 320, 480)}


def test_a_face_found_twice_is_one() -> None:
    faces = [Face(Box(0, 0, 100, 100), 5), Face(Box(5, 5, 100, 100), 9), Face(Box(200, 0, 100, 100), 4)]
    assert distinct(faces) == [faces[0], faces[2]]


@pytest.mark.parametrize("size", [(4, 4), (30, 2000), (2000, 30)])
def test_pictures_of_odd_sizes_are_searched(size: tuple[int, int]) -> None:
    frames = as_frames([np.full((*size, 3), value, np.uint8) for value in (0, 255, 0)])
    assert [faces for faces, _ in runs(Config(), frames)] == [[]] * 3


def test_real_clips_keep_their_ids(shared: Path) -> None:
    for name in ("book.mkv", "night.mkv"):
        config = Config.model_validate({"camera": {"source": str(shared / "data" / "clips" / name)}})
        frames = []
        with build_source(config.camera) as source:
            try:
                while True:
                    frames.append(source.take(1.0))
            except EndOfStream:
                pass
        seen = list(runs(config, frames))
        assert {number for faces, _ in seen for number, _ in faces} == {1}
        assert sum(bool(faces) for faces, _ in seen) >= 0.98 * len(seen)


def test_who_comes_between_two_sweeps_and_then_keeps_still_is_found(clip_frames: list[np.ndarray]) -> None:
    empty, person = clip_frames[-1], clip_frames[60]
    seen = list(runs(Config(), as_frames([empty, person] + [person] * 20, fps=30)))
    assert all(faces for faces, _ in seen[6:])
