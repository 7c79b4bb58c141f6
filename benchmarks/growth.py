"""Whether cost grows as it should: in proportion to the faces, and not at all with time."""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from importlib import resources
from typing import Any

import cv2
import numpy as np

from benchmarks import clips
from benchmarks.measure import in_turn, memory_mb, stamp
from edge.config import Config
from edge.errors import EmotiondError
from edge.pipeline import Pipeline
from edge.records import Frame

FPS = 30.0
SCENE = (1280, 720)  # width, height in px
COUNTS = (0, 1, 2, 4, 6, 8)
SPACING = (310, 340)  # px between the faces of a scene, four in a row
WANDER_PX, WANDER_S = 12, 2.0
WARM_UP_FRAMES, FRAMES_PER_TURN, ROUNDS = 30, 15, 6
SEGMENTS = 8  # of the long run
# In portrait.jpg, px: the head with what is around it, and the size at which a scene shows it.
HEAD, HEAD_SIZE = (144, 38, 160), 190
BACKGROUND = 96


def run(
    named: Sequence[str],
    overrides: Sequence[str] = (),
    minutes: float = 2.0,
    rounds: int = ROUNDS,
    counts: Sequence[int] = COUNTS,
) -> dict[str, Any]:
    """Cost per frame against the number of faces, and over `minutes` of the first clip, played again and again."""
    return {
        **stamp(),
        "overrides": list(overrides),
        "faces": _by_faces(clips.settings("builtin", overrides), rounds, counts),
        "time": _over_time(named, overrides, minutes),
    }


def _by_faces(config: Config, rounds: int, counts: Sequence[int]) -> dict[str, Any]:
    """Scenes with more and more faces, in turn; a line through the medians says what a face costs."""
    with ExitStack() as stack:
        players = {str(count): _Player(stack.enter_context(clips.assembled(config)), scene(count)) for count in counts}
        for player in players.values():
            player.play(WARM_UP_FRAMES)
        times: dict[str, list[float]] = {name: [] for name in players}
        for name in in_turn(list(players), rounds):
            times[name] += players[name].play(FRAMES_PER_TURN)
    rows = [
        {
            "faces": int(name),
            "found": players[name].seen,
            "median_ms": float(np.median(taken)),
            "mean_ms": float(np.mean(taken)),
        }
        for name, taken in times.items()
    ]
    some = [row for row in rows if row["found"]]  # an empty scene is searched more often: not on the line
    if len({row["found"] for row in some}) < 2:
        raise EmotiondError("growth: nobody, or always as many, are found in the scenes: no line with these settings")
    slope, at_none = np.polyfit([row["found"] for row in some], [row["mean_ms"] for row in some], 1)
    off = max(abs(at_none + slope * row["found"] - row["mean_ms"]) / row["mean_ms"] for row in some)
    return {"rows": rows, "ms_per_face": float(slope), "ms_without": float(at_none), "off_the_line_max": float(off)}


class _Player:
    """A pipeline before a scene."""

    def __init__(self, pipeline: Pipeline, frames: Iterator[Frame]) -> None:
        self._pipeline, self._frames = pipeline, frames
        self.seen = 0
        """Faces in sight in the newest frame."""

    def play(self, count: int) -> list[float]:
        """The next frames; returns what each took, in ms."""
        times = []
        for frame in itertools.islice(self._frames, count):
            began_at = time.perf_counter()
            sight = self._pipeline.step(frame)
            times.append((time.perf_counter() - began_at) * 1000)
            self.seen = len(sight.readings)
        return times


def scene(faces: int) -> Iterator[Frame]:
    """Frames without end: so many copies of the portrait's head, each wandering a little, on a plain wall."""
    encoded = resources.files("edge").joinpath("assets/portrait.jpg").read_bytes()
    portrait = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    x, y, side = HEAD
    head = cv2.resize(portrait[y : y + side, x : x + side], (HEAD_SIZE, HEAD_SIZE), interpolation=cv2.INTER_AREA)
    period = round(WANDER_S * FPS)
    images = [_draw(head, faces, 2 * np.pi * index / period) for index in range(period)]
    began_at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for seq in itertools.count():
        at = seq / FPS
        yield Frame(images[seq % period], seq, time.monotonic(), began_at + timedelta(seconds=at), media_time=at)


def _draw(head: np.ndarray, faces: int, phase: float) -> np.ndarray:
    image = np.full((SCENE[1], SCENE[0], 3), BACKGROUND, np.uint8)
    for place in range(faces):
        left = 60 + SPACING[0] * (place % 4) + round(WANDER_PX * np.sin(phase + place))
        top = 60 + SPACING[1] * (place // 4) + round(WANDER_PX * np.cos(phase + 2 * place))
        image[top : top + HEAD_SIZE, left : left + HEAD_SIZE] = head
    return image


def _over_time(named: Sequence[str], overrides: Sequence[str], minutes: float) -> dict[str, Any]:
    """One clip played again and again, as fast as it goes: cost and memory of each segment."""
    with clips.opened(named) as chosen:
        config = clips.settings(chosen[0].path, [*overrides, "camera.loop=true"])
        frames_per_segment, times, rows = 0, [], []
        end_s = minutes * 60 / SEGMENTS
        passing = clips.sights(config)
        next(passing, None)  # loads the network and opens the file, which no later frame does
        began_at = time.perf_counter()
        for sight in passing:
            times.append((time.perf_counter() - began_at) * 1000)  # reading the frame and its way through the pipeline
            if sight.frame.media_time >= end_s * (len(rows) + 1):
                rows.append(
                    {
                        "minute": sight.frame.media_time / 60,
                        "median_ms": float(np.median(times)),
                        "mean_ms": float(np.mean(times)),
                        "rss_mb": memory_mb(os.getpid())[0],
                    }
                )
                frames_per_segment, times = len(times), []
                if len(rows) == SEGMENTS:
                    break
            began_at = time.perf_counter()
    ends = [np.mean([row["mean_ms"] for row in part]) for part in (rows[: SEGMENTS // 4], rows[-(SEGMENTS // 4) :])]
    return {
        "clip": chosen[0].name,
        "minutes": minutes,
        "frames_per_segment": frames_per_segment,
        "rows": rows,
        "last_over_first": float(ends[1] / ends[0]),
        "rss_growth_mb": rows[-1]["rss_mb"] - rows[SEGMENTS // 4]["rss_mb"],
    }
