"""Boxes, labels and bars stay inside the picture, and the picture that was given stays as it was."""

import numpy as np
import pytest

from edge.draw import COLOURS, draw
from edge.labels import EMOTIONS
from edge.records import Box, Reading
from fakes import scores, track


def reading(box: Box, emotion: str | None = "happy") -> Reading:
    return Reading(track(1, box), scores(happy=0.9), emotion)


def test_a_face_is_framed_in_the_colour_of_its_emotion() -> None:
    blank = np.zeros((480, 640, 3), np.uint8)
    for emotion in (*EMOTIONS, None):
        picture = draw(blank, [reading(Box(200, 200, 100, 100), emotion)], bars=False)
        assert tuple(picture[300, 250]) == COLOURS[emotion or "uncertain"]
        assert (picture[250, 250] == 0).all()
    assert not blank.any()


def test_the_bars_show_the_scores() -> None:
    with_bars = draw(np.zeros((480, 640, 3), np.uint8), [reading(Box(200, 200, 100, 100))])
    happy = (with_bars == COLOURS["happy"]).all(axis=2)[:, 310:].sum()
    assert happy > 5 * (with_bars == COLOURS["sad"]).all(axis=2).sum()


def test_the_bars_of_people_side_by_side_cover_neither_faces_nor_each_other() -> None:
    blank = np.zeros((270, 480, 3), np.uint8)
    boxes = {"happy": Box(54, 84, 62, 62), "angry": Box(196, 72, 58, 58), "surprise": Box(340, 102, 64, 64)}
    readings = [
        Reading(track(number, box), scores(**{name: 0.9}), None) for number, (name, box) in enumerate(boxes.items(), 1)
    ]
    together = draw(blank, readings)
    without = draw(blank, readings, bars=False)
    for (name, box), alone in zip(boxes.items(), readings, strict=True):
        bar = (draw(blank, [alone]) == COLOURS[name]).all(axis=2).sum()
        assert (together == COLOURS[name]).all(axis=2).sum() >= bar > 100
        inside = (slice(box.y, box.y + box.h), slice(box.x, box.x + box.w))
        assert (together[inside] == without[inside]).all()


@pytest.mark.parametrize(
    "box", [Box(0, 0, 30, 30), Box(600, 440, 40, 40), Box(-20, -20, 700, 600), Box(0, 0, 640, 480)]
)
@pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640), (60, 80, 3), (1080, 1920, 3)])
def test_any_box_can_be_drawn_on_any_picture(box: Box, shape: tuple[int, ...]) -> None:
    picture = draw(np.zeros(shape, np.uint8), [reading(box)])
    assert picture.shape == (*shape[:2], 3)
