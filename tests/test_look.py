"""Where a face is by its looks: in pictures of which it is known how far they moved."""

import cv2
import numpy as np
import pytest

from edge import clip
from edge.look import Look
from edge.records import Box, Frame
from fakes import EPOCH

FACE = Box(255, 150, 120, 120)


def as_frame(image: np.ndarray) -> Frame:
    return Frame(image, 0, 0.0, EPOCH, media_time=0.0)


@pytest.fixture(scope="module")
def person() -> np.ndarray:
    """The built-in clip's, in the middle of the picture."""
    return cv2.cvtColor(next(image for at_s, image in clip.frames() if at_s >= 5), cv2.COLOR_BGR2GRAY)


def moved(image: np.ndarray, right: int, down: int) -> np.ndarray:
    return cv2.warpAffine(image, np.float32([[1, 0, right], [0, 1, down]]), image.shape[::-1])


def lighter(image: np.ndarray, by: int) -> np.ndarray:
    return np.clip(image.astype(int) + by, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("by", [0, 12, -12])
@pytest.mark.parametrize("right, down", [(0, 0), (3, 0), (-4, 0), (0, 3), (0, -4), (3, -3), (4, 4)])
def test_a_face_is_found_where_it_moved_to_in_lighter_and_darker_pictures(
    person: np.ndarray, right: int, down: int, by: int
) -> None:
    found = Look(as_frame(person), FACE).found_in(as_frame(lighter(moved(person, right, down), by)))
    assert found is not None and (found.w, found.h) == (FACE.w, FACE.h)
    assert abs(found.x - FACE.x - right) <= 1 and abs(found.y - FACE.y - down) <= 1


@pytest.mark.parametrize("right, down", [(12, 0), (0, -12), (40, 40)])
def test_one_that_moved_far_is_not(person: np.ndarray, right: int, down: int) -> None:
    assert Look(as_frame(person), FACE).found_in(as_frame(moved(person, right, down))) is None


def test_nor_one_behind_a_hand_or_that_has_gone(person: np.ndarray) -> None:
    covered = person.copy()
    covered[FACE.y + 50 : FACE.y + 120, FACE.x : FACE.x + 120] = 200
    look = Look(as_frame(person), FACE)
    assert look.found_in(as_frame(covered)) is None
    assert look.found_in(as_frame(np.full_like(person, 96))) is None
    assert look.found_in(as_frame(cv2.flip(person, 0))) is None


def test_noise_is_no_movement(person: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0, 12, person.shape)
    noisy = np.clip(person + noise, 0, 255).astype(np.uint8)
    assert Look(as_frame(person), FACE).found_in(as_frame(noisy)) == FACE


@pytest.mark.parametrize("picture", ["flat", "edge"])
def test_of_what_has_no_corner_nobody_can_say_how_far_it_moved(picture: str) -> None:
    image = np.full((480, 640), 90, np.uint8)
    if picture == "edge":
        image[:, 310:] = 180
    look = Look(as_frame(image), FACE)
    assert look.found_in(as_frame(image)) == FACE
    assert look.found_in(as_frame(lighter(image, 20))) is None
    assert look.found_in(as_frame(moved(lighter(image, 20), 3, 0))) is None


@pytest.mark.parametrize("right, down", [(0, 0), (2, 0), (0, -3), (-2, 2)])
def test_a_face_half_outside_the_picture_moves_as_far_as_what_is_inside(
    person: np.ndarray, right: int, down: int
) -> None:
    cut = cv2.cvtColor(np.ascontiguousarray(person[:, FACE.x + 60 :]), cv2.COLOR_GRAY2BGR)
    after = cv2.cvtColor(np.ascontiguousarray(moved(person, right, down)[:, FACE.x + 60 :]), cv2.COLOR_GRAY2BGR)
    found = Look(as_frame(cut), Box(-60, FACE.y, 120, 120)).found_in(as_frame(after))
    assert found is not None and abs(found.x + 60 - right) <= 1 and abs(found.y - FACE.y - down) <= 1


def test_a_box_outside_the_picture_has_no_look(person: np.ndarray) -> None:
    with pytest.raises(ValueError, match="outside"):
        Look(as_frame(person), Box(700, 100, 120, 120))
