"""Sweep and follow: whole frames are searched now and then, and every frame near the faces that are known."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from edge.config import SearchConfig
from edge.look import Look
from edge.motion import Cells, cells_of, changed_parts, has_changed
from edge.pipeline import FaceDetector
from edge.records import SAME_FACE, Box, Face, Frame, distinct

WHOLE_EVERY_S = 3.0  # whoever was missed before and sits still afterwards is found by then, if anything moves
# What moves so many sides of a known face beside it and above, and all below, is the rest of that person for the most
# part. Once a sweep has found nobody new, only whole ones look there.
BODY_BESIDE, BODY_ABOVE = 1.0, 0.75
REACH = 0.25  # of a face's side: it moves less between two frames
CATCH_UP_REACH = 0.8  # and less than this while it was searched for
MARGIN = 1 / 8  # of the frame's width, around what changed: a face's edge may look like what was behind it
STEADY_SLOWER = 3  # a file's sweep may take so much longer where it hardly finds anything new: else the loop waits
FOUND_OFTEN = 5  # frames in a row in which a face must have been found before its look is enough: false faces flicker
LOOK_HOLDS_S = 0.5  # for so long; then it is searched for again
LOOK_EVERY_S = 0.05  # at one that did not move: every second frame of thirty a second
MOVES_ON = 8  # frames for which a picture that moves is taken to do so further, without looking
LOST_AFTER_S = 0.07  # for which a known face is not found near its place: two frames of thirty a second may miss it
LOST_SPEEDUP = 3  # sweeps come so much sooner then


class FaceFollower(Protocol):
    """Finds known faces again."""

    def near(self, frame: Frame, box: Box, reach: float) -> Face | None:
        """The face that lies within `reach` sides of `box`, or None."""


@dataclass(slots=True)
class _Sweep:
    faces: Future[list[Face]]
    frame: Frame
    due_at: float | None
    """Media time at which its result joins, whenever it is ready; None for as soon as it is."""


@dataclass(slots=True)
class _Seen:
    """A face where it was last, and how it looked where the follower found it."""

    face: Face
    look: Look
    at: float
    times: int
    """In how many frames in a row."""
    rests_until: float = -float("inf")
    """Media time up to which it is taken to be where it was."""


def sweep_threads() -> ThreadPoolExecutor:
    """For the sweeps of all cameras: one core is left to the loop. They queue, and each camera has one at a time."""
    cores = len(os.sched_getaffinity(0))
    return ThreadPoolExecutor(max_workers=max(1, cores - 1), thread_name_prefix="sweep")


class FaceSearch:
    """Where the faces of successive frames are. A context manager: sweeps run on a thread of their own, or in `pool`.

    smallest: px of the frame, the side of the smallest face that is looked for.
    live: sweeps join when they are ready. Otherwise they join after a fixed time of the file, so that the same file
    gives the same faces on any machine.
    """

    def __init__(
        self,
        detector: FaceDetector,
        follower: FaceFollower,
        config: SearchConfig,
        smallest: int,
        live: bool,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._detector, self._follower, self._config = detector, follower, config
        self._smallest, self._live = smallest, live
        self._pool = pool or ThreadPoolExecutor(max_workers=1, thread_name_prefix="sweep")
        self._owns_pool = pool is None
        self._one_at_a_time = threading.Lock()  # a cascade has room for one picture; a sweep given up may still run
        self._sweep: _Sweep | None = None
        self._searched: Cells | None = None
        self._swept: Cells | None = None
        self._swept_whole: Cells | None = None
        self._swept_at = self._swept_whole_at = -float("inf")
        self._all_found_at = -float("inf")
        self._faces: list[Face] = []
        self._seen: list[_Seen] = []
        self._steady = False  # the last sweep found the faces that are followed, and no other
        self.slowdown = 1
        """Sweeps come so many times more rarely than configured: of a device that is too hot or too slow."""
        self.moved = True
        """Whether the last frame showed anything new."""
        self._moves_on = 0
        self._still_frames = self._sweeps = 0

    def __enter__(self) -> "FaceSearch":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._owns_pool:
            self._pool.shutdown(wait=True)
        elif self._sweep is not None:
            self._sweep.faces.cancel()  # one that runs already ends for nobody

    @property
    def figures(self) -> dict[str, int]:
        """Since the start: sweeps begun, and frames that showed nothing new and were not searched."""
        return {"sweeps": self._sweeps, "still_frames": self._still_frames}

    def clear(self) -> None:
        """Forget what was seen: what comes next is another picture."""
        self._sweep = self._searched = self._swept = self._swept_whole = None
        self._swept_at = self._swept_whole_at = self._all_found_at = -float("inf")  # its time may begin anew
        self._faces, self._seen, self._steady = [], [], False
        self._moves_on = 0

    def find(self, frame: Frame, known: Sequence[Box]) -> list[Face]:
        """The faces of the next frame. known: where faces were in the frame before."""
        region = self._region(frame)
        cells = None if self._moves_on else cells_of(frame)
        self.moved = self._shows_new(cells) or not self._config.skip_still
        followed = self._follow(frame, known, region) if self.moved else self._faces
        all_found = len(followed) >= len(known)
        if all_found:
            self._all_found_at = frame.media_time
        lost = not 0 <= frame.media_time - self._all_found_at < LOST_AFTER_S
        self._steady &= bool(known) and not lost
        if self._sweep is None and self._is_due(frame.media_time, known, lost):
            self._sweep = self._begin(frame, cells, region, followed, all_found and bool(known))
        if not self.moved and self._sweep is None:
            self._still_frames += 1
            return self._faces
        self._faces = self._with_swept(frame, followed, known)
        return self._faces

    def _shows_new(self, cells: Cells | None) -> bool:
        """Whether the picture is another than the last that was looked at, after which it was searched."""
        if cells is None:
            self._moves_on -= 1
            return True
        if not has_changed(self._searched, cells):
            return False
        if self._searched is None:
            self._searched = cells
        else:  # it moves; and only two frames in a row can be compared
            self._searched, self._moves_on = None, MOVES_ON
        return True

    def _follow(self, frame: Frame, known: Sequence[Box], region: Box) -> list[Face]:
        self._seen = [seen for box in known if (seen := self._again(frame, box)) is not None]
        found = distinct([seen.face for seen in self._seen])
        return [face for face in found if region.holds_centre_of(face.box)]

    def _again(self, frame: Frame, box: Box) -> _Seen | None:
        """A known face in this frame: where it is by its look, if that is sure enough; else it is searched for."""
        before = next((seen for seen in self._seen if seen.face.box.overlap(box) >= SAME_FACE), None)
        if before is not None and self._config.skip_still and self._holds(before, frame):
            return before
        face = self._follower.near(frame, box, REACH)
        if face is None or frame.part(face.box) is None:
            return None
        return _Seen(face, Look(frame, face.box), frame.media_time, 1 if before is None else before.times + 1)

    def _holds(self, seen: _Seen, frame: Frame) -> bool:
        if seen.times < FOUND_OFTEN or not 0 <= frame.media_time - seen.at < LOOK_HOLDS_S:
            return False
        if frame.media_time < seen.rests_until:
            return True
        box = seen.look.found_in(frame)
        if box is None:
            return False
        if box == seen.face.box:
            seen.rests_until = frame.media_time + LOOK_EVERY_S
        else:
            seen.face = Face(box, seen.face.confidence)
        return True

    def _region(self, frame: Frame) -> Box:
        if self._config.region is None:
            return frame.whole
        width, height = frame.size
        left, top, right, bottom = self._config.region
        x, y = round(left * width), round(top * height)
        return Box(x, y, max(1, round(right * width) - x), max(1, round(bottom * height) - y))

    def _is_due(self, at: float, known: Sequence[Box], lost: bool) -> bool:
        if lost:
            interval_s = self._config.interval_s / LOST_SPEEDUP
        elif known:
            interval_s = self._config.steady_interval_s if self._steady else self._config.interval_s
        else:
            interval_s = self._config.empty_interval_s
        return at - self._swept_at >= interval_s * self.slowdown

    def _begin(
        self, frame: Frame, cells: Cells | None, region: Box, followed: Sequence[Face], all_found: bool
    ) -> _Sweep | None:
        windows = self._windows(frame, cells_of(frame) if cells is None else cells, region, followed)
        if not windows:
            return None
        self._sweeps += 1
        # What is missing is waited for, what may have come besides can come a bit later.
        may_take_s = self._config.join_after_s * (STEADY_SLOWER if self._steady else 1)
        due_at = None if self._live else frame.media_time + (may_take_s if all_found else 0.0)
        return _Sweep(self._pool.submit(self._detect, frame, windows, [face.box for face in followed]), frame, due_at)

    def _windows(self, frame: Frame, cells: Cells, region: Box, followed: Sequence[Face]) -> list[Box]:
        """Where a face can have come since it was searched for."""
        at = frame.media_time
        whole = not self._config.skip_still or at - self._swept_whole_at >= WHOLE_EVERY_S
        if whole:
            changed = [region] if not self._config.skip_still or has_changed(self._swept_whole, cells) else []
        else:
            least, bodies = (self._smallest, [_body(face.box, frame) for face in followed]) if self._steady else (1, [])
            changed = changed_parts(self._swept, cells, frame, round(MARGIN * frame.size[0]), least, bodies)
        if self.moved or changed:  # else what comes is searched for at once
            self._swept_at = at
        if not changed:
            return []
        self._swept = cells
        if whole:
            self._swept_whole, self._swept_whole_at = cells, at
        return [window for part in changed if (window := region.common(part)) is not None]

    def _detect(self, frame: Frame, windows: Sequence[Box], known: Sequence[Box]) -> list[Face]:
        with self._one_at_a_time:
            return [face for window in windows for face in self._detector.detect(frame, window, known)]

    def _with_swept(self, frame: Frame, followed: list[Face], known: Sequence[Box]) -> list[Face]:
        """The followed faces, and those that the sweep found besides if it joins now."""
        sweep = self._sweep
        if sweep is None or not (sweep.faces.done() if sweep.due_at is None else frame.media_time >= sweep.due_at):
            return followed
        self._sweep = None
        for seen in self._seen:
            seen.at = -float("inf")  # its size may be another now
        faces = list(followed)
        for face in sweep.faces.result():
            same = [known_face for known_face in followed if face.box.overlap(known_face.box) >= SAME_FACE]
            if same:
                faces[followed.index(same[0])] = Face(face.box.centred_on(same[0].box), face.confidence)
            elif (now := self._now(face, sweep.frame, frame, known)) is not None:
                faces.append(now)
        self._steady = len(faces) == len(followed) > 0
        return distinct(faces)

    def _now(self, face: Face, seen_in: Frame, frame: Frame, known: Sequence[Box]) -> Face | None:
        """Where a face of an earlier frame is in this one; None if it has gone since."""
        if seen_in is frame:
            return face
        found = self._follower.near(frame, face.box, CATCH_UP_REACH)
        if found is not None:
            return Face(found.box, face.confidence)
        # A known face that was missed near its place is rather there than gone.
        return face if any(face.box.overlap(box) >= SAME_FACE for box in known) else None


def _body(face: Box, frame: Frame) -> Box:
    """Where the rest of somebody is."""
    left, top = round(face.x - BODY_BESIDE * face.w), round(face.y - BODY_ABOVE * face.h)
    return Box(left, top, round((1 + 2 * BODY_BESIDE) * face.w), frame.size[1] - top)
