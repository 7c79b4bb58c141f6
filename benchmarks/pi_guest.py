"""What `benchmarks.pi` runs under the emulation: each stage of the pipeline between two marks.

Prints JSON: the stages in order, and how often each ran between its marks.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.contenders import NAIVE_NEIGHBORS, NAIVE_SCALE
from edge import app, clip, configfile
from edge.classifier import TfliteClassifier, shipped_model
from edge.haar import HaarDetector, HaarFollower
from edge.motion import cells_of, has_changed
from edge.preprocess import as_grey, crop_face
from edge.records import Frame, Scores
from edge.search import MOVES_ON, REACH

FPS = 30.0
FIRST_FRAME, FRAMES = 60, 16  # of the built-in clip: the person has arrived; twelve count, whole cycles of readings
STOPPED, STILL_FRAMES = MOVES_ON + 2, 3  # until a picture counts as still; of which the last count
BEGAN_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)

stages: list[tuple[str, int]] = []


class _Restless:
    """The network, and a face that shows something else each time: one that shows the same is read more rarely."""

    def __init__(self, classifier: TfliteClassifier) -> None:
        self._classifier, self._turn = classifier, 0

    def classify(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[Scores]:
        self._turn += 1
        return [Scores(np.roll(scores.values, self._turn)) for scores in self._classifier.classify(crops)]


def mark() -> None:
    """The plugin watches for this system call."""
    os.getppid()


def count(name: str, times: int, call: Callable[[], object]) -> None:
    """Run once unwatched, then so often between two marks."""
    call()
    mark()
    for _ in range(times):
        call()
    mark()
    stages.append((name, times))


def main(config_file: str) -> None:
    """Everything on one thread: the counters are not locked."""
    cv2.setNumThreads(1)
    config = configfile.load(Path(config_file), ["search.interval_s=3600", "mqtt.broker=null"], "builtin")
    coloured = [image for _, image in islice(clip.frames(), FIRST_FRAME, FIRST_FRAME + FRAMES)]
    images = [as_grey(image) for image in coloured]
    frames = [
        Frame(image, number, number / FPS, BEGAN_AT + timedelta(seconds=number / FPS), media_time=number / FPS)
        for number, image in enumerate(images)
    ]
    jpeg = cv2.imencode(".jpg", coloured[0], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    detector, follower = HaarDetector(config.detector), HaarFollower(config.detector)
    int8 = TfliteClassifier.from_config(config.model)
    float32 = TfliteClassifier(shipped_model().with_name("float32.tflite"))

    count("decode", 3, lambda: cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE))
    count("naive decode", 3, lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    before = cells_of(frames[0])
    count("motion", 5, lambda: has_changed(before, cells_of(frames[1])))
    face = max(detector.detect(frames[0]), key=lambda face: face.confidence)
    count("sweep", 1, lambda: detector.detect(frames[0], known=[face.box]))
    count("follow", 5, lambda: follower.near(frames[1], face.box, REACH))
    crop = crop_face(images[0], face.box)
    count("crop", 5, lambda: crop_face(images[0], face.box))
    count("network int8", 3, lambda: int8.classify([crop]))
    count("network float32", 3, lambda: float32.classify([crop]))
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    count("naive search", 1, lambda: cascade.detectMultiScale(as_grey(coloured[0]), NAIVE_SCALE, NAIVE_NEIGHBORS))
    _count_frames(config, int8, frames)
    json.dump({"stages": stages, "size": list(frames[0].size), "face_px": face.box.w}, sys.stdout)


def _count_frames(config: object, classifier: TfliteClassifier, frames: list[Frame]) -> None:
    """Whole frames between two sweeps: one known face that is followed, and read as often as may be."""
    with app.build_search(config) as search:
        cv2.setNumThreads(1)  # a file's search takes all cores
        pipeline = app.build_pipeline(config, search, classifier)
        pipeline.use(_Restless(classifier))
        for frame in frames[:4]:  # found, confirmed
            pipeline.step(frame)
        mark()
        sights = [pipeline.step(frame) for frame in frames[4:]]
        mark()
        stages.append(("frame, one face", len(sights)))
        if not all(len(s.readings) == 1 and s.readings[0].track.missed == 0 for s in sights):
            raise SystemExit("the face was lost: this counts something else")
        at = frames[-1].media_time
        still = [replace(frames[-1], media_time=at + number / FPS) for number in range(1, STOPPED + STILL_FRAMES + 1)]
        for frame in still[:STOPPED]:
            pipeline.step(frame)
        mark()
        for frame in still[STOPPED:]:
            pipeline.step(frame)
        mark()
        if search.figures["still_frames"] < STILL_FRAMES:
            raise SystemExit("the picture was searched: this counts something else")
        stages.append(("frame, nothing moved", STILL_FRAMES))


if __name__ == "__main__":
    main(sys.argv[1])
