"""Pixels, boxes and numbers: what training, conversion and the device agree on."""

import numpy as np
import pytest

from edge.labels import EMOTIONS
from edge.preprocess import crop_face
from edge.quantization import PIXEL_QUANTIZATION, Quantization, dequantize, pixels_to_int8, quantize
from edge.records import Box, Scores


def test_the_emotions_stand_in_the_order_of_fer2013() -> None:
    assert EMOTIONS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_a_pixel_becomes_itself_minus_128() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    expected = np.arange(-128, 128).astype(np.int8)
    np.testing.assert_array_equal(pixels_to_int8(pixels), expected)
    np.testing.assert_array_equal(quantize(pixels, PIXEL_QUANTIZATION), expected)
    np.testing.assert_array_equal(dequantize(expected, PIXEL_QUANTIZATION), pixels)


def test_quantizing_saturates_and_never_wraps() -> None:
    quantization = Quantization(scale=0.5, zero_point=10)
    np.testing.assert_array_equal(quantize([-1000, 1000, 0, 0.3, 0.2], quantization), [-128, 127, 10, 11, 10])


def test_what_was_quantized_comes_back_within_half_a_step() -> None:
    quantization = Quantization(scale=1 / 256, zero_point=-128)
    values = np.linspace(0, 255 / 256, 1000, dtype=np.float32)
    assert np.abs(dequantize(quantize(values, quantization), quantization) - values).max() <= 0.5 / 256 + 1e-7


def test_a_crop_is_the_square_around_the_box() -> None:
    grey = np.zeros((200, 200), np.uint8)
    grey[50:98, 60:108] = np.arange(48)[:, None] * 5
    np.testing.assert_array_equal(crop_face(grey, Box(60, 50, 48, 48)), grey[50:98, 60:108])
    # A flat box is extended to a square about its middle, so that faces keep their proportions.
    np.testing.assert_array_equal(crop_face(grey, Box(60, 70, 48, 8)), grey[50:98, 60:108])


def test_a_large_face_is_averaged_down() -> None:
    grey = np.zeros((300, 300), np.uint8)
    grey[100:196, 100:196] = 200
    assert crop_face(grey, Box(100, 100, 96, 96)).min() == 200
    wide = crop_face(grey, Box(52, 52, 192, 192))
    assert (wide[24, 24], wide[2, 2]) == (200, 0)


def test_a_box_that_leaves_the_picture_repeats_its_border() -> None:
    grey = np.full((100, 100), 7, np.uint8)
    for box in (Box(-30, -30, 60, 60), Box(80, 80, 60, 60), Box(-50, -50, 200, 200)):
        assert (crop_face(grey, box) == 7).all()


def test_a_box_outside_the_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match="outside the picture of 100x50"):
        crop_face(np.zeros((50, 100), np.uint8), Box(200, 0, 10, 10))


def test_scores_name_their_top() -> None:
    scores = Scores(np.array([0, 0, 0.1, 0.7, 0.1, 0.05, 0.05], np.float32))
    assert scores.top == ("happy", pytest.approx(0.7))
    assert list(scores.as_dict()) == list(EMOTIONS)
