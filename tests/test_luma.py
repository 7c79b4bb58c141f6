"""Frames that are grey from where they come show what grey ones made of colours show."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.app import build_source, sees_colour
from edge.config import CameraConfig, Config
from edge.errors import EndOfStream
from edge.luma import JpegCapture
from edge.preprocess import as_grey
from mjpeg_server import MjpegCamera

SIZE = (160, 120)


def images_of(path: Path, colour: bool) -> list[np.ndarray]:
    images = []
    with build_source(CameraConfig(source=str(path)), colour=colour) as source:
        try:
            while True:
                images.append(source.take(1.0).image)
        except EndOfStream:
            return images


def write(path: Path, codec: str, pictures: list[np.ndarray]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 15, SIZE)
    assert writer.isOpened()
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


@pytest.fixture
def colourful(clip_frames: list[np.ndarray]) -> list[np.ndarray]:
    """With all levels from black to white in it, and colours."""
    pictures = [cv2.resize(picture, SIZE) for picture in clip_frames[60:80]]
    for picture in pictures:
        picture[:20] = np.linspace(0, 255, SIZE[0]).astype(np.uint8)[None, :, None]
        picture[20:40, :80] = (200, 60, 30)
    return pictures


@pytest.mark.parametrize(("codec", "suffix"), [("MJPG", "avi"), ("mp4v", "mp4")], ids=["0 to 255", "16 to 235"])
def test_a_videos_luma_is_as_its_colours_made_grey(
    colourful: list[np.ndarray], tmp_path: Path, codec: str, suffix: str
) -> None:
    path = write(tmp_path / f"x.{suffix}", codec, colourful)
    grey, coloured = images_of(path, colour=False), images_of(path, colour=True)
    assert len(grey) == len(coloured) == len(colourful)
    assert {image.shape for image in grey} == {(120, 160)}
    assert {image.shape for image in coloured} == {(120, 160, 3)}
    for one, other in zip(grey, coloured, strict=True):
        assert np.abs(one.astype(int) - as_grey(other)).mean() < 1.5


def test_a_video_without_luma_keeps_its_colours(colourful: list[np.ndarray], tmp_path: Path) -> None:
    path = write(tmp_path / "x.avi", "png ", colourful)
    for image, picture in zip(images_of(path, colour=False), colourful, strict=True):
        np.testing.assert_array_equal(image, picture)


def test_a_video_that_begins_evenly_grey_keeps_its_colours(tmp_path: Path) -> None:
    even = np.full((120, 160, 3), 113, np.uint8)  # where both ranges of luma have the same level
    path = write(tmp_path / "x.mp4", "mp4v", [even, even // 2])
    assert [image.ndim for image in images_of(path, colour=False)] == [3, 3]


def test_a_cameras_jpegs_are_made_grey_and_broken_ones_are_counted(clip_frames: list[np.ndarray]) -> None:
    camera = MjpegCamera(clip_frames[60:61], fps=30)
    try:
        with build_source(CameraConfig(source=camera.url), colour=False) as source:
            image = source.take(5.0).image
            assert image.shape == (480, 640)
            assert np.abs(image.astype(int) - as_grey(clip_frames[60])).mean() < 1.5
            camera.mode = "garbage"
            deadline = time.monotonic() + 5
            while not source.drops["undecodable"] and time.monotonic() < deadline:
                time.sleep(0.05)
            assert source.drops["undecodable"]
            camera.mode = "resize"
            while (frame := source.take(5.0)).size == (640, 480):
                pass
            assert frame.size == (800, 600)
        with build_source(CameraConfig(source=camera.url), colour=True) as source:
            assert source.take(5.0).image.ndim == 3
    finally:
        camera.close()


def test_only_what_is_looked_at_by_people_or_read_in_colours_needs_them() -> None:
    assert not sees_colour(Config())
    assert sees_colour(Config(mqtt={"snapshots": True}))
    assert sees_colour(Config(detector={"kind": "mtcnn"}))


class Pictures:
    """A driver that hands over one picture, decoded or not."""

    def __init__(self, picture: np.ndarray) -> None:
        self._picture = picture

    def grab(self) -> bool:
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self._picture

    def release(self) -> None:
        pass


def test_a_driver_that_decodes_all_the_same_is_taken_as_it_is(colourful: list[np.ndarray]) -> None:
    jpeg = cv2.imencode(".jpg", colourful[0])[1]
    for undecoded in (jpeg.reshape(1, -1), jpeg.reshape(-1, 1)):
        assert JpegCapture(Pictures(undecoded)).retrieve()[1].shape == (120, 160)
    np.testing.assert_array_equal(JpegCapture(Pictures(colourful[0])).retrieve()[1], colourful[0])
    assert JpegCapture(Pictures(np.zeros((1, 0), np.uint8))).retrieve()[0] is False
