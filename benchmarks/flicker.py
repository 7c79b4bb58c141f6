"""How often the emotion that is told changes, raw and smoothed by the daemon's policy, and what that costs in delay."""

import itertools
import math
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import clips
from benchmarks.measure import ratio, stamp
from edge.classifier import TfliteClassifier
from edge.config import Config
from edge.labels import EMOTIONS
from edge.pipeline import Pipeline
from edge.policy import EmotionPolicy
from edge.preprocess import FACE_SIZE, crop_face
from edge.records import Box, Face, Frame, Scores
from edge.tracker import Tracker

FPS = 30.0
BEFORE_S, AFTER_S = 3.0, 4.0  # of one expression, then of another one
PAIRS_PER_CHANGE = 4
SHIFT_PX = 1.5  # of 48; how far a crop wanders from frame to frame, as Haar boxes do
BLANK = np.zeros((16, 16), np.uint8)
EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
SURE = 0.6  # a face whose own picture is this clear stands for its emotion


def run(
    named: Sequence[str], overrides: Sequence[str] = (), data: Path | None = None, pairs: int = PAIRS_PER_CHANGE
) -> dict[str, Any]:
    """Count changes on every clip; with `data` (FER2013) also the delay until a real change is told.

    pairs: of faces, for each of the 42 ways from one emotion to another.
    """
    with clips.opened(named) as chosen:
        rows = [{"clip": clip.name, **_changes(clip, overrides)} for clip in clips.each(chosen)]
    total = {key: sum(row[key] for row in rows) for key in ("face_s", "raw", "smoothed")}
    result = {
        **stamp(),
        "overrides": list(overrides),
        "clips": [_row(row) for row in rows],
        "total": _row({"clip": "total", **total}),
    }
    config = clips.settings("builtin", overrides)
    if data is None:
        result["change"] = {"of": "made scores", **_delays(config, _made_sequences())}
    else:
        result["change"] = {"of": "FER2013 PublicTest", **_delays(config, _spliced(data, config, pairs))}
    return result


def _changes(clip: clips.Clip, overrides: Sequence[str]) -> dict[str, float]:
    """Changes of the likeliest emotion of single frames, and of the one that is told, while faces are in sight."""
    config = clips.settings(clip.path, overrides)
    classifier = TfliteClassifier.from_config(config.model)
    tops: dict[int, str] = {}
    told: dict[int, str | None] = {}
    raw = smoothed = 0
    face_s, before = 0.0, None
    for sight in clips.sights(config):
        frame = sight.frame
        seen = [reading for reading in sight.readings if reading.track.missed == 0]
        face_s += len(seen) * (frame.media_time - before if before is not None else 0.0)
        before = frame.media_time
        crops = [crop_face(frame.image, reading.track.box) for reading in seen]
        for reading, scores in zip(seen, classifier.classify(crops), strict=True):
            track = reading.track.id
            raw += tops.get(track, scores.top[0]) != scores.top[0]
            tops[track] = scores.top[0]
            # From "uncertain" to the first emotion is an answer, not a change of mind.
            smoothed += told.get(track) not in (None, reading.emotion)
            told[track] = reading.emotion
    return {"face_s": face_s, "raw": raw, "smoothed": smoothed}


def _row(counts: dict[str, Any]) -> dict[str, Any]:
    minutes = counts["face_s"] / 60
    return {
        "clip": counts["clip"],
        "face_s": counts["face_s"],
        "raw_per_minute": counts["raw"] / minutes if minutes else None,
        "smoothed_per_minute": counts["smoothed"] / minutes if minutes else None,
        "smoothed_over_raw": counts["smoothed"] / counts["raw"] if counts["raw"] else None,
    }


Sequence_ = tuple[str, str, list[Scores], int]  # from, to, scores frame by frame, and the frame of the change


def _made_sequences() -> list[Sequence_]:
    """A face that clearly shows one emotion and then clearly another one: 0.8, and the rest shared."""
    frames = (round(BEFORE_S * FPS), round(AFTER_S * FPS))
    sequences = []
    for a, b in itertools.permutations(range(len(EMOTIONS)), 2):
        clear = {i: Scores(np.where(np.arange(len(EMOTIONS)) == i, 0.8, 0.2 / 6).astype(np.float32)) for i in (a, b)}
        sequences.append((EMOTIONS[a], EMOTIONS[b], [clear[a]] * frames[0] + [clear[b]] * frames[1], frames[0]))
    return sequences


