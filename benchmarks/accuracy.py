"""What is left of the network's accuracy behind the camera: faces found and cropped by the daemon's own code.

Each PublicTest face is pasted, 110 to 220 px wide, into a plain 640x480 scene. The daemon's pipeline looks at a few
frames of it. What the network says of the daemon's crop of the last one (`deployed`), and what the pipeline tells after
smoothing (`told`), are compared with the label beside what the network says of the picture as it stands in the data set
(`direct`). All three are of the faces found.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import clips
from benchmarks.measure import stamp
from edge.classifier import TfliteClassifier
from edge.errors import BadDataError
from edge.labels import EMOTIONS
from edge.pipeline import Pipeline
from edge.preprocess import crop_face
from edge.records import Box, Frame, Scores
from training.metrics import Z, wilson

SCENE = (640, 480)  # width, height in px
SIDES = (110, 220)  # px
FPS = 30.0
EXTRA_FRAMES = 3  # after those that confirm a face
DRIFT_PX = 3  # a frame
PAUSE_S = 1.0  # between scenes, so that a search is due
SAME_PLACE = 0.3  # intersection over union from which a box is the pasted face and not something in it
USAGE = "PublicTest"
BEGAN_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def run(
    data: Path | None = None, overrides: Sequence[str] = (), limit: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Returns the shares `direct`, `deployed`, `told` and `found`, and `lost`, direct minus deployed; some `..._ci95`.

    limit: the first so many rows. Raises InputNotFoundError or BadDataError for what is no data set.
    """
    from training.data import load

    test = load(data).split(USAGE)
    config = clips.settings("builtin", overrides)
    classifier = TfliteClassifier.from_config(config.model)
    random = np.random.default_rng(seed)
    answers: list[tuple[bool, bool, bool]] = []
    shares: list[float] = []
    asked = 0
    with clips.assembled(config) as pipeline:
        camera = Camera(pipeline, config.tracker.confirm_frames + EXTRA_FRAMES)
        for image, label in itertools.islice(zip(test.images, test.labels, strict=True), limit):
            asked += 1
            seen = camera.look(Scene(image, random))
            if seen is not None:
                read = classifier.classify([image, seen.crop])
                answers.append(tuple(scores.top[0] == EMOTIONS[label] for scores in (*read, seen.told)))
                shares.append(seen.box_over_face)
    if not answers:
        raise BadDataError(f"none of {asked} faces was found in its scene: there is nothing to compare")
    return {
        **stamp(),
        "overrides": list(overrides),
        "model_sha256": classifier.sha256,
        **summary(answers, asked),
        "box_over_face": float(np.median(shares)),
    }


def summary(answers: Sequence[tuple[bool, bool, bool]], asked: int) -> dict[str, Any]:
    """answers: of each face found, whether the network was right directly, deployed, and as told after smoothing.

    asked: all faces.
    """
    direct, deployed, told = (np.array(column, float) for column in zip(*answers, strict=True))
    lost = direct - deployed
    return {
        "n": asked,
        "n_found": len(answers),
        "found": len(answers) / asked,
        "found_ci95": wilson(len(answers), asked),
        "direct": float(direct.mean()),
        "direct_ci95": wilson(int(direct.sum()), len(direct)),
        "deployed": float(deployed.mean()),
        "deployed_ci95": wilson(int(deployed.sum()), len(direct)),
        # Of pairs: much surer than the difference of two intervals would have it.
        "lost": float(lost.mean()),
        "lost_ci95": of_pairs(int((lost > 0).sum()), int((lost < 0).sum()), len(lost)),
        "told": float(told.mean()),
    }


def of_pairs(lost: int, won: int, of: int) -> list[float] | None:
    """95 % interval of the share lost less the share won, in -1 to 1; None of fewer than two pairs.

    Wald's, after one more pair of each kind (Bonett and Price 2012): some width is left where no pair differs.
    """
    if of < 2:
        return None
    down, up = (lost + 1) / (of + 2), (won + 1) / (of + 2)
    spread = Z * float(np.sqrt((down + up - (down - up) ** 2) / (of + 2)))
    return [max(-1.0, down - up - spread), min(1.0, down - up + spread)]


class Scene:
    """A plain wall, and before it a face that drifts, so that it is followed and not only found."""

    def __init__(self, face: np.ndarray, random: np.random.Generator) -> None:
        side = int(random.integers(SIDES[0], SIDES[1] + 1))
        self._face = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        self._start = np.array([random.integers(0, SCENE[0] - side), random.integers(0, SCENE[1] - side)])
        # Towards the middle, which is never out of the picture.
        self._drift = np.where(self._start + side / 2 < np.array(SCENE) / 2, DRIFT_PX, -DRIFT_PX)
        self._wall = int(random.integers(60, 190))

    def picture(self, number: int) -> tuple[np.ndarray, Box]:
        """(480, 640, 3) BGR of a frame, and where the face is in it."""
        left, top = map(int, self._start + number * self._drift)
        side = self._face.shape[0]
        image = np.full((SCENE[1], SCENE[0], 3), self._wall, np.uint8)
        image[top : top + side, left : left + side] = self._face[..., None]
        return image, Box(left, top, side, side)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the daemon makes of a face."""

    crop: np.ndarray
    """(48, 48) grey, from the last frame, by the daemon's box and the daemon's code."""
    told: Scores
    """Smoothed over the frames."""
    box_over_face: float
    """The box's side over that of the pasted picture."""


class Camera:
    """The daemon's pipeline before one scene after another."""

    def __init__(self, pipeline: Pipeline, frames_per_scene: int) -> None:
        self._pipeline, self._frames_per_scene = pipeline, frames_per_scene
        self._seq, self._at = 0, 0.0

    def look(self, scene: Scene) -> Seen | None:
        """Some frames of a scene; None if no face is told of where one is."""
        for number in range(self._frames_per_scene):
            image, place = scene.picture(number)
            wall_time = BEGAN_AT + timedelta(seconds=self._at)
            readings = self._pipeline.step(Frame(image, self._seq, self._at, wall_time, media_time=self._at)).readings
            self._seq, self._at = self._seq + 1, self._at + 1 / FPS
        self._pipeline.finish()  # the next scene's face is another one
        self._at += PAUSE_S
        best = max(readings, key=lambda reading: reading.track.box.overlap(place), default=None)
        if best is None or best.track.box.overlap(place) < SAME_PLACE:
            return None
        box = best.track.box
        return Seen(crop_face(image, box), best.scores, box.w / place.w)
