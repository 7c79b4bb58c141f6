"""What is left of the network's accuracy behind the camera: faces found and cropped by the daemon's own code.

Each PublicTest face is pasted, 110 to 220 px wide, into a plain 640x480 scene. The daemon's pipeline looks at a few
frames of it; what it tells of the face is compared with the label, and with what the network says of the picture as it
stands in the data set. Both figures are of the faces found.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import clips
from benchmarks.measure import stamp
from edge import app
from edge.classifier import TfliteClassifier
from edge.config import Config
from edge.errors import BadDataError
from edge.labels import EMOTIONS
from edge.records import Box, Frame, Scores
from edge.tracker import overlap

SCENE = (640, 480)  # width, height in px
SIDES = (110, 220)  # px
FPS = 30.0
EXTRA_FRAMES = 3  # after those that confirm a face
SAME_PLACE = 0.3  # intersection over union from which a box is the pasted face and not something in it
Z_95 = 1.96
USAGE = "PublicTest"
BEGAN_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def run(data: Path | None, overrides: Sequence[str] = (), limit: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Returns `direct`, `deployed` and `found` (shares, with `..._ci95`), and `lost`, direct minus deployed.

    limit: the first so many rows. Raises InputNotFoundError or BadDataError for what is no data set.
    """
    from training.data import load

    if limit is not None and limit < 1:
        raise BadDataError("--limit: must be a whole number from 1")
    test = load(data).split(USAGE)
    config = clips.settings("builtin", overrides)
    classifier = TfliteClassifier.from_config(config.model)
    looker, random = Looker(config), np.random.default_rng(seed)
    right: list[tuple[bool, bool]] = []
    shares: list[float] = []
    asked = 0
    for image, label in itertools.islice(zip(test.images, test.labels, strict=True), limit):
        asked += 1
        picture, place = paste(image, random)
        told = looker.look(picture, place)
        if told is None:
            continue
        scores, box = told
        shares.append(box.w / place.w)
        right.append((classifier.classify([image])[0].top[0] == EMOTIONS[label], scores.top[0] == EMOTIONS[label]))
    if not right:
        raise BadDataError(f"none of {asked} faces was found in its scene: there is nothing to compare")
    return {**stamp(), "overrides": list(overrides), "model_sha256": classifier.sha256, **summary(right, asked, shares)}


def summary(right: Sequence[tuple[bool, bool]], asked: int, shares: Sequence[float]) -> dict[str, Any]:
    """right: of each face found, whether the network was right directly and deployed; asked: all faces."""
    direct, deployed = (np.array(column, float) for column in zip(*right, strict=True))
    lost = direct - deployed
    spread = Z_95 * float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else float("nan")
    return {
        "n": asked,
        "n_found": len(right),
        "found": len(right) / asked,
        "found_ci95": wilson(len(right), asked),
        "direct": float(direct.mean()),
        "direct_ci95": wilson(int(direct.sum()), len(right)),
        "deployed": float(deployed.mean()),
        "deployed_ci95": wilson(int(deployed.sum()), len(right)),
        # Of pairs: much surer than the difference of two intervals would have it.
        "lost": float(lost.mean()),
        "lost_ci95": [float(lost.mean()) - spread, float(lost.mean()) + spread],
        "box_over_face": float(np.median(shares)),
    }


def wilson(hits: int, of: int) -> list[float]:
    """95 % interval of a share (Wilson 1927), which stays within 0 and 1."""
    share, z = hits / of, Z_95
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)))
    return [middle - half, middle + half]


def paste(face: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, Box]:
    """A scene, (480, 640, 3) BGR, with a (48, 48) grey face in it, and where that is."""
    side = int(random.integers(SIDES[0], SIDES[1] + 1))
    left, top = int(random.integers(0, SCENE[0] - side)), int(random.integers(0, SCENE[1] - side))
    picture = np.full((SCENE[1], SCENE[0], 3), int(random.integers(60, 190)), np.uint8)
    large = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    picture[top : top + side, left : left + side] = large[..., None]
    return picture, Box(left, top, side, side)


class Looker:
    """The daemon's pipeline before one scene after another."""

    def __init__(self, config: Config) -> None:
        self._pipeline, _ = app.build_pipeline(config)
        self._frames_per_scene = config.tracker.confirm_frames + EXTRA_FRAMES
        self._seq = 0

    def look(self, picture: np.ndarray, place: Box) -> tuple[Scores, Box] | None:
        """What is told of the face at `place` after a few frames, and its box; None if none is found there."""
        readings = []
        for _ in range(self._frames_per_scene):
            readings = self._pipeline.step(self._frame(picture)).readings
        self._pipeline.finish()  # the next scene's face is another one
        there = [reading for reading in readings if overlap(reading.track.box, place) >= SAME_PLACE]
        best = max(there, key=lambda reading: overlap(reading.track.box, place), default=None)
        return None if best is None else (best.scores, best.track.box)

    def _frame(self, picture: np.ndarray) -> Frame:
        at = self._seq / FPS
        self._seq += 1
        return Frame(picture, self._seq, at, BEGAN_AT + timedelta(seconds=at), media_time=at)