def _spliced(data: Path, config: Config, pairs: int) -> list[Sequence_]:
    """Faces of FER2013 that the network reads rightly and surely, one after another; each wanders in its box."""
    from training.data import load

    test = load(data).split("PublicTest")
    classifier = TfliteClassifier.from_config(config.model)
    random = np.random.default_rng(0)
    clear: dict[str, list[np.ndarray]] = {emotion: [] for emotion in EMOTIONS}
    for image, label in zip(test.images, test.labels, strict=True):
        emotion = EMOTIONS[label]
        if len(clear[emotion]) >= max(2, pairs):
            continue
        read, probability = classifier.classify([image])[0].top
        if read == emotion and probability >= SURE:
            clear[emotion].append(image)
    frames = (round(BEFORE_S * FPS), round(AFTER_S * FPS))
    sequences = []
    for a, b in itertools.permutations(EMOTIONS, 2):
        for first, second in list(zip(clear[a], clear[b], strict=False))[:pairs]:
            crops = [wander(first, random) for _ in range(frames[0])] + [
                wander(second, random) for _ in range(frames[1])
            ]
            sequences.append((a, b, classifier.classify(crops), frames[0]))
    return sequences


def wander(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The face in a box that is off by a little, as a Haar box is."""
    factor = 4  # in whole pixels of a larger picture
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    dx, dy, dw = np.rint(random.normal(0, SHIFT_PX, 3) * factor).astype(int)
    return crop_face(large, Box(int(dx - dw), int(dy - dw), FACE_SIZE * factor + 2 * int(dw), FACE_SIZE * factor))


def _delays(config: Config, sequences: Sequence[Sequence_]) -> dict[str, Any]:
    """Run each through the daemon's policy: how long until the new emotion is told, and changes when none happened."""
    delays_s: list[float] = []
    wrong_before = raw_before = steady_frames = started_wrong = 0
    for a, b, scores, change in sequences:
        told = _told(config, scores)
        if told[change - 1] != a:
            started_wrong += 1  # the first expression was never told: there is nothing to change from
            continue
        tops = [one.top[0] for one in scores]
        settled = told.index(a)
        raw_before += sum(x != y for x, y in itertools.pairwise(tops[settled:change]))
        wrong_before += sum(x != y for x, y in itertools.pairwise(told[settled:change]))
        steady_frames += change - settled
        at = next((index for index in range(change, len(told)) if told[index] == b), None)
        delays_s.append((at - change) / FPS if at is not None else float("inf"))
    missed = sum(not np.isfinite(delay) for delay in delays_s)
    known = [delay for delay in delays_s if np.isfinite(delay)]
    minutes = steady_frames / FPS / 60
    return {
        "sequences": len(sequences),
        "first_never_told": started_wrong,
        "second_never_told": missed,
        "delay_s": {"p50": float(np.median(known)), "p95": float(np.percentile(known, 95))} if known else None,
        "steady_raw_per_minute": raw_before / minutes if minutes else None,
        "steady_smoothed_per_minute": wrong_before / minutes if minutes else None,
        "steady_smoothed_over_raw": ratio(wrong_before, raw_before),
    }


class _Script:
    """One face that stays where it is, and the scores that the network has for it in each frame."""

    moved = True

    def __init__(self, scores: Sequence[Scores]) -> None:
        self._scores, self._frames = scores, 0

    def find(self, frame: Frame, known: Sequence[Box]) -> list[Face]:
        self._frames += 1
        return [Face(Box(0, 0, *BLANK.shape), math.inf)]

    def clear(self) -> None:
        pass

    def classify(self, crops: Sequence[np.ndarray]) -> list[Scores]:
        return [self._scores[self._frames - 1] for _ in crops]


def _told(config: Config, scores: Sequence[Scores]) -> list[str | None]:
    """The stable emotion after every frame."""
    script, tracker, policy = _Script(scores), Tracker(config.tracker), EmotionPolicy(config.emotion)
    pipeline = Pipeline(script, tracker, script, policy, config.emotion.reads_per_s)
    times = [index / FPS for index in range(len(scores))]
    frames = [Frame(BLANK, index, at, EPOCH + timedelta(seconds=at), at) for index, at in enumerate(times)]
    return [pipeline.step(frame).readings[0].emotion for frame in frames]
