"""Haar finds the portrait's face where it is, and nothing where nothing is."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge import clip
from edge.config import HaarConfig
from edge.errors import ConfigError
from edge.haar import HaarDetector, HaarFollower
from edge.records import Box, Frame
from fakes import EPOCH


def as_frame(image: np.ndarray) -> Frame:
    return Frame(image, 0, 0.0, EPOCH, 0.0)


def test_the_face_is_found_in_every_frame_that_shows_it(clip_frames: list[np.ndarray]) -> None:
    detector = HaarDetector(HaarConfig())
    shown = clip_frames[round(clip.ENTER_S * clip.FPS) : round(clip.LEAVE_S * clip.FPS)]
    found = [detector.detect(as_frame(image)) for image in shown]
    assert min(len(faces) for faces in found) == 1
    assert sum(len(faces) - 1 for faces in found) <= 0.05 * len(shown)  # single false faces; the tracker drops them
    for before, after in itertools.pairwise(found):
        assert max(old.box.overlap(new.box) for old in before for new in after) > 0.5
    assert min(face.confidence for faces in found for face in faces) >= HaarConfig().min_neighbors


def test_nothing_is_found_where_nobody_is(clip_frames: list[np.ndarray]) -> None:
    assert HaarDetector(HaarConfig()).detect(as_frame(clip_frames[-1])) == []


def test_boxes_are_in_pixels_of_the_frame_whatever_the_search_width(clip_frames: list[np.ndarray]) -> None:
    (coarse,) = HaarDetector(HaarConfig(search_width=240)).detect(as_frame(clip_frames[60]))
    (fine,) = HaarDetector(HaarConfig(search_width=640)).detect(as_frame(clip_frames[60]))
    assert coarse.box.overlap(fine.box) > 0.7


def test_faces_below_the_minimum_are_not_searched_for(clip_frames: list[np.ndarray]) -> None:
    assert HaarDetector(HaarConfig(min_face=300)).detect(as_frame(clip_frames[60])) == []


def test_two_faces_are_found_largest_first(clip_frames: list[np.ndarray]) -> None:
    smaller = cv2.resize(clip_frames[60], None, fx=0.7, fy=0.7)
    both = np.zeros((480, 1100, 3), np.uint8)
    both[: smaller.shape[0], : smaller.shape[1]] = smaller
    both[:, 460:] = clip_frames[60]
    faces = HaarDetector(HaarConfig(search_width=640)).detect(as_frame(both))
    assert len(faces) == 2
    assert faces[0].box.x > 460
    assert faces[1].box.x < 448


def test_a_known_face_is_left_out_until_its_size_changes(clip_frames: list[np.ndarray]) -> None:
    detector, frame = HaarDetector(HaarConfig()), as_frame(clip_frames[60])
    (face,) = detector.detect(frame)
    assert detector.detect(frame, known=[face.box]) == []
    smaller = face.box.grown(-round(0.15 * face.box.w))
    assert detector.detect(frame, known=[smaller]) == [face]
    elsewhere = Box(0, 0, face.box.w, face.box.h)
    assert detector.detect(frame, known=[elsewhere]) == [face]


class Shuffled:
    """OpenCV's cascade, which tells its hits in another order each time, as its threads do."""

    plain = cv2.CascadeClassifier
    random = np.random.default_rng(0)

    def __init__(self) -> None:
        self._cascade = self.plain()
        self.load = self._cascade.load

    def detectMultiScale2(self, grey: np.ndarray, **options: object) -> tuple[np.ndarray, np.ndarray]:  # noqa: N802
        boxes, counts = (np.array(found) for found in self._cascade.detectMultiScale2(grey, **options))
        order = self.random.permutation(len(boxes))
        return boxes[order], counts[order]


def test_the_order_in_which_threads_find_hits_changes_nothing(
    clip_frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [as_frame(image) for image in clip_frames[30:190:8]]
    alone = [HaarDetector(HaarConfig()).detect(frame) for frame in frames]
    monkeypatch.setattr(cv2, "CascadeClassifier", Shuffled)
    assert all([HaarDetector(HaarConfig()).detect(frame) for frame in frames] == alone for _ in range(3))


@pytest.mark.parametrize("shape", [(1, 1), (20, 20, 3), (4000, 10), (2, 3000, 3)])
def test_pictures_of_odd_sizes_hold_no_face(shape: tuple[int, ...]) -> None:
    assert HaarDetector(HaarConfig()).detect(as_frame(np.zeros(shape, np.uint8))) == []


@pytest.mark.parametrize(("content", "expected"), [(None, "no such file"), ("<opencv_storage/>", "not a Haar cascade")])
def test_a_cascade_that_is_none_is_named(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "c.xml"
    if content:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"detector.cascade: .*c.xml: {expected}"):
        HaarDetector(HaarConfig(cascade=path))


def test_a_known_face_is_found_again_near_its_place(clip_frames: list[np.ndarray]) -> None:
    image = as_frame(clip_frames[60])
    (face,) = HaarDetector(HaarConfig()).detect(image)
    follower = HaarFollower(HaarConfig())
    box = face.box
    for moved in (box, Box(box.x + box.w // 5, box.y - box.h // 5, box.w, box.h), box.grown(box.w // 12)):
        assert follower.near(image, moved, 0.4).box.overlap(box) > 0.6
    assert follower.near(image, Box(0, 0, box.w, box.h), 0.4) is None
    assert follower.near(image, Box(-900, 0, 100, 100), 0.4) is None


def test_only_a_window_is_searched_at_the_same_scale(clip_frames: list[np.ndarray]) -> None:
    image, detector = as_frame(clip_frames[60]), HaarDetector(HaarConfig())
    (face,) = detector.detect(image)
    (again,) = detector.detect(image, face.box.grown(60))
    assert again.box.overlap(face.box) > 0.8
    assert detector.detect(image, Box(0, 0, 100, 480)) == []
    assert detector.detect(image, Box(5000, 0, 100, 480)) == []
